"""A refusal has the status that it deserves, and what is accepted is found again."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urljoin

import pytest
from PIL import Image

from cbir_tf.commands.cli import main
from cbir_tf.config.server import Server
from cbir_tf.errors import UserError
from cbir_tf.server.key import KEY, key_of_environment

JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\nred/00.jpg\r\n--b--\r\n'


@pytest.fixture
def picture(photos: Path) -> bytes:
    return (photos / "red" / "00.jpg").read_bytes()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": " rose"}, "label: begins or ends with blanks"),
        ({"label": "rose\u00a0"}, "label: begins or ends with blanks"),
        ({"label": "   "}, "blanks"),
        ({"label": "ro\nse"}, "label: has control characters"),
        ({"label": "ro\x00se"}, "label: has control characters"),
        ({"label": "rose\u2028"}, "label: has control characters"),
        ({"metadata": '{"place": "\\ud800"}'}, "place has control characters, or is not Unicode"),
        ({"metadata": '{"pl\\udfffce": "a"}'}, "no column can be called"),
        ({"metadata": '{"place": "Kyoto "}'}, "place begins or ends with blanks"),
        ({"metadata": '{"place": "Kyo\\tto"}'}, "place has control characters"),
        ({"metadata": '{"year": true}'}, "year should be text or a number"),
        ({"metadata": '{"year": null}'}, "year should be text or a number"),
        ({"metadata": '{"year": [1]}'}, "year should be text or a number"),
        ({"metadata": '{"year": 1e999}'}, "year should be a finite number"),
        ({"metadata": "[1]"}, "not a JSON object"),
        ({"metadata": "{"}, "not JSON"),
    ],
)
def test_what_could_not_be_found_again_is_refused(client, served_folder, picture, fields, words):
    answer = client.post("/images", files={"file": picture}, data=fields)
    assert answer.status_code == 422 and words in answer.json()["error"], answer.text
    added = served_folder / "added"
    assert not added.exists() or not list(added.iterdir())


def test_what_is_accepted_is_found_again(serving, run_folder, picture):
    decomposed = "Cafe\u0301, \u201cno.\u00a01\u201d"
    metadata = {"sku": 9007199254740993, "Größe": "x, y", "price": 1.5}
    with serving(run_folder) as client:
        data = {"label": decomposed, "metadata": json.dumps(metadata)}
        added = client.post("/images", files={"file": picture}, data=data)
        assert added.status_code == 201 and added.json()["label"].startswith("Caf\u00e9")
        label = added.json()["label"]
        for where in (f'label="{label}"', 'Größe="x, y"', "price=1.5"):
            found = client.post("/search", json={"id": "red/01.jpg", "where": where})
            assert [each["id"] for each in found.json()["neighbours"]] == [added.json()["id"]]
    about = json.loads(next((run_folder / "added").glob("*.json")).read_text(encoding="utf-8"))
    assert about["metadata"] == metadata  # to the last digit


@pytest.mark.parametrize("address", ["/search", "/images"])
def test_a_picture_that_takes_too_much_memory_is_413(client, address):
    small = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(small, "WEBP", lossless=True)
    content = bytearray(small.getvalue())  # of 40 bytes, in which the size stands apart
    (bits,) = struct.unpack_from("<I", content, 21)
    struct.pack_into("<I", content, 21, bits >> 28 << 28 | 6999 << 14 | 6999)
    answer = client.post(address, files={"file": bytes(content)})
    assert answer.status_code == 413 and "MB of memory" in answer.json()["error"]


@pytest.mark.parametrize("k", ["true", "false", "[1]", '"x"', "1.5"])
def test_k_is_a_whole_number(client, k):
    body = f'{{"id": "red/00.jpg", "k": {k}}}'
    answer = client.post("/search", content=body, headers=JSON)
    assert answer.status_code == 422 and answer.json()["error"].startswith("k: ")


@pytest.mark.parametrize("field", ["f", "id", "picture"])
def test_a_picture_in_another_field_is_told_where_it_goes(client, picture, field):
    answer = client.post("/search", files={field: ("a.jpg", picture)})
    assert answer.status_code == 422
    assert repr(field) in answer.json()["error"] and "field 'file'" in answer.json()["error"]


@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\r\n",
        b"This is a message in MIME format.\r\n",
        b"a line\r\nand --b in another\r\n",
        b"x" * 60_000 + b"\r\n",
    ],
)
def test_a_form_may_have_a_preamble_and_an_epilogue(client, preamble):
    answer = client.post("/search", content=preamble + PART + b"an epilogue", headers=FORM)
    assert answer.status_code == 200, answer.text
    in_pieces = ((preamble + PART)[each : each + 3] for each in range(0, 400, 3))
    answer = client.post("/search", content=in_pieces, headers=FORM)
    assert answer.status_code == (200 if len(preamble) < 300 else 400)


def test_a_preamble_is_bounded(client):
    answer = client.post("/search", content=b"x" * 70_000 + b"\r\n" + PART, headers=FORM)
    assert answer.status_code == 400 and "boundary" in answer.json()["error"]


@pytest.mark.parametrize("where", ["path>=/home", " path != /tmp/x", "path~a", "path=/etc/passwd"])
def test_no_condition_tells_of_the_folders_of_the_server(client, where):
    answer = client.post("/search", json={"id": "red/00.jpg", "where": where})
    assert answer.status_code == 422 and "by path" in answer.json()["error"]


def test_an_image_that_is_removed_between_two_steps_is_404(serving, run_folder, monkeypatch):
    with serving(run_folder) as client:
        service = client.app.state.service
        monkeypatch.setattr(service, "_check_id", lambda id_: None)  # it was there then
        answer = client.post("/search", json={"id": "red/99.jpg"})
        assert answer.status_code == 404 and "no image of that id" in answer.json()["error"]


def test_the_folder_of_another_run_is_not_for_the_client(serving, run_folder, monkeypatch):
    error = UserError("/srv/other: 'a' is not extracted there; run cbir extract --run /srv/other")
    other = SimpleNamespace(run=SimpleNamespace(folder=Path("/srv/other")), close=lambda: None)
    with serving(run_folder) as client:
        gallery = client.app.state.service.gallery
        monkeypatch.setattr(gallery.retriever, "other", other)
        monkeypatch.setattr(gallery, "find", lambda asked: [error] * len(asked))
        answer = client.post("/search", json={"id": "red/00.jpg"})
    assert answer.status_code == 409 and "/srv" not in answer.text
    assert "another run" in answer.json()["error"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_name_of_the_scheme_is_in_any_case(serving, served_folder, scheme):
    with serving(served_folder, key="a secret") as client:
        for token, status in (("a secret", 200), (" a secret", 200), ("A SECRET", 401)):
            headers = {"authorization": f"{scheme} {token}"}
            assert client.get("/info", headers=headers).status_code == status
        assert client.get("/info", headers={"authorization": "a secret"}).status_code == 401


@pytest.mark.parametrize("key", ["", "  ", "a\n", " a", "a\nb"])
def test_a_key_that_no_request_can_bring_is_refused_at_the_start(
    monkeypatch, capsys, served_folder, key
):
    monkeypatch.setitem(os.environ, KEY, key)
    with pytest.raises(UserError, match=KEY):
        key_of_environment()
    assert main(["serve", "--run", str(served_folder), "--port", "0"]) == 2
    assert KEY in capsys.readouterr().err


def test_a_key_is_needed_where_the_variable_is_set(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    assert key_of_environment() is None
    monkeypatch.setitem(os.environ, KEY, "a secret")
    assert key_of_environment() == "a secret"


def test_the_documentation_states_that_one_picture_is_needed(client):
    paths = client.get("/openapi.json").json()["paths"]

    def choices(path: str, media_type: str) -> tuple[list[list[str]], dict]:
        content = paths[path]["post"]["requestBody"]["content"][media_type]["schema"]
        given = content.get("oneOf") or content["allOf"]
        return [each["required"] for each in given], content["properties"]

    for path in ("/search", "/explain"):
        names, properties = choices(path, "application/json")
        assert names == [["base64image"], ["id"]] and "file" not in properties
        assert properties["id"]["type"] == "string"
        assert choices(path, "multipart/form-data")[0] == [["file"], ["id"]]
    assert choices("/images", "application/json")[0] == [["base64image"]]
    assert choices("/images", "multipart/form-data")[0] == [["file"]]


def test_info_calls_the_limits_by_the_names_of_their_keys(client):
    info = client.get("/info").json()
    for name in ("max_neighbours", "max_request_megabytes", "max_megapixels"):
        assert info[name] == getattr(Server(), name)


def test_the_addresses_of_an_answer_are_relative_to_its_own(serving, run_folder, picture):
    with serving(run_folder) as client:
        found = client.post("/search", json={"id": "red/00.jpg"}).json()["neighbours"][0]
        added = client.post("/images", files={"file": picture}).json()
        drawn = client.get("/gallery/random").json()["images"][0]
        for asked, answer in (("search", found), ("images", added), ("gallery/random", drawn)):
            for kind in ("image", "thumbnail"):
                address = urljoin(f"http://localhost/at/a/path/{asked}", answer[kind])
                assert address.startswith(f"http://localhost/at/a/path/{kind}s/")
                shown = client.get(address.replace("/at/a/path", ""))
                assert shown.status_code == 200


def test_a_page_behind_a_proxy_that_renames_the_host_is_of_this_service(client):
    asked = {"id": "red/00.jpg"}
    headers = {"origin": "https://example.org", "sec-fetch-site": "same-origin"}
    assert client.post("/search", json=asked, headers=headers).status_code == 200
    for site in ("cross-site", "same-site"):
        headers["sec-fetch-site"] = site
        assert client.post("/search", json=asked, headers=headers).status_code == 403


def test_a_folder_that_cannot_be_written_is_507(serving, run_folder, picture, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with serving(run_folder) as client:
        added = client.post("/images", files={"file": picture}).json()
        monkeypatch.setattr(Path, "unlink", refused)
        monkeypatch.setattr(os, "replace", refused)
        answer = client.delete(f"/images/{added['id']}")
        assert answer.status_code == 507 and "nothing has changed" in answer.json()["error"]
        assert client.post("/images", files={"file": picture}).status_code == 507
        assert str(run_folder) not in answer.text
