"""What is sent to the service cannot hurt it, nor those who search."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
import struct
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.http import access
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.request_log import RequestLog
from cbir_tf.server.pipeline.service import Service
from cbir_tf.server.prometheus_metrics import Metrics

JSON = {"content-type": "application/json"}
HOST = {"host": "localhost"}


def png(width: int, height: int, rows_there: int | None = None) -> bytes:
    """A PNG of one colour, compressed to next to nothing; or only its first rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows, count = zlib.compressobj(9), height if rows_there is None else rows_there
    packed = b"".join(rows.compress(b"\0" * (width + 1)) for _ in range(count)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    content = io.BytesIO()
    frames[0].save(content, kind, save_all=True, append_images=frames[1:], duration=1, loop=0)
    return content.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("picture", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"not a picture", 422, "not a JPEG"),
        (SVG, 422, "not a JPEG"),
        (b"\xff\xd8\xff" + b"\0" * 100, 422, "damaged or cut short"),
        (png(300, 200)[:60], 422, "damaged or cut short"),
        (png(8000, 8000), 413, "more than 50 megapixels"),
        (png(60_000, 60_000, 1), 413, "50 megapixels"),
        (b"\0" * 17_000_000, 413, "more than 16 MB"),
    ],
)
@pytest.mark.parametrize("address", ["/search", "/images", "/explain"])
def test_a_body_that_is_not_an_image_is_refused_with_a_reason(
    client, address, picture, status, words
):
    about = {"match": "red/00.jpg"} if address == "/explain" else {}
    answer = client.post(address, files={"file": ("a.jpg", picture)}, data=about)
    assert answer.status_code == status and words in answer.json()["error"]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_searched_for(client, kind):
    still = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(still, "PNG")
    moving, standing = (
        client.post("/search", files={"file": each}).json()["neighbours"]
        for each in (animated(kind), still.getvalue())
    )
    assert [each["id"] for each in moving] == [each["id"] for each in standing]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "not JSON"),
        ("[1]", 400, "not a JSON object"),
        ("[" * 100_000, 400, "not JSON"),
        ('{"id": "red/00.jpg", "k": 0}', 422, "k: "),
        ('{"id": "red/00.jpg", "k": NaN}', 422, "k: "),
        ('{"id": "red/00.jpg", "k": 36}', 422, "only 35 to find"),
        ('{"id": "red/00.jpg", "k": 1001}', 422, "at most 1000"),
        ('{"id": "red/99.jpg"}', 404, "no image of that id"),
        ('{"id": "\\ud800"}', 422, "id: "),
        ('{"id": "red/00.jpg", "base64image": "aaaa"}', 422, "base64image and id"),
        ("{}", 422, "none of them"),
        ('{"base64image": "%%%"}', 422, "not base64"),
        ('{"file": "x"}', 422, "base64image"),
        ('{"id": "red/00.jpg", "kk": 5}', 422, "did you mean 'k'?"),
        ('{"id": "red/00.jpg", "where": "label=gren"}', 422, "did you mean 'green'?"),
        ('{"id": "red/00.jpg", "where": "label"}', 422, "not a comparison"),
        ('{"id": "red/00.jpg", "where": "split=nowhere"}', 422, "no image meets"),
        ('{"id": "red/00.jpg", "re_ranking": "best"}', 422, "one of: none, query_expansion"),
    ],
)
def test_an_impossible_search_is_refused_in_words(client, served_folder, body, status, words):
    answer = client.post("/search", content=body, headers=JSON)
    assert answer.status_code == status and words in answer.json()["error"], answer.text
    assert str(served_folder) not in answer.text and "--" not in answer.json()["error"]


def test_other_bodies_are_refused(client):
    assert client.post("/search", content=b"x").status_code == 415
    form = {"content-type": "multipart/form-data"}
    assert client.post("/search", content=b"x", headers=form).status_code == 400
    form = {"content-type": "multipart/form-data; boundary=b"}
    for body in (
        b"",
        b"x",
        b"--b\r\n",
        b"--b\r\nContent-Disposition: form-data; name=k\r\n\r\n5",
        b"--b\r\nContent-Disposition: form-data; name=k" + b"k" * 9000 + b"\r\n\r\n5\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data\r\n\r\n5\r\n--b--\r\n",
        b"--b\r\n" + b"x: y\r\n" * 50 + b"\r\n5\r\n--b--\r\n",
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n5\r\n' for _ in range(101)
        )
        + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="label"\r\n\r\n'
        + b"5" * 2_000_000
        + b"\r\n--b--\r\n",
    ):
        answer = client.post("/search", content=body, headers=form)
        assert answer.status_code == 400 and "not a form" in answer.json()["error"], body[:80]


def test_a_form_has_one_picture_which_is_a_file(client, photos):
    picture = (photos / "red" / "00.jpg").read_bytes()
    twice = [("file", ("a.jpg", picture)), ("file", ("b.jpg", picture))]
    assert client.post("/search", files=twice).status_code == 400
    as_text = client.post("/search", files={"file": (None, "text")})
    assert as_text.status_code == 422 and "file name" in as_text.json()["error"]
    elsewhere = client.post("/search", files={"fil": ("a.jpg", picture)})
    assert elsewhere.status_code == 422 and "'file'" in elsewhere.json()["error"]


def test_no_part_of_a_form_reaches_the_disk(client, monkeypatch):
    def rolled(_):
        raise AssertionError("a part was written to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    large = png(1000, 1000) + b"\0" * 3_000_000
    answer = client.post("/search", files={"file": ("a.png", large)})
    assert answer.status_code == 200, answer.text


def test_a_body_of_unknown_length_is_bounded_too(serving, served_folder):
    def chunks():
        for _ in range(40):
            yield b"\0" * 100_000

    with serving(served_folder, "server.max_request_megabytes=2") as client:
        form = {"content-type": "multipart/form-data; boundary=b"}
        for headers in (JSON, form):
            start = (
                []
                if headers is JSON
                else [b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n']
            )
            answer = client.post(
                "/search", content=itertools.chain(start, chunks()), headers=headers
            )
            assert answer.status_code == 413 and "2 MB" in answer.json()["error"]


def test_a_client_that_sends_too_slowly_gets_a_timeout(serving, served_folder):
    body = b'{"id": "red/00.jpg"}'
    with serving(served_folder, "server.request_timeout=0.2") as client:
        sent = []

        async def receive():
            await asyncio.sleep(0.15)
            return {"type": "http.request", "body": body[:1], "more_body": True}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/search", "raw_path": b"/search",
                 "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
                 "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
                 "client": ("127.0.0.1", 1), "server": ("localhost", 80)}  # fmt: skip
        client.portal.call(client.app, scope, receive, send)
    assert sent[0]["status"] == 408 and b"0.2 s" in sent[1]["body"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM",
                           b"RIFF\x10\0\0\0WEBPVP8 "]),
    address=st.sampled_from(["/search", "/images", "/explain"]),
)  # fmt: skip
def test_no_bytes_make_the_service_fail(client, content, start, address):
    about = {"match": "red/00.jpg"} if address == "/explain" else {}
    answer = client.post(address, files={"file": start + content}, data=about)
    assert answer.status_code in (413, 422) and answer.json()["error"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_picture_makes_the_service_fail(client, photos, data):
    picture = bytearray((photos / "red" / "00.jpg").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    del picture[data.draw(st.integers(20, len(picture))) :]
    answer = client.post("/search", files={"file": bytes(picture)})
    assert answer.status_code in (200, 413, 422)


@pytest.mark.parametrize(
    "id_",
    ["../config.yaml", "..%2Fconfig.yaml", "%2Fetc%2Fpasswd", "%2e%2e%2fconfig.yaml", "config.yaml",
     "added%2F..%2Fconfig.yaml", "red%2F00.jpg%00", "http:%2F%2Flocalhost%2F"],
)  # fmt: skip
def test_no_path_of_a_request_reaches_the_disk(client, id_):
    for address in (f"/images/{id_}", f"/thumbnails/{id_}", f"/{id_}", f"/page/{id_}"):
        answer = client.get(address)
        assert answer.status_code == 404 and "data:" not in answer.text
    assert client.delete(f"/images/{id_}").status_code in (404, 405)


def test_only_names_of_this_service_lead_to_it(serving, served_folder):
    with serving(served_folder, "server.hosts=[search.example.org]") as client:
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "search.example.org"):
            assert client.get("/info", headers={"host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1@evil.example", "::1"):
            answer = client.get("/info", headers={"host": host})
            assert answer.status_code == 400 and "host" in answer.text
    with serving(served_folder, 'server.hosts=["*.example.org"]') as client:
        assert client.get("/info", headers={"host": "a.example.org"}).status_code == 200
        assert client.get("/info", headers={"host": "example.com"}).status_code == 400
    with serving(served_folder, 'server.hosts=["*"]') as client:
        assert client.get("/info", headers={"host": "anything.example"}).status_code == 200


def test_pages_of_other_origins_change_and_search_nothing(client):
    asked = {"id": "red/00.jpg"}
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert client.post("/search", json=asked, headers=headers).status_code == 403
        assert client.delete("/images/red%2F00.jpg", headers=headers).status_code == 403
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert client.post("/search", json=asked, headers=own).status_code == 200


def test_all_but_the_page_and_health_need_the_key(serving, served_folder, monkeypatch):
    monkeypatch.setattr(access, "FIRST_WAIT", 0)
    with serving(served_folder, key="a secret") as client:
        for address in ("/", "/docs", "/redoc", "/openapi.json", "/health", "/ready"):
            assert client.get(address).status_code == 200
        for headers in ({}, {"x-api-key": "a secre"}, {"x-api-key": "ä"},
                        {"authorization": "Basic a secret"}):  # fmt: skip
            for address in ("/info", "/metrics", "/map", "/images/red%2F00.jpg"):
                answer = client.get(address, headers={k: v.encode() for k, v in headers.items()})
                assert answer.status_code == 401 and "X-API-Key" in answer.json()["error"]
        for headers in ({"x-api-key": "a secret"}, {"authorization": "Bearer a secret"}):
            assert client.get("/info", headers=headers).json()["key_needed"]
        schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
        assert [each["name"] for each in schemes.values()] == ["X-API-Key"]


def test_a_client_over_its_rate_gets_429_with_retry_after(serving, served_folder):
    with serving(served_folder, "server.rate=0.5", "server.burst=3") as client:
        statuses = [client.get("/info").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answer = client.get("/info")
        assert answer.status_code == 429 and "too many" in answer.json()["error"]
        assert 1 <= int(answer.headers["retry-after"]) <= 6  # 3 in any 6 seconds
        assert client.get("/health").status_code == 200 and client.get("/").status_code == 200


def test_a_client_may_send_again_when_its_rate_allows_it(serving, served_folder):
    with serving(served_folder, "server.rate=2", "server.burst=2") as client:
        assert [client.get("/info").status_code for _ in range(3)] == [200, 200, 429]
        time.sleep(int(client.get("/info").headers["retry-after"]) + 0.1)
        assert client.get("/info").status_code == 200


def test_wrong_keys_are_limited_too(serving, served_folder):
    with serving(served_folder, "server.rate=0.01", "server.burst=3", key="a secret") as client:
        wrong = {"x-api-key": "a guess"}
        statuses = [client.get("/info", headers=wrong).status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert client.get("/info", headers={"x-api-key": "a secret"}).status_code == 429


def test_no_more_than_so_many_requests_run_at_a_time(served_folder):
    run = Run.open(served_folder)
    settings = ["server.rate=0", "server.max_in_flight=2", "server.client_share=1"]
    service = Service(run, Config.load(run.config_file, settings))
    begun, gate = threading.Barrier(3), threading.Event()

    def slowly(_: str) -> tuple[bytes, str]:
        begun.wait(10)
        assert gate.wait(10)
        return b"", "image/png"

    service.pictures.read = slowly
    with TestClient(make_app(service), base_url="http://localhost") as client:
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(client.get, "/images/a") for _ in range(2)]
            begun.wait(10)
            refused = client.get("/info")
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert client.get("/health").status_code == 200
            gate.set()
            assert [each.result().status_code for each in running] == [200, 200]
        assert client.get("/info").status_code == 200


def test_every_answer_carries_the_headers_that_keep_browsers_safe(client):
    for address in ("/", "/info", "/nothing", "/images/red%2F00.jpg", "/docs", "/redoc"):
        headers = client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"]
    assert (
        client.get("/info", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    )
    odd = client.get("/info", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert odd != "a b"


def test_what_the_page_and_the_documentation_load_is_here(client):
    for address in ("/", "/docs", "/redoc"):
        loaded = re.findall(
            r"""(?:src|href|url)\s*[=:]\s*["']([^"'#]+)""", client.get(address).text
        )
        assert len(loaded) >= 2
        for each in loaded:
            assert "//" not in each and not each.startswith("/")  # relative, for a proxy's path
            answer = client.get(each)
            assert answer.status_code == 200
            media_type = answer.headers["content-type"]
            assert "javascript" in media_type or not each.endswith(".js")
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "'none'" in policy


def test_metrics_count_what_was_answered(client):
    client.post("/search", json={"id": "red/00.jpg"})
    text = client.get("/metrics").text
    assert 'cbir_requests_total{method="POST",route="/search",status="200"}' in text
    assert "cbir_images 36.0" in text and "process_resident_memory_bytes" in text


def test_a_request_is_a_line_of_json_in_the_log(client, capsys):
    client.get("/images/red%2F99.jpg%0a", headers={"x-request-id": "mine"})
    line = json.loads(capsys.readouterr().err)
    assert (line["request"], line["status"], line["method"]) == ("mine", 404, "GET")
    assert line["route"] == "/images/{id:path}" and line["ms"] > 0
    client.post("/search", json={"id": "red/00.jpg"})
    assert json.loads(capsys.readouterr().err)["route"] == "/search"


def test_requests_that_outlast_the_shutdown_get_status_503():
    sent = []

    async def forever(scope, receive, send):
        await asyncio.sleep(1000)

    async def keep(message):
        sent.append(message)

    async def ask():
        scope = {"type": "http", "method": "GET", "path": "/map", "headers": []}
        task = asyncio.create_task(RequestLog(forever, Metrics())(scope, None, keep))
        await asyncio.sleep(0)
        task.cancel()  # as uvicorn does after server.request_timeout
        await task

    asyncio.run(ask())
    assert sent[0]["status"] == 503 and b"ending" in sent[1]["body"]


def test_base64_may_be_a_data_address(client, photos: Path):
    text = base64.b64encode((photos / "red" / "00.jpg").read_bytes()).decode()
    for image in (text, f"data:image/jpeg;base64,{text}"):
        answer = client.post("/search", json={"base64image": image, "k": 1}).json()
        assert answer["neighbours"][0]["id"] == "red/00.jpg"


@pytest.mark.slow
def test_the_answers_keep_to_their_documentation(client):
    """schemathesis sends what the OpenAPI allows, and what it does not; nothing is a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    async def without_lifespan(scope, receive, send):  # which schemathesis would begin and end
        if scope["type"] == "http":
            await client.app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    schema = schemathesis.openapi.from_asgi("/openapi.json", without_lifespan, headers=HOST)
    checks = [not_a_server_error, response_schema_conformance, status_code_conformance,
              content_type_conformance]  # fmt: skip
    numbers = np.zeros(2, int)
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=15, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=strategy)
        def ask(case):
            response = case.call(headers=HOST)
            case.validate_response(response, checks=checks)
            numbers[0] += 1

        ask()
        numbers[1] += 1
    assert numbers[1] >= 12 and numbers[0] > 50


# --- what one client may have -------------------------------------------------------------------


def test_wrong_keys_wait_the_longer_the_more_there_are_and_right_ones_never(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    wrong = access.WrongKeys()
    waits = [wrong.wait("one") for _ in range(40)]
    assert waits[0] == pytest.approx(0.05) and waits == sorted(waits) and waits[-1] == 30
    assert np.diff(waits).max() == pytest.approx(2)  # a key in two seconds, on all connections
    assert wrong.wait("other") == pytest.approx(0.05)
    now[0] += 120
    wrong.wait("third")
    assert wrong.wait("one") == pytest.approx(0.05)


def test_a_right_key_does_not_wait_behind_wrong_ones(serving, served_folder):
    with serving(served_folder, key="a secret") as client, ThreadPoolExecutor(8) as pool:
        wrong = {"x-api-key": "a guess"}
        guesses = [pool.submit(client.get, "/info", headers=wrong) for _ in range(7)]
        time.sleep(0.3)
        right = {"x-api-key": "a secret"}
        assert client.get("/info", headers=right).status_code == 200
        assert not all(each.done() for each in guesses)
        assert {each.result().status_code for each in guesses} == {401}


def test_a_client_has_its_share_and_others_theirs():
    share = access.Share(10, 0.5, "requests")
    share.take("one", 5)
    with pytest.raises(access.RequestError) as refused:
        share.take("one", 1)
    assert refused.value.status == 429 and refused.value.headers["Retry-After"] == "1"
    share.take("two", 4)
    with pytest.raises(access.RequestError) as refused:
        share.take("three", 2)
    assert refused.value.status == 503
    share.give_back("one", 5)
    share.take("three", 5)


def test_bodies_at_a_time_have_a_size_in_all(serving, served_folder):
    settings = ["server.max_pending_megabytes=1", "server.client_share=1"]
    with serving(served_folder, *settings) as client:
        large = {"file": png(1000, 1000) + b"\0" * 1_200_000}
        answer = client.post("/search", files=large)
        assert answer.status_code == 503 and "megabytes" in answer.json()["error"]
        assert client.post("/search", files={"file": png(100, 100)}).status_code == 200


def test_a_large_answer_arrives_whole(serving, run_folder):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(
        content, "PNG"
    )
    with serving(run_folder) as client:
        added = client.post("/images", files={"file": content.getvalue()}).json()
        answer = client.get(f"/images/{added['id'].replace('/', '%2F')}")
        assert len(content.getvalue()) > 3 * access.PIECE and answer.content == content.getvalue()
    with serving(run_folder, "server.max_pending_megabytes=0.1") as client:
        answer = client.get(f"/images/{added['id'].replace('/', '%2F')}")
        assert answer.status_code in (429, 503) and "megabytes" in answer.json()["error"]


def test_what_is_open_to_all_has_a_rate_too(serving, served_folder, monkeypatch):
    monkeypatch.setattr(access, "OPEN_RATE", 1)
    monkeypatch.setattr(access, "OPEN_BURST", 3)
    with serving(served_folder, "server.rate=1", "server.burst=3", key="a secret") as client:
        assert [client.get("/").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert client.get("/info", headers={"x-api-key": "a secret"}).status_code == 200
