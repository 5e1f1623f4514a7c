"""Figures of what a search finds: those of distances where that is all it looks at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.config.search import Search
from cbir_tf.evaluation import evaluate, metrics, per_query
from cbir_tf.evaluation.metrics import Ranking
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.search import METRICS
from cbir_tf.search.exhaustive import Exhaustive
from cbir_tf.types import Embeddings, QueryBatch


def ranking_of(gallery: Embeddings, how: Search, depth: int) -> Ranking:
    index = Exhaustive(gallery.take(np.argsort(gallery.ids)), how.metric)
    engine = QueryEngine(Gallery(index, how))
    return lambda queries: engine.rank(QueryBatch(queries.vectors, queries.ids), depth)[0]


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values, equal_nan=True), name


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
@settings(max_examples=25)
@given(images=labelled())
def test_left_out_one_by_one_plain_rankings_have_the_figures_of_distances(metric, images):
    ranking = ranking_of(images, Search(metric=metric), len(images) - 1)
    found = per_query(images, None, (1, 2), metric, ranking=ranking)
    assert_equal(found, per_query(images, None, (1, 2), metric))


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25)
@given(queries=labelled(), gallery=labelled("item", smallest_label=-1), data=st.data())
def test_searched_rankings_agree_with_a_gallery_and_with_several_labels(
    metric, queries, gallery, data
):
    ranking = ranking_of(gallery, Search(metric=metric), len(gallery))
    found = per_query(queries, gallery, (1, 2), metric, ranking=ranking)
    assert_equal(found, per_query(queries, gallery, (1, 2), metric))
    names = st.sets(st.sampled_from("abc"))
    sets = {id_: data.draw(names) for id_ in {*queries.ids.tolist(), *gallery.ids.tolist()}}
    found = per_query(queries, gallery, (1, 2), metric, sets, ranking)
    assert_equal(found, per_query(queries, gallery, (1, 2), metric, sets))


def test_queries_of_several_blocks_score_as_queries_of_one(monkeypatch):
    random = np.random.default_rng(0)
    images = Embeddings(
        [f"{each:03d}" for each in range(60)],
        random.normal(size=(60, 3)),
        random.integers(4, size=60),
    )
    how = Search(re_ranking="k_reciprocal", candidates=20)
    ranking = ranking_of(images, how, 59)
    expected = per_query(images, ranking=ranking)
    monkeypatch.setattr(metrics, "BLOCK_RANKED", 60 * 7)
    assert_equal(per_query(images, ranking=ranking), expected)


def test_items_beyond_the_depth_count_as_not_found():
    """Ranks 1 and 2 of 4: of the two of the query's class, one stands there, at rank 2."""
    gallery = Embeddings(list("abcd"), [[1], [2], [3], [4]], [1, 0, 1, 0])
    query = Embeddings(["q"], [[0]], [0])
    ranking = ranking_of(gallery, Search(metric="euclidean"), 2)
    figures = evaluate(query, gallery, (1, 2), "euclidean", ranking=ranking)["figures"]
    assert figures["recall@1"] == 0 and figures["recall@2"] == 1
    assert figures["map"] == figures["map@2"] == 1 / 2 / 2
    assert figures["r_precision"] == 1 / 2
