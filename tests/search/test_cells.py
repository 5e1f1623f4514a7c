"""Exact search in cells, held to comparing with everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.search.cells import Cells

faiss = pytest.importorskip("faiss")


def clustered(count: int, dimension: int, clusters: int, spread: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dimension))
    vectors = centres[random.integers(clusters, size=count)]
    return (vectors + spread * random.normal(size=vectors.shape)).astype(np.float32)


def nearest(queries: np.ndarray, vectors: np.ndarray, wanted: int) -> np.ndarray:
    """(Q, wanted) squared distances, by comparing everything with everything."""
    differences = queries[:, None].astype(np.float64) - vectors
    return np.sort(np.square(differences).sum(axis=-1), axis=1)[:, :wanted]


@given(
    st.integers(1, 700),
    st.integers(1, 40),
    st.sampled_from([4, 8, 20]),
    st.integers(1, 12),
    st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
    st.sampled_from([0.0, 1e3]),
    st.integers(0, 9),
)
def test_answers_are_exact(count, wanted, dimension, clusters, spread, away, seed):
    vectors = clustered(count + 30, dimension, clusters, spread, seed) + np.float32(away)
    queries, vectors = vectors[:30], vectors[30:]
    wanted = min(wanted, count)
    cells = Cells.fit(faiss, vectors, seed)
    answered, squared, numbers = cells.search(queries, wanted)
    expected = nearest(queries[answered], vectors, wanted)
    sizes = np.square(queries).sum(axis=1).max() + np.square(vectors).sum(axis=1).max()
    assert (np.abs(squared - expected) <= 1e-6 * sizes).all()
    assert all(len(set(row)) == wanted for row in numbers.tolist())
    found = np.square(queries[answered][:, None] - vectors[numbers]).sum(axis=-1)
    np.testing.assert_allclose(found, squared, atol=1e-6 * sizes)


def test_clusters_are_separated_and_noise_is_left_to_the_caller():
    close, apart = clustered(6_000, 16, 50, 0.05, 0), clustered(6_000, 16, 1, 1.0, 0)
    answered, squared, _ = Cells.fit(faiss, close, 0).search(close[:200], 10)
    assert answered.mean() > 0.9
    np.testing.assert_allclose(squared, nearest(close[:200][answered], close, 10), atol=1e-4)
    assert Cells.fit(faiss, apart, 0).search(apart[:200], 10)[0].mean() < 0.1


def test_added_vectors_are_found_and_removed_ones_are_not(tmp_path):
    vectors = clustered(3_000, 8, 30, 0.05, 1)
    cells = Cells.fit(faiss, vectors[:2_000], 0)
    far = vectors[2_000:] + np.float32(3)  # beyond every radius so far
    first = cells
    before = first.search(vectors[:100], 5)
    cells = first.with_added(far).without(np.arange(0, 1_000))
    assert (len(first), len(cells)) == (2_000, 2_000)
    for one, other in zip(before, first.search(vectors[:100], 5), strict=True):
        np.testing.assert_array_equal(one, other)
    left = np.concatenate([vectors[1_000:2_000], far])
    queries = np.concatenate([vectors[:100], far[:100]])
    answered, squared, numbers = cells.search(queries, 5)
    assert answered.any() and numbers.min() >= 1_000
    np.testing.assert_allclose(squared, nearest(queries[answered], left, 5), atol=1e-4)
    cells.save(tmp_path / "cells.npz", np.arange(1_000, 3_000))
    again = Cells.load(tmp_path / "cells.npz", faiss, left)
    for one, other in zip(
        (answered, squared, numbers - 1_000), again.search(queries, 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)
