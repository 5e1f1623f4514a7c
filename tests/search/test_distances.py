"""Distances in bulk and from differences, against float128 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir_tf.config.metric_names import METRIC_NAMES, minkowski_order
from cbir_tf.search import distances
from cbir_tf.search.distances import (
    METRICS,
    between,
    find_metric,
    nearest_columns,
    pairs_within,
    pairwise,
)

NAMES = [*METRICS, "minkowski-1.5", "minkowski-3", "minkowski-12", "minkowski-100.5"]


def exact(name: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Straight from the definitions, in extended precision."""
    queries, gallery = queries.astype(np.longdouble), gallery.astype(np.longdouble)
    if name == "cosine":
        queries = queries / np.sqrt((queries**2).sum(axis=1, keepdims=True))
        gallery = gallery / np.sqrt((gallery**2).sum(axis=1, keepdims=True))
    difference = queries[:, None] - gallery
    if name == "manhattan":
        return np.abs(difference).sum(axis=-1)
    order = minkowski_order(name)
    if order:
        return (np.abs(difference) ** order).sum(axis=-1) ** (1 / np.longdouble(order))
    squared = (difference**2).sum(axis=-1)
    return squared / 2 if name == "cosine" else np.sqrt(squared)


VECTORS = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(5)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(queries=VECTORS, gallery=VECTORS, closeness=st.sampled_from([0, 1e-7, 1e-5, 1e-3]))
def test_bulk_distances_are_right_to_float32_even_where_vectors_nearly_agree(
    name, queries, gallery, closeness
):
    queries[:, 0], gallery[:, 0] = 3, 3
    gallery = np.concatenate([gallery, queries * np.float32(1 + closeness), queries])
    gallery[-len(queries) :, 1] += np.float32(closeness)
    metric = find_metric(name)
    found = pairwise(metric, metric.prepare(queries), metric.prepare(gallery))
    expected = exact(name, queries, gallery).astype(np.float64)
    # The last bits of float64 units: |q^ - g^| is known to about 3e-16, half its square as follows.
    units = 3e-16 if name == "cosine" else 0
    tolerance = 1e-6 * expected + units * np.sqrt(2 * expected) + units**2
    tolerance = 1e-6 * expected
    if name == "cosine":  # of |q^ - g^| the last bits of float64 units are known, about 1e-16
        tolerance += 1e-31 + 4e-16 * np.sqrt(2 * expected)
    assert (np.abs(found - expected) <= tolerance).all()


@pytest.mark.parametrize("name", NAMES)
def test_bulk_and_single_distances_are_the_same_numbers(name):
    random = np.random.default_rng(0)
    metric = find_metric(name)
    gallery = random.normal(size=(400, 64)).astype(np.float32)
    gallery[200:] = gallery[:200] * np.float32(1.0001)
    prepared = metric.prepare(gallery)
    bulk = pairwise(metric, prepared, prepared)
    single = between(metric, prepared[:, None], prepared)
    assert np.array_equal(bulk, single)
    assert (np.diagonal(bulk) == 0).all()


def test_minkowski_of_order_one_is_manhattan_and_of_order_two_euclidean():
    random = np.random.default_rng(1)
    queries, gallery = random.normal(size=(20, 16)), random.normal(size=(300, 16))
    for order, name in ((1, "manhattan"), (2, "euclidean")):
        ours = pairwise(find_metric(f"minkowski-{order}"), queries, gallery)
        assert np.array_equal(ours, pairwise(find_metric(name), queries, gallery))


def test_a_query_too_many_for_one_block_changes_nothing():
    random = np.random.default_rng(2)
    queries, gallery = random.normal(size=(70, 700)), random.normal(size=(150, 700))
    metric = find_metric("minkowski-2.5")
    bulk = pairwise(metric, queries, gallery)
    assert np.array_equal(bulk, between(metric, queries[:, None], gallery))


def test_every_named_distance_is_there():
    assert set(METRICS) == set(METRIC_NAMES)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=50)
@given(
    vectors=arrays(np.float32, (9, 4), elements=st.integers(-2, 2)),
    distance=st.sampled_from([0, 0.3, 1, 2, 5]),
    block=st.sampled_from([1, 20, 4_000_000]),
)
def test_pairs_within_a_distance_are_those_of_a_double_loop(name, vectors, distance, block):
    metric = METRICS[name]
    prepared = metric.prepare(vectors)
    expected = [
        [one, other]
        for one in range(9)
        for other in range(one + 1, 9)
        if between(metric, prepared[one], prepared[other]) <= distance
    ]
    usual, distances.BLOCK_PAIRS = distances.BLOCK_PAIRS, block
    try:
        blocks = list(pairs_within(metric, vectors, distance))
    finally:
        distances.BLOCK_PAIRS = usual
    found = [pair for some in blocks for pair in np.transpose(some).tolist()]
    assert found == expected


@pytest.mark.parametrize("columns", [1, 5, 64, 1000])
@pytest.mark.parametrize("values", [1, 3, 10_000])
def test_the_nearest_columns_are_those_of_a_stable_sort(columns, values):
    random = np.random.default_rng(0)
    distances = random.integers(values, size=(20, columns)).astype(np.float32)
    distances[random.random(distances.shape) < 0.1] = np.inf
    expected = np.argsort(distances, axis=1, kind="stable")
    for k in (1, 2, 7, 300, columns):
        assert nearest_columns(distances, k).tolist() == expected[:, :k].tolist()
