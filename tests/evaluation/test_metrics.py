"""Figures against naive loops and scikit-learn."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from cbir_tf.errors import UserError
from cbir_tf.evaluation import (
    bootstrap_intervals,
    evaluate,
    figures_to_r,
    metrics,
    per_query,
    score_rankings,
    summarize,
)
from cbir_tf.search import METRICS, make_index
from cbir_tf.types import Embeddings


def random_embeddings(count: int, classes: int = 5, seed: int = 0, prefix: str = "") -> Embeddings:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    vectors = random.normal(size=(count, 12)) + 1.5 * np.eye(classes, 12)[labels]
    return Embeddings([f"{prefix}{3 * each:05d}" for each in range(count)], vectors, labels)


def naive_distance(metric: str, one, other) -> np.float32:
    one, other = one.astype(np.float64), other.astype(np.float64)
    if metric == "manhattan":
        return np.float32(sum(abs(one - other)))
    if metric == "cosine":
        one, other = one / math.hypot(*one), other / math.hypot(*other)
        return np.float32(math.dist(one, other) ** 2 / 2)
    return np.float32(math.dist(one, other))


def naive_figures(relevance: list[bool], relevant: int, k) -> dict[str, float]:
    """The formulas of the docstring, rank by rank."""

    def precision(rank):
        return sum(relevance[:rank]) / rank

    def average_precision(until):
        ranks = [rank for rank in range(1, until + 1) if relevance[rank - 1 : rank] == [True]]
        return sum(precision(rank) for rank in ranks) / relevant

    def gain(until):
        found = sum(
            1 / math.log2(rank + 2) for rank in range(until) if relevance[rank : rank + 1] == [True]
        )
        return found / sum(1 / math.log2(rank + 2) for rank in range(min(until, relevant)))

    if relevant == 0:
        names = [f"{name}@{rank}" for rank in k for name in ("recall", "precision", "map", "ndcg")]
        return dict.fromkeys([*names, "map", "map_at_r", "r_precision", "mrr", "ndcg"], math.nan)
    figures = {f"recall@{rank}": float(any(relevance[:rank])) for rank in k}
    figures |= {f"precision@{rank}": precision(rank) for rank in k}
    figures |= {f"map@{rank}": average_precision(rank) for rank in k}
    figures |= {f"ndcg@{rank}": gain(rank) for rank in k}
    return figures | {
        "map": average_precision(len(relevance)),
        "map_at_r": average_precision(relevant),
        "r_precision": precision(relevant),
        "mrr": 1 / (relevance.index(True) + 1) if any(relevance) else 0.0,
        "ndcg": gain(max(len(relevance), relevant)),
    }


def naive_per_query(queries: Embeddings, gallery: Embeddings, k, metric):
    for query, vector, label in zip(queries.ids, queries.vectors, queries.labels, strict=True):
        ranking = sorted(
            (naive_distance(metric, vector, gallery.vectors[row]), str(gallery.ids[row]), row)
            for row in range(len(gallery))
            if gallery.ids[row] != query
        )
        relevance = [bool(gallery.labels[row] == label) for _, _, row in ranking]
        yield naive_figures(relevance, sum(relevance), k)


def assert_same(found: dict[str, np.ndarray], expected) -> None:
    for row, figures in enumerate(expected):
        assert found.keys() - {"centroid_accuracy"} == figures.keys()
        for name, value in figures.items():
            np.testing.assert_allclose(found[name][row], value, rtol=1e-12, err_msg=name)


@st.composite
def labelled(draw, prefix: str = "image", smallest_label: int = 0):
    """Small whole numbers, so that ties and duplicates are the rule; ids with gaps."""
    row = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)
    vectors = draw(st.lists(row, min_size=3, max_size=25))
    count = len(vectors)
    ids = draw(st.lists(st.integers(0, 99), min_size=count, max_size=count, unique=True))
    label = st.integers(smallest_label, 3)
    labels = draw(st.lists(label, min_size=count, max_size=count))
    return Embeddings([f"{prefix}-{each}" for each in ids], vectors, labels)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25, deadline=None)
@given(images=labelled())
def test_leave_one_out_agrees_with_naive_loops_with_ties_and_duplicates(metric, images):
    assert_same(
        per_query(images, k=(1, 2), metric=metric),
        naive_per_query(images, images, (1, 2), metric),
    )


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25, deadline=None)
@given(queries=labelled(), gallery=labelled(smallest_label=-1))
def test_queries_against_a_gallery_that_shares_ids_agree_with_naive_loops(metric, queries, gallery):
    assert_same(
        per_query(queries, gallery, (2, 1), metric),
        naive_per_query(queries, gallery, (2, 1), metric),
    )


@settings(max_examples=25, deadline=None)
@given(images=labelled(), data=st.data())
def test_the_index_finds_what_the_figures_count(images, data):
    metric = data.draw(st.sampled_from(list(METRICS)))
    k = data.draw(st.integers(1, len(images) - 1))
    figures = per_query(images, k=(k,), metric=metric)
    neighbours = (
        make_index("nearest_neighbors", metric).fit(images).search(images.vectors, k, images.ids)
    )
    label_of = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))
    for row in np.flatnonzero(~np.isnan(figures["map"])):  # the others have nothing to find
        hits = sum(label_of[each] == images.labels[row] for each in neighbours.ids[row].tolist())
        assert figures[f"precision@{k}"][row] == hits / k


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1), st.data())
def test_given_rankings_are_scored_by_the_formulas(relevance, data):
    missed = st.integers(0, 4)
    relevant = [sum(row) + data.draw(missed) for row in relevance]
    found = score_rankings(np.array(relevance), np.array(relevant), k=(1, 3, 9))
    pairs = zip(relevance, relevant, strict=True)
    # Past its end a ranking holds nothing relevant.
    assert_same(found, (naive_figures(row + [False] * 9, count, (1, 3, 9)) for row, count in pairs))


def test_average_precision_is_that_of_scikit_learn():
    images = random_embeddings(120)
    found = per_query(images, metric="euclidean")["map"]
    for row in range(0, 120, 10):
        others = np.arange(120) != row
        distances = np.linalg.norm(images.vectors - images.vectors[row], axis=1)[others]
        same = images.labels[others] == images.labels[row]
        assert found[row] == pytest.approx(average_precision_score(same, -distances), abs=1e-12)


def test_recall_at_1_is_the_accuracy_of_the_nearest_neighbour_classifier():
    queries, gallery = random_embeddings(80, seed=1, prefix="q"), random_embeddings(200, seed=2)
    classifier = KNeighborsClassifier(1, algorithm="brute", metric="cosine")
    classifier.fit(gallery.vectors, gallery.labels)
    accuracy = classifier.score(queries.vectors, queries.labels)
    assert evaluate(queries, gallery)["figures"]["recall@1"] == pytest.approx(accuracy)


def test_map_at_k_cannot_exceed_k_by_the_number_of_relevant_items():
    # CIFAR-10 has 5,000 relevant images for a query: even a perfect ranking has MAP@100 .02, the
    # ceiling of the published bag-of-words and VGG-16 results.
    perfect = np.arange(6000)[None] < 5000
    figures = score_rankings(perfect, np.array([5000]), k=(100,))
    assert figures["map@100"] == pytest.approx(0.02)
    assert figures["map"] == pytest.approx(1)


def test_queries_of_several_blocks_score_as_queries_of_one():
    images = random_embeddings(3500)
    together = per_query(images)
    for start in range(0, 3500, 700):
        part = per_query(images.take(slice(start, start + 700)), images)
        for name, values in part.items():
            assert np.array_equal(values, together[name][start : start + 700]), name


def test_a_query_with_nothing_relevant_is_left_out_and_counted():
    images = Embeddings(list("abcde"), [[1, 0], [9, 1], [0, 1], [1, 9], [5, 5]], [0, 0, 1, 1, 2])
    result = evaluate(images, k=(1,), class_names=["cat", "dog", "owl"])
    assert result["queries"] == 4
    assert result["left_out"] == 1
    assert result["gallery"] == 5
    assert result["figures"]["recall@1"] == 1
    assert list(result["per_class"]) == ["cat", "dog"]


def test_no_figure_is_defined_for_some_queries_only():
    """Means of different figures are of the same queries."""
    images = Embeddings(list("abcde"), [[1, 0], [9, 1], [0, 1], [1, 9], [5, 5]], [0, 0, 1, 1, 2])
    undefined = {tuple(np.isnan(values)) for values in per_query(images, k=(1,)).values()}
    assert undefined == {(False, False, False, False, True)}


def test_figures_by_class_average_to_the_figures_over_all():
    result = evaluate(random_embeddings(150), bootstrap=50, class_names=list("abcde"))
    classes = result["per_class"].values()
    assert sum(each["queries"] for each in classes) == result["queries"] == 150
    for name, value in result["figures"].items():
        weighted = sum(each[name] * each["queries"] for each in classes) / 150
        assert weighted == pytest.approx(value)
        low, high = result["intervals"][name]
        assert low <= value <= high


def test_the_result_is_a_json_document():
    result = evaluate(random_embeddings(30), bootstrap=10)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_bootstrap_there_are_no_intervals():
    assert evaluate(random_embeddings(30))["intervals"] == {}


def test_the_interval_of_a_proportion_is_near_the_normal_one():
    outcomes = np.zeros((1000, 1))
    outcomes[:700] = 1
    half_width = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    low, high = bootstrap_intervals(outcomes, 10_000, seed=3)[0]
    assert low == pytest.approx(0.7 - half_width, abs=0.002)
    assert high == pytest.approx(0.7 + half_width, abs=0.002)


def test_intervals_repeat_with_the_seed():
    values = np.random.default_rng(0).random((40, 2))
    assert np.array_equal(bootstrap_intervals(values, 100, 7), bootstrap_intervals(values, 100, 7))
    assert not np.array_equal(
        bootstrap_intervals(values, 100, 7), bootstrap_intervals(values, 100, 8)
    )


EMPTY = Embeddings(np.empty(0, str), np.empty((0, 12)), np.empty(0))
LONELY = Embeddings(["a", "b"], np.eye(2), [0, 1])
UNLABELLED = Embeddings(["a", "b"], np.eye(2), [0, -1])


@pytest.mark.parametrize(
    ("queries", "gallery", "options", "message"),
    [
        (EMPTY, None, {}, "no queries to evaluate"),
        (random_embeddings(3), EMPTY, {}, "the gallery holds nothing to search"),
        (UNLABELLED, None, {"k": (1,)}, "query 'b' has no label"),
        (LONELY, None, {"k": (1,)}, "no query has another image of its class"),
        (LONELY, random_embeddings(12), {}, "dimension is 12"),
        (random_embeddings(10), None, {"k": (1, 10)}, "k=10: the gallery holds only 9"),
        (random_embeddings(3), random_embeddings(10, prefix="g"), {"k": (11,)}, "only 10"),
        (random_embeddings(12), None, {"metric": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_embeddings_that_cannot_be_evaluated_are_a_one_line_error(
    queries, gallery, options, message
):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(queries, gallery, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_the_r_nearest_give_the_figures_of_whole_rankings(metric, monkeypatch):
    random = np.random.default_rng(0)
    for classes in (2, 7, 60):
        labels = random.integers(classes, size=150)
        vectors = random.integers(3, size=(150, 4)).astype(np.float32)  # with many equal distances
        images = Embeddings([f"{each:03d}" for each in random.permutation(150)], vectors, labels)
        whole = evaluate(images, None, k=(1,), metric=metric)["figures"]
        for pairs in (2**23, 700):  # in one block, and in many with an R of their own
            monkeypatch.setattr(metrics, "BLOCK_PAIRS", pairs)
            assert figures_to_r(images, metric) == {
                name: pytest.approx(whole[name], abs=1e-12) for name in ("recall@1", "map_at_r")
            }


def test_the_r_nearest_of_nothing_are_a_one_line_error():
    alone = Embeddings(list("ab"), np.eye(2), [0, 1])
    with pytest.raises(UserError, match="no query has another image of its class"):
        figures_to_r(alone)
    with pytest.raises(UserError, match="has no label"):
        figures_to_r(Embeddings(list("ab"), np.eye(2), [0, -1]))


def test_figures_by_class_take_memory_by_the_queries_not_by_the_classes():
    classes = 20_000
    labels = np.repeat(np.arange(classes), 2)
    values = {"map": np.tile([1.0, 0.5], classes)}
    tracemalloc.start()
    by_class = metrics._classes(labels, [f"class {each}" for each in range(classes)])
    per_class = summarize(values, by_class)["per_class"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6  # a mask for each class would be 800 MB
    assert len(per_class) == classes
    assert per_class["class 777"] == {"queries": 2, "map": 0.75}
