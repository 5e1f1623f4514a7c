"""Every step of a search, and all of them together, against loops over the whole gallery."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.config.search import Search, TwoStep
from cbir_tf.errors import UserError
from cbir_tf.retrieval import query_engine as engine_module
from cbir_tf.retrieval.class_router import ClassRouter
from cbir_tf.retrieval.classifiers import NearestVote
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.retrieval.re_ranking import k_reciprocal, query_expansion
from cbir_tf.search import METRICS, make_index
from cbir_tf.search import exhaustive as exhaustive_module
from cbir_tf.search.distances import between, find_metric
from cbir_tf.search.exhaustive import Exhaustive
from cbir_tf.types import Embeddings, QueryBatch, Results

CLASSES = ("cat", "dog", "owl", "yak")
LEAST = 1e-6


def embeddings(vectors, labels=None, ids=None) -> Embeddings:
    count = len(vectors)
    ids = [f"{each:03d}" for each in range(count)] if ids is None else ids
    return Embeddings(ids, vectors, np.zeros(count) if labels is None else labels)


TRAINING = embeddings(
    np.random.default_rng(0).normal(size=(40, 2)),
    np.arange(40) % 4,
    [f"training-{each}" for each in range(40)],
)


def router_of(class_of, mode="hard", weight=0.5) -> ClassRouter:
    steps = TwoStep(name="knn", mode=mode, weight=weight)
    return ClassRouter(NearestVote(TRAINING, "cosine"), CLASSES, np.array(class_of), steps)


def engine_of(index, how: Search, router: ClassRouter | None = None) -> QueryEngine:
    if router is None:
        return QueryEngine(Gallery(index, how))
    how = how.model_copy(update={"two_step": router.settings})
    return QueryEngine(Gallery(index, how, CLASSES, routers={router.settings: router}))


def search(engine, vectors, k, query_ids=(), where=None, probabilities=None) -> Results:
    return engine.search(QueryBatch(vectors, query_ids, where, probabilities), k)


def naive_distances(metric: str, query, gallery: Embeddings) -> list[np.float32]:
    arithmetic = find_metric(metric)
    one = arithmetic.prepare(np.float32([query]))
    return [between(arithmetic, one, arithmetic.prepare(each[None]))[0] for each in gallery.vectors]


def naive_search(gallery, how: Search, router, shares, query, k, query_id, where):
    """One query: the docstrings of query_engine and class_router, image by image."""
    rows = [
        row
        for row, id_ in enumerate(gallery.ids.tolist())
        if id_ != query_id and (where is None or id_ in where)
    ]
    id_of = dict(enumerate(gallery.ids.tolist()))
    if how.re_ranking == "query_expansion" and rows:
        distance = naive_distances(how.metric, query, gallery)
        near = sorted(rows, key=lambda row: (distance[row], id_of[row]))[:10]
        query = query_expansion(np.float32([query]), np.array([near]), gallery)[0]
    distance = naive_distances(how.metric, query, gallery)
    tier, factor = dict.fromkeys(rows, 0), dict.fromkeys(rows, 1.0)
    if router is not None:
        by_share = sorted(range(len(CLASSES)), key=lambda each: (-shares[each], each))
        for row in rows:
            own = router.class_of[row]
            if router.settings.mode == "hard":
                tier[row] = by_share.index(own)
            else:
                ratio = max(*shares, LEAST) / max(shares[own], LEAST)
                factor[row] = ratio**router.settings.weight
    # NumPy would round a Python factor to float32 before it multiplies.
    weighed = {row: np.float32(float(distance[row]) * factor[row]) for row in rows}
    found = sorted((tier[row], weighed[row], id_of[row], row) for row in rows)
    if how.re_ranking == "k_reciprocal" and found:
        first = [each for each in found[: how.candidates] if each[0] == found[0][0]]
        moved = k_reciprocal(query, gallery.take([row for *_, row in first]), how.metric)
        factor_of = {id_: factor[row] for *_, id_, row in first}
        again = [
            (-1, np.float32(float(final) * factor_of[id_]), id_, 0)
            for id_, final in zip(moved.ids[0].tolist(), moved.distances[0], strict=True)
        ]
        found = sorted(again) + found[len(first) :]
    distances, base = [], 0.0
    for place, (step, value, *_) in enumerate(found):
        farther = place and (step, value) > found[place - 1][:2]
        if place and step != found[place - 1][0]:
            base += 1 + float(found[place - 1][1])
        least = distances[-1] if distances else np.float32(0)
        least = np.nextafter(least, np.float32(math.inf)) if farther else least
        distances.append(max(np.float32(base + float(value)), least))
    missing = max(0, k - len(found))
    ids = [id_ for _, _, id_, _ in found[:k]]
    return ids + [""] * missing, distances[:k] + [math.inf] * missing


@st.composite
def cases(draw):
    """Small whole numbers, so that ties, duplicates and zero vectors are the rule."""
    row = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    vectors = draw(st.lists(row, min_size=2, max_size=30))
    count = len(vectors)
    class_of = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    mode = draw(st.sampled_from(["none", "hard", "soft"]))
    weight = draw(st.sampled_from([0.0, 0.5, 3.0]))
    numbers = draw(st.lists(st.integers(0, 999), min_size=count, max_size=count, unique=True))
    how = Search(
        metric=draw(st.sampled_from(list(METRICS))),
        re_ranking=draw(st.sampled_from(["none", "query_expansion", "k_reciprocal"])),
        candidates=draw(st.integers(2, 40)),
    )
    gallery = embeddings(vectors, ids=sorted(f"image-{each}" for each in numbers))
    router = None if mode == "none" else router_of(class_of, mode, weight)
    return gallery, how, router


@settings(max_examples=200)
@given(case=cases(), data=st.data())
def test_the_steps_together_are_those_of_loops_over_the_gallery(case, data):
    gallery, how, router = case
    k = data.draw(st.integers(1, len(gallery) - 1))
    where = data.draw(st.none() | st.lists(st.sampled_from(gallery.ids.tolist()), unique=True))
    share = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)
    shares = np.array(data.draw(st.lists(share, min_size=len(gallery), max_size=len(gallery))))
    shares = shares / shares.sum(axis=1, keepdims=True)
    finders = [make_index(metric=how.metric).fit(gallery), Exhaustive(gallery, how.metric)]
    engine = engine_of(data.draw(st.sampled_from(finders)), how, router)
    found = search(engine, gallery.vectors, k, gallery.ids, where, shares)
    for row, query in enumerate(gallery.vectors):
        ids, distances = naive_search(
            gallery, how, router, shares[row].tolist(), query, k, gallery.ids[row], where
        )
        assert found.ids[row].tolist() == ids
        np.testing.assert_allclose(found.distances[row], distances, rtol=1e-6)


@given(case=cases(), data=st.data())
def test_fewer_neighbours_are_the_beginning_of_more_and_a_query_alone_finds_the_same(case, data):
    gallery, how, router = case
    k = data.draw(st.integers(1, len(gallery)))
    engine = engine_of(make_index(metric=how.metric).fit(gallery), how, router)
    everything = search(engine, gallery.vectors, len(gallery))
    some = search(engine, gallery.vectors, k)
    assert np.array_equal(some.ids, everything.ids[:, :k])
    assert np.array_equal(some.distances, everything.distances[:, :k])
    alone = search(engine, gallery.vectors[-1:], k)
    assert np.array_equal(alone.ids[0], some.ids[-1])


def test_neighbours_behind_a_large_distance_stay_in_order():
    """Candidates at 1e11 come before images at 3000 and 4000, which float32 cannot add to that."""
    gallery = embeddings(np.array([[1, 0], [2, 0], [4, 0], [3, 0]]) * 1e-9)
    router = router_of([0, 0, 0, 0], "soft", 2.0)
    how = Search(metric="euclidean", re_ranking="k_reciprocal", candidates=2)
    engine = engine_of(Exhaustive(gallery, "euclidean"), how, router)
    shares = np.array([[0, 1.0, 0, 0]])
    one, two, three, four = (
        search(engine, np.zeros((1, 2)), k, probabilities=shares) for k in (1, 2, 3, 4)
    )
    assert four.ids.tolist() == [["000", "001", "003", "002"]]
    assert four.distances[0, 1] > 1e10
    assert np.all(np.diff(four.distances) > 0)
    for k, fewer in enumerate((one, two, three), start=1):
        assert np.array_equal(fewer.ids, four.ids[:, :k])
        assert np.array_equal(fewer.distances, four.distances[:, :k])


def test_queries_of_several_blocks_find_what_queries_of_one_do(monkeypatch):
    random = np.random.default_rng(0)
    gallery = embeddings(random.normal(size=(90, 3)))
    router = router_of(random.integers(4, size=90), "soft")
    how = Search(re_ranking="k_reciprocal", candidates=30)
    engines = [
        engine_of(finder, how, router)
        for finder in (make_index(metric="cosine").fit(gallery), Exhaustive(gallery, "cosine"))
    ]
    shares = random.dirichlet([1, 1, 1, 1], size=90)
    expected = search(engines[0], gallery.vectors, 40, gallery.ids, None, shares)
    monkeypatch.setattr(engine_module, "BLOCK_CANDIDATES", 500)
    monkeypatch.setattr(exhaustive_module, "BLOCK_PAIRS", 500)
    for engine in engines:
        found = search(engine, gallery.vectors, 40, gallery.ids, None, shares)
        assert np.array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": np.ones((1, 3)), "k": 1}, "dimension is 2"),
        ({"vectors": np.full((1, 2), np.nan), "k": 1}, "not finite"),
        ({"vectors": np.ones((1, 2)), "k": 6}, "holds only 5"),
        ({"vectors": np.ones((1, 2)), "k": 5, "query_ids": ["003"]}, "holds only 4"),
        ({"vectors": np.ones((1, 2)), "k": 0}, "at least 1"),
        ({"vectors": np.ones((1, 2)), "k": 1, "where": ["000", "nowhere"]}, "'nowhere' is not in"),
    ],
)
@pytest.mark.parametrize("re_ranking", ["none", "query_expansion", "k_reciprocal"])
def test_what_an_index_refuses_every_search_does(arguments, message, re_ranking):
    gallery = embeddings(np.eye(5, 2))
    how = Search(re_ranking=re_ranking)
    engine = engine_of(make_index(metric="cosine").fit(gallery), how)
    with pytest.raises(UserError, match=message):
        search(engine, **arguments)
