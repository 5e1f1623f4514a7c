from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.server.pipeline.map_layout import EmbeddingMap, Layout
from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker
from cbir_tf.types import Embeddings


def gallery_of(count: int, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(count, 6))
    ids = np.array([f"{number:04d}" for number in range(count)])
    return Embeddings(ids, vectors, np.arange(count) % 3)


def made(embedding_map: EmbeddingMap, gallery: Embeddings) -> tuple[Embeddings, np.ndarray]:
    deadline = time.monotonic() + 120
    while (found := embedding_map.of(lambda: gallery)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_new_images_are_placed_among_their_nearest():
    gallery = gallery_of(50)
    points = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    layout = Layout(gallery, points)
    assert np.allclose(layout.place(gallery.vectors[:5], "euclidean"), points[:5], atol=1e-4)
    query = np.float32([[0.1, -0.2, 0.3, 0.2, 0.0, 0.1]])
    distances = np.linalg.norm(gallery.vectors - query, axis=1)
    nearest = np.argsort(distances)[:5]
    expected = np.average(points[nearest], axis=0, weights=1 / distances[nearest])
    assert np.allclose(layout.place(query, "euclidean")[0], expected, atol=1e-4)


def test_an_image_on_the_map_has_the_label_that_it_has_now(tmp_path):
    gallery = gallery_of(9)
    shown = EmbeddingMap(tmp_path, "pca", 9, 0, "cosine")
    shown.layout = Layout(gallery, np.zeros((9, 2), np.float32))
    labels = np.where(gallery.ids == "0004", 7, gallery.labels)
    now = Embeddings(gallery.ids, gallery.vectors, labels).take(gallery.ids != "0002")
    images, _ = made(shown, now)
    assert images.ids.tolist() == now.ids.tolist() and images.labels.tolist() == now.labels.tolist()


@pytest.mark.slow
def test_a_map_is_made_once_and_kept_for_the_images_that_stay(tmp_path, monkeypatch):
    gallery = gallery_of(60)
    first = EmbeddingMap(tmp_path, "pca", 40, 0, "cosine")
    images, points = made(first, gallery)
    assert len(images) == 40 and points.shape == (40, 2)
    assert np.bincount(images.labels).tolist() == [14, 13, 13]  # the classes take turns
    first.close()

    fewer = gallery.take(gallery.ids != images.ids[7])
    second = EmbeddingMap(tmp_path, "pca", 40, 0, "cosine")
    monkeypatch.setattr(SubprocessWorker, "run", None)  # nothing is laid out again
    again, same = made(second, fewer)
    assert again.ids.tolist() == np.delete(images.ids, 7).tolist()
    assert np.array_equal(same, np.delete(points, 7, axis=0))

    others = gallery_of(60, seed=9)
    third = EmbeddingMap(tmp_path, "pca", 40, 0, "cosine")
    assert third._kept(others, 40) is None
    assert EmbeddingMap(tmp_path, "tsne", 40, 0, "cosine")._kept(gallery, 40) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Path:
    return Path(shutil.copytree(trained_folder, tmp_path_factory.mktemp("mapped") / "run"))


@pytest.mark.slow
def test_the_map_shows_labels_added_images_and_the_query(serving, folder, photos):
    picture = (photos / "blue" / "07.jpg").read_bytes()
    with serving(folder) as client:
        asked = {"files": {"file": picture}, "data": {"position": "true", "k": 3}}
        assert client.post("/search", **asked).json()["position"] is None
        deadline = time.monotonic() + 120
        while not (answer := client.get("/map").json())["ready"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        points = {each["id"]: each for each in answer["points"]}
        assert len(points) == 36 and points["red/01.jpg"]["label"] == "red"
        own = points["blue/07.jpg"]
        position = client.post("/search", **asked).json()["position"]
        assert np.allclose(position, [own["x"], own["y"]], atol=1e-3)

        added = client.post("/images", files={"file": picture + b"\0"}, data={"label": "new"})
        client.delete("/images/red%2F01.jpg")
        points = {each["id"]: each for each in client.get("/map").json()["points"]}
        assert "red/01.jpg" not in points
        placed = points[added.json()["id"]]
        assert placed["label"] == "new"
        assert np.allclose([placed["x"], placed["y"]], [own["x"], own["y"]], atol=1e-3)


@pytest.mark.slow
def test_a_match_is_explained_over_http(serving, folder, photos):
    picture = (photos / "green" / "00.jpg").read_bytes()
    with serving(folder) as client:
        answer = client.post("/explain", files={"file": picture}, data={"match": "green/02.jpg"})
        told = answer.json()
        assert answer.status_code == 200, told
        found = client.post("/search", files={"file": picture}, data={"where": "id=green/02.jpg"})
        (neighbour,) = found.json()["neighbours"]
        assert told["similarity"] == pytest.approx(1 - neighbour["distance"], abs=1e-5)
        for side in (told["query"], told["match"], told["pairs"]):
            assert np.sum(side) == pytest.approx(told["similarity"], abs=1e-6)
        assert told["kind"] == "linear" and told["query_area"] == [0, 0, 1, 1]
        missing = client.post("/explain", json={"id": "green/00.jpg", "match": "none"})
        assert missing.status_code == 404
        assert client.post("/explain", json={"id": "green/00.jpg"}).status_code == 422


def test_an_explanation_that_is_not_possible_is_refused_with_the_reason(
    serving, folder, monkeypatch
):
    from cbir_tf.server.pipeline import service

    monkeypatch.setattr(service, "why_not", lambda config: "for a reason")
    with serving(folder) as client:
        answer = client.post("/explain", json={"id": "green/00.jpg", "match": "green/02.jpg"})
        assert answer.status_code == 409 and "for a reason" in answer.json()["error"]
        assert client.get("/info").json()["explanation"] == "for a reason"
