"""Arguments of the library: plain forms are accepted, everything else is one UserError."""

from __future__ import annotations

import numpy as np
import pytest

import cbir_tf
from cbir_tf import Embeddings, Gallery, QueryBatch, Run, UserError
from cbir_tf.config.arguments import float_matrix, ranks, real_number, texts, whole_number
from cbir_tf.evaluation import (
    average_precision,
    bootstrap_intervals,
    confusion_matrix,
    evaluate,
    figures_to_r,
    map_at_r,
    ndcg,
    nearest_centroid,
    per_query,
    precision_at_k,
    read_levels,
    recall_at_k,
    score_rankings,
)
from cbir_tf.evaluation.trec import read_trec_run
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.search import load_index, make_index
from cbir_tf.tuning import tune
from cbir_tf.types import Results

IMAGES = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
INDEX = make_index().fit(IMAGES)
ENGINE = QueryEngine(Gallery(INDEX, class_names=("rose", "tulip")))


@pytest.mark.parametrize("value", [5, "5", " 5 ", 5.0, np.int8(5), np.float32(5), np.array(5)])
def test_a_number_in_a_plain_form_is_taken(value):
    assert whole_number(value, "k") == 5 == real_number(value, "k")
    assert INDEX.search([[3, 1]], 2).ids.tolist() == [["b", "a"]]


@pytest.mark.parametrize(
    "value", [2.5, "five", "", "1_000", None, True, np.nan, np.inf, [5], {"k": 5}, 1j, b"5"]
)
def test_no_whole_number_is_refused(value):
    with pytest.raises(UserError, match=r"k=.*whole number"):
        whole_number(value, "k")


def test_texts_are_one_or_several():
    assert texts("red/00.jpg", "ids") == ("red/00.jpg",)
    assert texts(np.array(["a", "b"]), "ids") == texts(iter(["a", "b"]), "ids") == ("a", "b")
    assert texts(None, "ids") == texts([], "ids") == ()
    assert ranks("10") == ranks(10) == ranks([10]) == ranks(np.array([10])) == (10,)


@pytest.mark.parametrize(
    "vectors", [[3, 1], [[3.0, 1.0]], np.float64([3, 1]), np.uint8([[3, 1]]), ((3, 1),)]
)
def test_vectors_in_a_plain_form_are_taken(vectors):
    assert INDEX.search(vectors, "2").ids.tolist() == [["b", "a"]]
    batch = ENGINE.gallery.queries(vectors)
    assert ENGINE.search(batch, 2.0).ids.tolist() == [["b", "a"]]


def test_one_id_needs_no_list():
    assert INDEX.search([1, 0], 1, query_ids="a", where="c").ids.tolist() == [["c"]]
    stored = ENGINE.gallery.stored_queries("a")
    assert ENGINE.search(stored, 1).ids.tolist() == [["b"]]


def test_metrics_take_lists_and_one_query():
    assert recall_at_k([[0, 1], [1, 0]], [2, 2], "1").tolist() == [0.0, 1.0]
    assert map_at_r([1, 0, 1, 0], 2).tolist() == [0.5]
    assert ndcg([[True, False]], [1.0], k=np.int64(2)).tolist() == [1.0]
    assert score_rankings([[True, False, True, False]], [2], 1)["map@1"].tolist() == [0.5]
    assert evaluate(IMAGES, k="1")["figures"] == evaluate(IMAGES, k=[1])["figures"]
    one = evaluate(IMAGES, k=1, label_sets=dict.fromkeys("abcd", "cat"))
    assert list(one["per_class"]) == ["cat"] and one["figures"]["map"] == 1


CALLS = {
    "index": lambda: make_index("fais"),
    "index no name": lambda: make_index(["faiss"]),
    "index option": lambda: make_index("nearest_neighbors", recall=0.9),
    "index option of faiss": lambda: make_index("faiss", recal=0.9),
    "index recall": lambda: make_index("faiss", recall="most"),
    "index recall beyond": lambda: make_index("faiss", recall=2),
    "metric": lambda: make_index(metric=None),
    "metric number": lambda: make_index(metric=2),
    "fit": lambda: make_index().fit(np.eye(2)),
    "load": lambda: load_index(None, IMAGES),
    "search k": lambda: INDEX.search([[1, 0]], "many"),
    "search k true": lambda: INDEX.search([[1, 0]], True),
    "search k half": lambda: INDEX.search([[1, 0]], 1.5),
    "search k none": lambda: INDEX.search([[1, 0]], None),
    "search text": lambda: INDEX.search("a", 1),
    "search ragged": lambda: INDEX.search([[1, 0], [1]], 1),
    "search complex": lambda: INDEX.search([[1j, 0]], 1),
    "search none": lambda: INDEX.search(None, 1),
    "search cube": lambda: INDEX.search(np.ones((1, 1, 2)), 1),
    "search ids": lambda: INDEX.search([[1, 0]], 1, ["a", "b"]),
    "search where": lambda: INDEX.search([[1, 0]], 1, where="label=rose"),
    "engine": lambda: QueryEngine(INDEX),
    "engine batch": lambda: ENGINE.search([[1, 0]], 1),
    "engine k": lambda: ENGINE.search(QueryBatch([[1, 0]]), "x"),
    "gallery vectors": lambda: ENGINE.gallery.queries("a"),
    "gallery ids": lambda: ENGINE.gallery.stored_queries(5),
    "gallery id": lambda: ENGINE.gallery.stored_queries("z"),
    "evaluate": lambda: evaluate(np.eye(3)),
    "evaluate gallery": lambda: evaluate(IMAGES, np.eye(3)),
    "evaluate k": lambda: evaluate(IMAGES, k=0),
    "evaluate k text": lambda: evaluate(IMAGES, k="1,5"),
    "evaluate no k": lambda: evaluate(IMAGES, k=()),
    "evaluate metric": lambda: evaluate(IMAGES, k=1, metric=["cosine"]),
    "evaluate bootstrap": lambda: evaluate(IMAGES, k=1, bootstrap="some"),
    "evaluate bootstrap below": lambda: evaluate(IMAGES, k=1, bootstrap=-5),
    "evaluate seed": lambda: evaluate(IMAGES, k=1, bootstrap=5, seed=None),
    "evaluate names": lambda: evaluate(IMAGES, k=1, class_names=["one"]),
    "evaluate sets": lambda: evaluate(IMAGES, k=1, label_sets=["cat"]),
    "evaluate sets of numbers": lambda: evaluate(IMAGES, k=1, label_sets=dict.fromkeys("abcd", 5)),
    "per query": lambda: per_query([1, 2]),
    "to r": lambda: figures_to_r(None),
    "recall": lambda: recall_at_k([[1, 0], [1]], [1, 1], 1),
    "recall text": lambda: recall_at_k([["yes"]], [1], 1),
    "recall k": lambda: recall_at_k([[1, 0]], [1], "one"),
    "recall k below": lambda: recall_at_k([[1, 0]], [1], 0),
    "precision relevant": lambda: precision_at_k([[1, 0]], [1, 2], 1),
    "map negative": lambda: average_precision([[1, 0]], [-1]),
    "map half": lambda: average_precision([[1, 0]], [0.5]),
    "scores": lambda: score_rankings(np.ones((1, 1, 1)), [1]),
    "confusion": lambda: confusion_matrix(
        Results([["a"]], [[0]]), IMAGES.take(slice(1)), IMAGES, "two"
    ),
    "bootstrap": lambda: bootstrap_intervals(np.ones((3, 1)), "many"),
    "centroids": lambda: nearest_centroid(np.eye(2)),
    "levels": lambda: read_levels(5),
    "trec": lambda: read_trec_run(None),
    "save": lambda: INDEX.save(5),
    "tune": lambda: tune({"data": {"source": "digits"}}, ["loss.margin=0.1..0.5"], trials="few"),
    "calibration": lambda: Calibration.measure(IMAGES, IMAGES, "cosine", "often"),
    "run": lambda: Run.open(None),
    "run number": lambda: Run.open(5),
    "retriever": lambda: cbir_tf.Retriever.open(5),
    "train config": lambda: cbir_tf.train(5),
    "train config none": lambda: cbir_tf.train(None),
    "train sections": lambda: cbir_tf.train({"data": 5}),
    "train overrides": lambda: cbir_tf.train({"data": {"source": "digits"}}, 5),
    "train resume": lambda: cbir_tf.train({"data": {"source": "digits"}}, resume="no", run="r"),
    "train run": lambda: cbir_tf.train({"data": {"source": "digits"}}, run=5),
    "extract": lambda: cbir_tf.extract(None),
    "evaluate run": lambda: cbir_tf.evaluate(None),
}


@pytest.mark.parametrize("name", CALLS)
def test_anything_else_is_one_user_error_of_one_line(name):
    if "faiss" in name or "recall" in name:
        pytest.importorskip("faiss")
    if name == "tune":
        pytest.importorskip("optuna")
    with pytest.raises(UserError) as error:
        CALLS[name]()
    message = str(error.value)
    assert message and "\n" not in message and len(message) < 400


def test_vectors_that_are_no_numbers_are_named():
    for value in ("text", None, [["a"]], [[1], [1, 2]], np.zeros((1, 2, 3)), {"a": 1}, 5):
        with pytest.raises(UserError, match="vectors: should be numbers"):
            float_matrix(value, "vectors")


@pytest.mark.parametrize(
    ("margin", "distance", "words"),
    [("far", "L2", "margin"), (np.nan, "L2", "margin"), (0.2, "L3", "L3"), (0.2, ["L2"], "L2")],
)
def test_a_loss_checks_its_settings(margin, distance, words):
    from cbir_tf.losses import TripletHardLoss, TripletSemiHardLoss

    for kind in (TripletSemiHardLoss, TripletHardLoss):
        with pytest.raises(UserError, match=words):
            kind(margin=margin, distance_metric=distance)
    with pytest.raises(UserError, match="soft"):
        TripletHardLoss(soft="false")
    assert TripletSemiHardLoss(margin="0.5").margin == 0.5


def test_an_embedder_is_built_from_the_keys_of_its_section():
    from cbir_tf.models import build_embedder

    small = {"backbone": "small_cnn", "options": {"width": 4}, "weights": None}
    assert build_embedder(small, image_size=(16, 16)).output_shape == (None, 128)
    for model in (None, "small_cnn", 5, {"backbon": "small_cnn"}):
        with pytest.raises(UserError, match=r"model|backbon"):
            build_embedder(model)
    with pytest.raises(UserError, match="seed"):
        build_embedder(small, seed="x")


def test_what_is_no_callback_is_refused_before_training(tmp_path):
    settings = {"data": {"source": "digits"}, "model": {"backbone": "small_cnn", "weights": None}}
    for callbacks in (5, ["callback"], print):
        with pytest.raises(UserError, match="callbacks"):
            cbir_tf.train(settings, run=tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()
