"""Retriever, evaluation and the running service give the same neighbours, whatever the settings."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from cbir_tf import Retriever, Run
from cbir_tf.retrieval.run_evaluation import EvaluationTask

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from cbir_tf.config import Config
from cbir_tf.server.http.app import make_app
from cbir_tf.server.pipeline.service import Service

K = 4
STORED = "green/03.jpg"

pytestmark = pytest.mark.slow

GALLERIES = [
    pytest.param({"index": index, "metric": metric, **more}, id=f"{index}-{metric}-{name}")
    for (index, metric), (name, more) in itertools.chain(
        itertools.product(
            [("nearest_neighbors", "cosine"), ("faiss", "euclidean"), ("annoy", "cosine")],
            [("plain", {}), ("whitened", {"pca": 4, "whiten": 0.5})],
        ),
        [
            (("nearest_neighbors", "minkowski-3"), ("plain", {})),
            (("nearest_neighbors", "cosine"), ("augmented", {"database_augmentation": 3})),
            (
                ("faiss", "cosine"),
                ("whitened-augmented", {"pca": 5, "database_augmentation": 2}),
            ),
            (
                ("nearest_neighbors", "euclidean"),
                ("soft", {"two_step": {"name": "knn", "mode": "soft"}}),
            ),
        ],
    )
]
STEPS = [
    {},
    {"re_ranking": "query_expansion"},
    {"re_ranking": "k_reciprocal"},
    {"two_step": "knn"},
    {"two_step": "svm", "re_ranking": "k_reciprocal"},
]
FILTERS: list[list[str]] = [[], ["split=test"], ["label!=red", "split=test"]]


def configured(folder: Path, search: dict) -> Run:
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["search"] = {**values["search"], "index": "nearest_neighbors", **search}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return Run.open(folder)


def rows(results) -> list[list[tuple[str, float]]]:
    return [
        [(hit.id, round(hit.distance, 6)) for hit in results.hits(row)]
        for row in range(len(results))
    ]


@pytest.mark.parametrize("gallery", GALLERIES)
def test_every_way_to_search_finds_the_same(run_folder, photos, gallery):
    if gallery["index"] == "annoy":
        pytest.importorskip("annoy")
    if gallery["index"] == "faiss":
        pytest.importorskip("faiss")
    run = configured(run_folder, gallery)
    foreign = (photos / "blue" / "05.jpg").read_bytes()
    config = Config.load(run.config_file, ["server.rate=0"])
    with TestClient(make_app(Service(run, config)), base_url="http://localhost") as client:
        for steps, where in itertools.product(STEPS, FILTERS):
            settings = run.config.search.changed(steps.get("re_ranking"), steps.get("two_step"))
            with Retriever(run, settings) as retriever:
                together = rows(retriever.search([STORED, foreign], K, where))
                alone = [rows(retriever.search(each, K, where))[0] for each in (STORED, foreign)]
            assert together == alone, (steps, where)
            asked = {"k": K, "where": where, **steps}
            by_id = client.post("/search", json={"id": STORED, **asked})
            by_picture = client.post("/search", files={"file": foreign}, data=asked)
            for answer, ours in ((by_id, together[0]), (by_picture, together[1])):
                assert answer.status_code == 200, answer.text
                theirs = [(each["id"], each["distance"]) for each in answer.json()["neighbours"]]
                assert theirs == ours, (steps, where)


@pytest.mark.parametrize("gallery", GALLERIES)
@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_evaluation_ranks_as_a_search_of_that_split_does(run_folder, gallery, steps):
    """With database augmentation the gallery of a split is augmented by itself: not the same."""
    if "database_augmentation" in gallery:
        pytest.skip("the gallery of one split is another gallery")
    if gallery["index"] == "annoy":
        pytest.importorskip("annoy")
    run = configured(run_folder, {**gallery, **steps})
    task = EvaluationTask.open(run, "test", None)
    with task.retriever as retriever:
        ids = task.queries.ids.tolist()
        evaluated = task.neighbours(K)
        searched = retriever.search(ids, K, ["split=test"])
        assert evaluated.ids.tolist() == searched.ids.tolist()
        np.testing.assert_allclose(evaluated.distances, searched.distances, atol=1e-6)
        ranked = task.ranking(task.queries)[:, :K]
        assert task.searched.ids[ranked].tolist() == evaluated.ids.tolist()


def test_eight_threads_of_one_retriever_agree_with_one(run_folder):
    run = configured(run_folder, {"two_step": {"name": "knn", "mode": "soft"}})
    with Retriever(run) as retriever:
        ids = retriever.embeddings.ids.tolist()
        expected = {id_: rows(retriever.search(id_, K, ["split!=train"])) for id_ in ids}

        def search(number: int) -> bool:
            id_ = ids[number % len(ids)]
            found = retriever.search(id_, K, ["split!=train"])
            hit = found.hits()[0]
            return rows(found) == expected[id_] and hit.path is not None

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(search, range(8 * 50)))


def test_a_snapshot_is_unchanged_when_images_are_added_and_removed(run_folder):
    with Retriever(Run.open(run_folder)) as retriever:
        before, ids = retriever.engine(), retriever.embeddings.ids
        batch = retriever.gallery.stored_queries(ids[:3])
        expected = before.search(batch, K)
        removed = expected.ids[0, 0]
        record = retriever.record(str(removed))
        vector = retriever.embeddings.vectors[ids == removed]
        retriever.remove([str(removed)])
        assert removed not in retriever.gallery and len(retriever.gallery) == len(ids) - 1
        assert removed not in retriever.search(str(ids[0]), K).ids
        assert before.search(batch, K).ids.tolist() == expected.ids.tolist()
        retriever.add([record], vector, retriever.class_names)
        assert retriever.search(ids[:3].tolist(), K).ids.tolist() == expected.ids.tolist()
