"""To the Hugging Face Hub, by its own client, which talks to a server of the tests' own."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from cbir_tf.errors import UserError
from cbir_tf.publishing.publish import publish
from cbir_tf.releases.fetch import fetch
from cbir_tf.releases.manifest import MANIFEST, check_files, write_manifest
from cbir_tf.releases.registry import Registry

constants = pytest.importorskip("huggingface_hub.constants")


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's interface that a release needs, for one repository, me/digits."""

    commits: list[dict[str, bytes]]
    tags: dict[str, int]
    large: dict[str, bytes]
    requests: list[str]
    broken: str  # requests with this in them fail

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, value: object = None, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.requests.append(f"{self.command} {self.path}")
        if self.broken and self.broken in self.requests[-1]:
            return self.answer({"error": "out of order"}, 400)
        if self.headers.get("Authorization") != "Bearer a-token" and "/large/" not in self.path:
            return self.answer({"error": "who is it?"}, 401)
        for pattern, method in self.routes.items():
            match = re.fullmatch(pattern, f"{self.command} {self.path.partition('?')[0]}")
            if match:
                return getattr(self, method)(body, *match.groups())
        return self.answer({"error": f"no {self.path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request
    routes: ClassVar = {
        r"POST /api/validate-yaml": "validate",
        r"POST /api/repos/create": "create",
        r"GET /api/models/me/digits/refs": "refs",
        r"GET /api/models/me/digits/revision/main": "revision",
        r"GET /api/models/me/digits/tree/main": "tree",
        r"POST /api/models/me/digits/preupload/main": "preupload",
        r"POST /me/digits\.git/info/lfs/objects/batch": "batch",
        r"PUT /large/(.*)": "upload",
        r"POST /api/models/me/digits/commit/main": "commit",
        r"POST /api/models/me/digits/tag/(.*)": "tag",
        r"(?:GET|HEAD) /me/digits/resolve/([^/]*)/(.*)": "resolve",
    }

    def validate(self, body: bytes) -> None:
        self.answer({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        status = 409 if self.requests.count("POST /api/repos/create") > 1 else 200
        self.answer({"url": f"http://{self.headers['Host']}/me/digits"}, status)

    def refs(self, body: bytes) -> None:
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid(number)}
            for name, number in self.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": oid(self.last)}
        self.answer({"branches": [main], "tags": tags, "converts": []})

    def revision(self, body: bytes) -> None:
        self.answer({"id": "me/digits", "sha": oid(self.last), "siblings": [], "tags": []})

    @property
    def last(self) -> int:
        return len(self.commits) - 1

    def tree(self, body: bytes) -> None:
        files = self.commits[-1].items()
        rows = [{"type": "file", "path": k, "size": len(v), "oid": git_oid(v)} for k, v in files]
        self.answer(rows)

    def preupload(self, body: bytes) -> None:
        modes = []
        for each in json.loads(body)["files"]:
            large = each["path"].startswith("model.")
            here = self.commits[-1].get(each["path"])
            row = {"path": each["path"], "uploadMode": "lfs" if large else "regular", "oid": None}
            if here is not None:
                row["oid"] = sha256(here).hexdigest() if large else git_oid(here)
            modes.append(row | {"shouldIgnore": False})
        self.answer({"files": modes})

    def batch(self, body: bytes) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            row = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.large:
                href = f"http://{self.headers['Host']}/large/{each['oid']}"
                row["actions"] = {"upload": {"href": href}}
            objects.append(row)
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, digest: str) -> None:
        assert sha256(body).hexdigest() == digest
        self.large[digest] = body
        self.answer({})

    def commit(self, body: bytes) -> None:
        files = dict(self.commits[-1])
        for line in map(json.loads, body.decode().strip().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.commits.append(files)
        url = f"http://{self.headers['Host']}/me/digits/commit/{oid(self.last)}"
        self.answer({"success": True, "commitOid": oid(self.last), "commitUrl": url})

    def tag(self, body: bytes, revision: str) -> None:
        self.tags[json.loads(body)["tag"]] = int(revision, 16)
        self.answer({})

    def resolve(self, body: bytes, revision: str, name: str) -> None:
        number = self.tags.get(revision, self.last)
        content = self.commits[number].get(name)
        if content is None:
            return self.answer({}, 404, X_Error_Code="EntryNotFound")
        headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X_Repo_Commit": oid(number)}
        return self.answer(content, **headers)


def oid(number: int) -> str:
    return f"{number:040x}"


def git_oid(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    """The server; its one repository holds two files of others."""

    before = {".gitattributes": b"", "old.bin": b"of a version before"}
    state = {"commits": [before], "tags": {}, "large": {}, "requests": [], "broken": ""}
    of_this_test = type("OfThisTest", (Hub,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), of_this_test)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "a-token")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, beside LFS
    yield of_this_test
    server.shutdown()
    server.server_close()


@pytest.fixture
def empty(tmp_path: Path, shelf) -> Registry:
    return Registry.load(tmp_path / "shelf" / "registry.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_one_commit_with_all_files_then_the_tag_and_from_there(hub, shelf, empty):
    entry = publish(shelf.folder, "hf://me/digits", empty)
    assert entry.address == "hf://me/digits@v1.0.0"
    assert len(hub.commits) == 2 and hub.tags == {"v1.0.0": 1}
    assert hub.commits[1] == contents(shelf.folder) | {".gitattributes": b""}
    assert [each for each in hub.requests if "/commit/" in each or "/tag/" in each][-1] == (
        f"POST /api/models/me/digits/tag/{oid(1)}"
    )
    check_files(fetch(shelf.reference, empty.file), entry.sha256)


def test_interrupted_it_goes_on_and_is_seen_once_it_is_whole(hub, shelf, empty):
    hub.broken = "POST /api/models/me/digits/commit"
    with pytest.raises(UserError, match="hf://me/digits: the Hub refuses") as error:
        publish(shelf.folder, "hf://me/digits", empty)
    assert "\n" not in str(error.value)
    assert len(hub.commits) == 1 and not hub.tags and not empty.file.exists()
    hub.broken = "/tag/"
    with pytest.raises(UserError, match="the Hub refuses"):
        publish(shelf.folder, "hf://me/digits", empty)
    assert len(hub.commits) == 2 and not hub.tags and not empty.file.exists()
    hub.broken = ""
    publish(shelf.folder, "hf://me/digits", empty)
    assert hub.commits[-1] == contents(shelf.folder) | {".gitattributes": b""}
    assert set(hub.tags) == {"v1.0.0"}
    # The two models have been sent once.
    assert sum(each.startswith("PUT /large/") for each in hub.requests) == 2


def test_a_version_there_is_never_replaced(hub, shelf, empty):
    publish(shelf.folder, "hf://me/digits", empty)
    publish(shelf.folder, "hf://me/digits", Registry.load(empty.file))
    assert len(hub.commits) == 2
    (shelf.folder / "labels.json").write_text("[]")
    write_manifest(shelf.folder)
    empty.file.unlink()
    with pytest.raises(UserError, match=r"hf://me/digits@v1\.0\.0: another release has this tag"):
        publish(shelf.folder, "hf://me/digits", Registry.load(empty.file))
    assert len(hub.commits) == 2 and not empty.file.exists()
    assert MANIFEST in hub.commits[1]


def test_mistakes_are_a_one_line_error(hub, shelf, empty, monkeypatch):
    for address in ("hf://digits", "hf://a/b/c", "hf://me/digits@v1"):
        with pytest.raises(UserError, match="write hf://owner/name"):
            publish(shelf.folder, address, empty)
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(UserError, match="check HF_TOKEN") as error:
        publish(shelf.folder, "hf://me/digits", empty)
    assert "\n" not in str(error.value)
