"""Re-ranking against the papers' formulas written with loops."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.retrieval.re_ranking import augmented, k_reciprocal, query_expansion
from cbir_tf.search import make_index
from cbir_tf.search.index import positions_of
from cbir_tf.types import Embeddings


def gallery_of(count: int, dimension: int, seed: int) -> Embeddings:
    random = np.random.default_rng(seed)
    ids = [f"{each:03d}" for each in range(count)]
    return Embeddings(ids, random.normal(size=(count, dimension)), np.zeros(count))


def cosine(one, other) -> float:
    lengths = math.hypot(*one), math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])


def naive_expansion(query, neighbours, alpha):
    total = np.array(query) / math.hypot(*query)
    for each in neighbours:
        weight = max(cosine(query, each), 0) ** alpha if cosine(query, each) > 0 else 0
        total = total + weight * np.array(each) / math.hypot(*each)
    return math.hypot(*query) * total / math.hypot(*total)


@given(
    count=st.integers(3, 20),
    n=st.integers(1, 25),
    alpha=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 99),
)
def test_alpha_query_expansion_is_the_weighted_mean(count, n, alpha, seed):
    gallery = gallery_of(count, 4, seed)
    queries = np.random.default_rng(seed + 100).normal(size=(3, 4)).astype(np.float32)
    found = make_index(metric="cosine").fit(gallery).search(queries, count)
    positions = positions_of(found.ids[:, :n].ravel(), gallery.ids).reshape(len(queries), -1)
    expanded = query_expansion(queries, positions, gallery, alpha)
    for query, ids, ours in zip(queries, found.ids, expanded, strict=True):
        nearest = [gallery.vectors[int(each)].tolist() for each in ids[:n]]
        expected = naive_expansion(query.tolist(), nearest, alpha)
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_expansion_passes_over_missing_neighbours():
    gallery = gallery_of(3, 4, 0)
    index = make_index(metric="cosine").fit(gallery)
    found = index.search(gallery.vectors[:1], 3, where=["001"])
    expected = naive_expansion(gallery.vectors[0].tolist(), [gallery.vectors[1].tolist()], 0)
    positions = positions_of(found.ids.ravel(), gallery.ids)[None]
    ours = query_expansion(gallery.vectors[:1], positions, gallery, 0)
    if cosine(gallery.vectors[0], gallery.vectors[1]) > 0:
        np.testing.assert_allclose(ours[0], expected, atol=1e-6)
    else:
        np.testing.assert_allclose(ours[0], gallery.vectors[0], atol=1e-6)


@given(count=st.integers(1, 20), n=st.integers(1, 25), seed=st.integers(0, 99))
def test_database_side_augmentation_expands_every_vector_once(count, n, seed):
    gallery = gallery_of(count, 4, seed)
    index = make_index(metric="cosine").fit(gallery)
    moved = augmented(index, gallery.take(slice(None, None, -1)), n, alpha=2)
    assert moved.ids.tolist() == gallery.ids.tolist()
    for row in range(count if count > 1 else 0):
        others = [each for each in range(count) if each != row]
        others.sort(key=lambda each: -cosine(gallery.vectors[row], gallery.vectors[each]))
        nearest = [gallery.vectors[each].tolist() for each in others[:n]]
        expected = naive_expansion(gallery.vectors[row].tolist(), nearest, 2)
        np.testing.assert_allclose(moved.vectors[row], expected, atol=1e-5)


def naive_k_reciprocal(vectors, k1, k2, weight):
    """The paper's equations, over everything, with sets and loops; the first vector is the query.

    As in the authors' program, distances are divided by the largest of their row.
    """
    count = len(vectors)
    distance = [[math.dist(a, b) for b in vectors] for a in vectors]
    distance = [[value / (max(row) or 1) for value in row] for row in distance]
    ranked = [sorted(range(count), key=lambda j, i=i: (distance[i][j], j)) for i in range(count)]

    def nearest(p, k):
        return set(ranked[p][: k + 1])

    def reciprocal(p, k):
        return {q for q in nearest(p, k) if p in nearest(q, k)}

    def expanded(p):
        result = set(reciprocal(p, k1))
        for q in reciprocal(p, k1):
            more = reciprocal(q, round(k1 / 2))
            if len(reciprocal(p, k1) & more) > 2 / 3 * len(more):
                result |= more
        return result

    rows = []
    for p in range(count):
        values = {q: math.exp(-distance[p][q]) for q in expanded(p)}
        total = sum(values.values())
        rows.append([values.get(q, 0) / total for q in range(count)])
    if k2 > 1:
        rows = [np.mean([rows[q] for q in ranked[p][:k2]], axis=0).tolist() for p in range(count)]
    final = []
    for q in range(1, count):
        smaller = sum(min(a, b) for a, b in zip(rows[0], rows[q], strict=True))
        larger = sum(max(a, b) for a, b in zip(rows[0], rows[q], strict=True))
        final.append(weight * distance[0][q] + (1 - weight) * (1 - smaller / larger))
    return final


@given(
    count=st.integers(2, 25),
    k1=st.integers(1, 12),
    k2=st.integers(1, 5),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_k_reciprocal_is_the_papers(count, k1, k2, weight, seed):
    candidates = gallery_of(count, 3, seed)
    query = np.random.default_rng(seed + 100).normal(size=3).astype(np.float32)
    found = k_reciprocal(query, candidates, "euclidean", k1, k2, weight)
    vectors = [query.tolist(), *candidates.vectors.tolist()]
    expected = naive_k_reciprocal(vectors, k1, k2, weight)
    ours = dict(zip(found.ids[0].tolist(), found.distances[0].tolist(), strict=True))
    np.testing.assert_allclose([ours[id_] for id_ in candidates.ids.tolist()], expected, atol=1e-5)
    assert sorted(found.distances[0].tolist()) == found.distances[0].tolist()
