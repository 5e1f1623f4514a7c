"""Searches over HTTP find what the retriever finds."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main
from cbir_tf.config import Config
from cbir_tf.retrieval import gallery
from cbir_tf.server.http.app import make_app
from cbir_tf.server.pipeline.service import Service


@pytest.fixture(scope="module")
def picture(photos: Path) -> Path:
    return photos / "green" / "03.jpg"


def found(answer: dict) -> list[tuple[str, float]]:
    return [(each["id"], each["distance"]) for each in answer["neighbours"]]


def expected(neighbours) -> list[tuple[str, float]]:
    ids, distances = neighbours.ids[0].tolist(), neighbours.distances[0].tolist()
    return [(id_, round(distance, 6)) for id_, distance in zip(ids, distances, strict=True) if id_]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"k": 7},
        {"k": 20, "where": ["label=green,blue", "split!=test"]},
        {"k": 6, "re_ranking": "k_reciprocal"},
        {"k": 6, "re_ranking": "query_expansion"},
        {"k": 30, "two_step": "knn"},
        {"k": 3, "two_step": "svm", "where": "label!=green"},
    ],
)
@pytest.mark.parametrize("way", ["file", "json", "id"])
def test_a_search_finds_what_the_retriever_finds(client, served_folder, picture, asked, way):
    run = Run.open(served_folder)
    where = [asked["where"]] if isinstance(asked.get("where"), str) else asked.get("where", ())
    settings = run.config.search.changed(asked.get("re_ranking"), asked.get("two_step"))
    retriever = Retriever(run, settings)
    query = "green/03.jpg" if way == "id" else picture.read_bytes()
    right = retriever.search(query, asked.get("k"), where)

    if way == "file":
        answer = client.post("/search", files={"file": picture.read_bytes()}, data=asked)
    elif way == "json":
        text = base64.b64encode(picture.read_bytes()).decode()
        answer = client.post("/search", json={"base64image": text, **asked})
    else:
        answer = client.post("/search", json={"id": "green/03.jpg", **asked})
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert [each for each, _ in found(got)] == [each for each, _ in expected(right)]
    # A batch of one and the retriever's encode alike, up to float32.
    distances = [[each for _, each in pairs] for pairs in (found(got), expected(right))]
    assert np.allclose(*distances, atol=2e-6)
    labels = [each["label"] for each in got["neighbours"]]
    assert labels == [retriever.label(each["id"]) for each in got["neighbours"]]
    assert [each["rank"] for each in got["neighbours"]] == list(range(1, len(labels) + 1))
    if right.prediction is None:
        assert got["prediction"] is None
    else:
        assert got["prediction"]["name"] == right.prediction[0].name
        assert got["prediction"]["probability"] == pytest.approx(right.prediction[0].probability)
    assert set(got["timings"]) == {"read", "wait", "encode", "search", "total"}
    retriever.close()


def test_many_at_a_time_are_answered_as_one_by_one(client, photos):
    pictures = [each.read_bytes() for each in sorted(photos.glob("*/*.jpg"))]

    def ask(number: int) -> tuple[list, list]:
        asked = {"k": 1 + number % 3, "where": "label=red,blue" if number % 2 else "label!=x"}
        asked["where"] = asked["where"].replace("label!=x", "split!=x")
        answer = client.post("/search", files={"file": pictures[number]}, data=asked).json()
        return found(answer), [each["label"] for each in answer["neighbours"]]

    alone = [ask(number) for number in range(len(pictures))]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, range(len(pictures))))
    for one, other in zip(alone, together, strict=True):
        assert [each for each, _ in one[0]] == [each for each, _ in other[0]]
        assert np.allclose([each for _, each in one[0]], [each for _, each in other[0]], atol=2e-6)
        assert one[1] == other[1]


def test_the_answers_addresses_lead_to_the_pictures(client, photos):
    answer = client.post("/search", json={"id": "red/00.jpg", "k": 4}).json()
    assert "red/00.jpg" not in [each["id"] for each in answer["neighbours"]]
    for each in answer["neighbours"]:
        picture = client.get(each["image"])
        assert picture.content == (photos / each["id"]).read_bytes()
        assert picture.headers["content-type"] == "image/jpeg"
        small = client.get(each["thumbnail"])
        assert Image.open(io.BytesIO(small.content)).size == (64, 48)  # never enlarged


def test_a_calibrated_run_reports_match_or_no_match(serving, served_folder, tmp_path):
    folder = Path(shutil.copytree(served_folder, tmp_path / "run"))
    assert main(["calibrate", "--run", str(folder), "--false-match-rate", "0.3"]) == 0
    threshold = json.loads((folder / "no_match.json").read_text())["threshold"]
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8))
    strange = io.BytesIO()
    noise.save(strange, "PNG")
    with serving(folder) as client:
        assert client.get("/info").json()["calibrated"]
        same = client.post("/search", json={"id": "red/00.jpg"}).json()
        other = client.post("/search", files={"file": strange.getvalue()}).json()
        ranked = client.post("/search", json={"id": "red/00.jpg", "two_step": "knn"}).json()
    for answer in (same, other):
        nearest = answer["neighbours"][0]["distance"]
        assert answer["match"]["found"] == (nearest < threshold)
        assert answer["match"]["threshold"] == threshold
        assert 0 < answer["match"]["false_match_rate"] <= 1
    assert ranked["match"] is None and ranked["search"] == "two-step knn hard"


def test_an_empty_gallery_is_served_and_fills(serving, served_folder, tmp_path, picture):
    folder = Path(shutil.copytree(served_folder, tmp_path / "run"))
    for each in folder.glob("features.db*"):
        each.unlink()
    shutil.rmtree(folder / "index")
    with serving(folder) as client:
        assert client.get("/info").json()["images"] == 0
        assert client.get("/gallery/random").json() == {"images": []}
        empty = client.post("/search", files={"file": picture.read_bytes()})
        assert empty.status_code == 409 and "empty" in empty.json()["error"]
        assert client.get("/map").status_code == 200
        added = client.post("/images", files={"file": picture.read_bytes()}, data={"label": "red"})
        assert added.status_code == 201
        answer = client.post("/search", files={"file": picture.read_bytes()}).json()
        assert found(answer) == [(added.json()["id"], 0.0)]
        alone = client.post("/search", json={"id": added.json()["id"]})
        assert alone.status_code == 422 and "nothing to search" in alone.json()["error"]
        assert client.delete(added.json()["image"]).json()["images"] == 0
        assert client.post("/search", files={"file": picture.read_bytes()}).status_code == 409


def test_info_describes_run_and_gallery(client):
    info = client.get("/info").json()
    assert (info["images"], info["dimension"], info["metric"]) == (36, 8, "cosine")
    assert info["labels"] == [
        {"name": each, "number": number, "images": 12}
        for number, each in enumerate(("blue", "green", "red"))
    ]
    assert info["splits"] == ["test", "train", "validation"]
    drawn = client.get("/gallery/random", params={"count": 200}).json()["images"]
    assert len({each["id"] for each in drawn}) == 36
    assert all(each["id"].startswith(each["label"]) for each in drawn)


def test_a_batch_is_encoded_while_the_one_before_is_searched(served_folder, picture):
    run = Run.open(served_folder)
    service = Service(run, Config.load(run.config_file, ["server.rate=0"]))
    with TestClient(make_app(service), base_url="http://localhost") as client:
        gallery = service.gallery
        find, encode = gallery.find, gallery.encode
        searching, encoding = threading.Event(), threading.Event()
        waited: list[bool] = []

        def slowly(asked):
            if not waited:
                searching.set()
                waited.append(encoding.wait(10))
            return find(asked)

        def noticed(pixels):
            if searching.is_set():
                encoding.set()
            return encode(pixels)

        gallery.find, gallery.encode = slowly, noticed

        def ask() -> int:
            return client.post("/search", files={"file": picture.read_bytes()}).status_code

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask)
            assert searching.wait(10)
            assert [pool.submit(ask).result(), first.result()] == [200, 200]
        assert waited == [True]


@pytest.mark.parametrize("step", ["encode", "find"])
def test_a_batch_that_fails_is_a_500_and_the_next_is_answered(served_folder, picture, step):
    run = Run.open(served_folder)
    service = Service(run, Config.load(run.config_file, ["server.rate=0"]))
    with TestClient(make_app(service), base_url="http://localhost") as client:

        def ask() -> int:
            return client.post("/search", files={"file": picture.read_bytes()}).status_code

        def failing(_):
            raise RuntimeError("out of order")

        working = getattr(service.gallery, step)
        setattr(service.gallery, step, failing)
        assert ask() == 500
        setattr(service.gallery, step, working)
        assert ask() == 200


def test_what_fails_elsewhere_is_a_500_in_json_too(served_folder, monkeypatch):
    run = Run.open(served_folder)
    service = Service(run, Config.load(run.config_file))
    monkeypatch.setattr(service.gallery, "remove", lambda _: 1 / 0)
    app = make_app(service)
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        answer = client.delete("/images/red%2F00.jpg")
    assert answer.status_code == 500 and "failed" in answer.json()["error"]
    assert "x-request-id" in answer.headers


def test_classes_from_another_run_are_those_of_the_retriever(
    serving, served_folder, run_folder, picture
):
    two_step = f"search.two_step={{name: knn, run: {served_folder}}}"
    run = Run.open(run_folder)
    with Retriever(run, Config.load(run.config_file, [two_step]).search) as retriever:
        right = retriever.search(picture.read_bytes(), 30)
    with serving(run_folder, two_step) as client:
        client.app.state.service.warm_up()
        for _ in range(2):
            answer = client.post("/search", files={"file": picture.read_bytes()}, data={"k": 30})
            assert found(answer.json()) == expected(right)
            assert answer.json()["prediction"]["name"] == right.prediction[0].name
        assert client.post("/search", json={"id": "red/00.jpg"}).status_code == 200


def test_a_classifier_is_fitted_beside_the_searches(serving, run_folder, monkeypatch):
    begun, gate = threading.Event(), threading.Event()
    fit = gallery.fit_classifier

    def slowly(*arguments):
        begun.set()
        assert gate.wait(30)
        return fit(*arguments)

    with serving(run_folder) as client, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(gallery, "fit_classifier", slowly)
        asked = {"id": "red/00.jpg", "two_step": "svm"}
        slow = [pool.submit(client.post, "/search", json=asked) for _ in range(2)]
        assert begun.wait(30)
        for steps in ({}, {"where": "label=green"}, {"re_ranking": "k_reciprocal"}):
            assert client.post("/search", json={"id": "red/00.jpg", **steps}).status_code == 200
        # Adding an image meanwhile does not make it start again.
        content = io.BytesIO()
        Image.new("RGB", (40, 30), "gray").save(content, "PNG")
        assert client.post("/images", files={"file": content.getvalue()}).status_code == 201
        begun.clear()
        gate.set()
        assert [each.result().status_code for each in slow] == [200, 200]
        assert not begun.is_set()
        assert client.post("/search", json=asked).status_code == 200 and not begun.is_set()


def test_a_store_that_another_process_locks_holds_up_no_search(serving, run_folder):
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "gray").save(content, "PNG")
    with serving(run_folder) as client, ThreadPoolExecutor(1) as pool:
        store = sqlite3.connect(run_folder / "features.db", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")
        adding = pool.submit(client.post, "/images", files={"file": content.getvalue()})
        time.sleep(1)
        for asked in ({"id": "red/00.jpg"}, {"id": "red/00.jpg", "where": "label=green"}):
            assert client.post("/search", json=asked).status_code == 200
        assert not adding.done()
        store.execute("ROLLBACK")
        assert adding.result().status_code == 201


def test_after_warming_up_nothing_has_to_be_started(serving, run_folder, picture):
    with serving(run_folder) as client:
        service = client.app.state.service
        service.warm_up()
        started = [worker._started for worker in service.decoders._workers]
        assert None not in started
        assert client.post("/search", files={"file": picture.read_bytes()}).status_code == 200
        assert [worker._started for worker in service.decoders._workers] == started


@pytest.mark.parametrize("address", ["/search", "/explain"])
def test_what_nobody_waits_for_is_given_up(serving, run_folder, address):
    """The client's connection closes while its request waits for the one before it."""
    sent: list[dict] = []
    gone = asyncio.Event()
    body = json.dumps({"id": "red/00.jpg", "match": "red/01.jpg"} if address == "/explain"
                      else {"id": "red/00.jpg"}).encode()  # fmt: skip

    messages = [{"type": "http.request", "body": body}]

    async def receive():
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    begun, was_cancelled = asyncio.Event(), asyncio.Event()

    async def forever(*_):
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    async def ask(app):
        app.state.service.search = app.state.service.explain = forever
        scope = {"type": "http", "method": "POST", "path": address, "raw_path": address.encode(),
                 "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
                 "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
                 "client": ("127.0.0.1", 1), "server": ("localhost", 80)}  # fmt: skip
        answered = asyncio.create_task(app(scope, receive, send))
        await begun.wait()
        gone.set()
        await asyncio.wait_for(answered, 10)

    with serving(run_folder) as client:
        client.portal.call(ask, client.app)
        assert was_cancelled.is_set() and sent[0]["status"] == 499
