"""Several labels an image: relevance, gain and the figures, beside Python's own sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, ndcg_score

from cbir_tf.errors import UserError
from cbir_tf.evaluation import LabelSets, evaluate, per_query
from cbir_tf.search import METRICS
from cbir_tf.types import Embeddings

NAMES = ["cat", "dog", "owl", "eel"]


@st.composite
def several_labels(draw):
    """Images with ties in distance, and the labels of each, some with none."""
    row = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)
    vectors = draw(st.lists(row, min_size=3, max_size=15))
    count = len(vectors)
    ids = [f"{each:02d}" for each in draw(st.permutations(range(count)))]
    labels = st.sets(st.sampled_from(NAMES))
    sets = dict(zip(ids, draw(st.lists(labels, min_size=count, max_size=count)), strict=True))
    return Embeddings(ids, vectors, np.zeros(count)), sets


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one & other else 0.0


def naive_figures(gains: list[float], k: int) -> dict[str, float]:
    relevant = sum(gain > 0 for gain in gains)
    if not relevant:
        return dict.fromkeys(
            [f"recall@{k}", f"precision@{k}", "map", "ndcg", f"ndcg@{k}"], math.nan
        )

    def discounted(values):
        return sum(value / math.log2(rank + 2) for rank, value in enumerate(values))

    hits = [gain > 0 for gain in gains]
    best = sorted(gains, reverse=True)
    return {
        f"recall@{k}": float(any(hits[:k])),
        f"precision@{k}": sum(hits[:k]) / k,
        "map": sum(sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit)
        / relevant,
        "ndcg": discounted(gains) / discounted(best),
        f"ndcg@{k}": discounted(gains[:k]) / discounted(best[:k]),
    }


@pytest.mark.parametrize("metric", METRICS)
@given(case=several_labels(), k=st.integers(1, 2))
def test_figures_agree_with_naive_loops(metric, case, k):
    images, sets = case
    found = per_query(images, k=(k,), metric=metric, label_sets=sets)
    # The ranking itself is held to naive loops elsewhere; by single labels it is the same.
    for row, query in enumerate(images.ids.tolist()):
        gains = [jaccard(sets[query], sets[other]) for other in ranking(images, row, metric)]
        for name, value in naive_figures(gains, k).items():
            np.testing.assert_allclose(found[name][row], value, rtol=1e-6, err_msg=name)


def ranking(images: Embeddings, row: int, metric: str) -> list[str]:
    from cbir_tf.search import make_index

    index = make_index("nearest_neighbors", metric).fit(images)
    one = images.vectors[[row]]
    return index.search(one, len(images) - 1, images.ids[[row]]).ids[0].tolist()


@given(case=several_labels())
def test_gains_are_jaccards_index(case):
    images, sets = case
    labels = LabelSets(sets)
    gains = labels.gains(images.ids, images.ids[::-1])
    for row, one in enumerate(images.ids.tolist()):
        for column, other in enumerate(images.ids[::-1].tolist()):
            assert gains[row, column] == pytest.approx(jaccard(sets[one], sets[other]))
    if len(labels.names) > 1:
        here, there = (labels.rows(images.ids[[each]]).toarray()[0] for each in (0, 1))
        theirs = jaccard_score(here, there, zero_division=0)
        assert labels.gains(images.ids[[0]], images.ids[[1]])[0, 0] == pytest.approx(theirs)


@given(case=several_labels())
def test_sets_of_one_label_are_labels(case):
    images, sets = case
    numbers = [len(sets[id_]) % len(NAMES) for id_ in images.ids.tolist()]
    single = {id_: [NAMES[each]] for id_, each in zip(images.ids.tolist(), numbers, strict=True)}
    expected = per_query(Embeddings(images.ids, images.vectors, numbers), k=(1, 2))
    found = per_query(images, k=(1, 2), label_sets=single)
    assert found.keys() == expected.keys() - {"centroid_accuracy"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)


def test_ndcg_is_scikit_learns():
    random = np.random.default_rng(0)
    queries, gallery = (
        Embeddings([f"{name}{each}" for each in range(40)], random.normal(size=(40, 3)), [0] * 40)
        for name in "qg"
    )
    sets = {
        str(id_): [name for name in NAMES if random.random() < 0.5] or ["owl"]
        for id_ in (*queries.ids, *gallery.ids)
    }
    found = per_query(queries, gallery, (5,), "euclidean", sets)
    gains = LabelSets(sets).gains(queries.ids, gallery.ids)
    scores = -np.linalg.norm(queries.vectors[:, None] - gallery.vectors, axis=2)
    for row in range(40):
        for name, k in (("ndcg", None), ("ndcg@5", 5)):
            theirs = ndcg_score(gains[[row]], scores[[row]], k=k)
            assert found[name][row] == pytest.approx(theirs, rel=1e-6)


def test_a_query_counts_in_each_of_its_classes():
    images = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [-1] * 4)
    sets = {"a": ["cat", "dog"], "b": {"dog"}, "c": ("owl",), "d": []}
    result = evaluate(images, k=(1,), label_sets=sets)
    assert (result["queries"], result["left_out"]) == (2, 2)
    assert {name: each["queries"] for name, each in result["per_class"].items()} == {
        "cat": 1,
        "dog": 2,
    }
    assert result["figures"]["recall@1"] == 1


def test_an_image_without_a_set_is_a_one_line_error():
    images = Embeddings(list("ab"), np.eye(2), [0, 0])
    with pytest.raises(UserError, match="'b' has no set of labels"):
        evaluate(images, k=(1,), label_sets={"a": ["cat"]})
