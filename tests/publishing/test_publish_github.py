"""To a GitHub release, by PyGithub, which talks to a server of the tests' own."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from cbir_tf.errors import UserError
from cbir_tf.publishing.publish import publish
from cbir_tf.releases.fetch import fetch
from cbir_tf.releases.manifest import MANIFEST, check_files, write_manifest
from cbir_tf.releases.registry import Registry

pytest.importorskip("github")

TAG = "digits-1.0.0"
REPOSITORY = "/api/v3/repos/me/weights"


class GitHub(BaseHTTPRequestHandler):
    """The part of GitHub's interface that a release needs, for one repository, me/weights."""

    releases: list[dict[str, Any]]
    files: dict[int, bytes]
    uploads: list[str]
    uploads_left: int  # then the next one is cut off

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, value: object = None, status: int = 200) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        download = re.fullmatch(r"/me/weights/releases/download/(.+)/(.+)", path)
        if download:
            return self.download(*download.groups())
        if self.headers.get("Authorization") != "token a-token":
            return self.answer({"message": "Bad credentials"}, 401)
        for pattern, method in self.routes.items():
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return getattr(self, method)(body, *match.groups())
        return self.answer({"message": "Not Found"}, 404)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_request
    routes: ClassVar = {
        f"GET {REPOSITORY}": "repository",
        f"GET {REPOSITORY}/releases": "listed",
        f"POST {REPOSITORY}/releases": "create",
        rf"PATCH {REPOSITORY}/releases/(\d+)": "update",
        rf"GET {REPOSITORY}/releases/(\d+)/assets": "assets",
        rf"POST {REPOSITORY}/releases/(\d+)/assets": "upload",
        rf"DELETE {REPOSITORY}/releases/assets/(\d+)": "delete",
    }

    @property
    def root(self) -> str:
        return f"http://{self.headers['Host']}{REPOSITORY}"

    def repository(self, body: bytes) -> None:
        self.answer({"url": self.root, "full_name": "me/weights", "name": "weights"})

    def listed(self, body: bytes) -> None:
        self.answer(self.releases)

    def create(self, body: bytes) -> None:
        number = len(self.releases) + 1
        url = f"{self.root}/releases/{number}"
        upload = url + "/assets{?name,label}"
        release = {"id": number, "url": url, "upload_url": upload, "assets": []}
        self.releases.append(release | json.loads(body))
        self.answer(self.releases[-1], 201)

    def update(self, body: bytes, number: str) -> None:
        release = self.releases[int(number) - 1]
        release |= json.loads(body)
        self.answer(release)

    def assets(self, body: bytes, number: str) -> None:
        self.answer(self.releases[int(number) - 1]["assets"])

    def upload(self, body: bytes, number: str) -> None:
        (name,) = parse_qs(urlsplit(self.path).query)["name"]
        release, asset = self.releases[int(number) - 1], len(self.files) + 1
        assert release["draft"] and name not in [each["name"] for each in release["assets"]]
        whole = type(self).uploads_left > 0
        type(self).uploads_left -= 1
        self.files[asset] = body if whole else body[:10]
        row = {"id": asset, "url": f"{self.root}/releases/assets/{asset}", "name": name}
        row |= {"size": len(body), "state": "uploaded" if whole else "starter"}
        row |= {"digest": f"sha256:{sha256(self.files[asset]).hexdigest()}"}
        release["assets"].append(row)
        self.uploads.append(name)
        self.answer(row, 201) if whole else self.answer({"message": "Bad gateway"}, 502)

    def delete(self, body: bytes, asset: str) -> None:
        for release in self.releases:
            release["assets"] = [each for each in release["assets"] if each["id"] != int(asset)]
        self.send_response(204)
        self.end_headers()

    def download(self, tag: str, name: str) -> None:
        for release in self.releases:
            for each in release["assets"]:
                if (release["tag_name"], release["draft"], each["name"]) == (tag, False, name):
                    return self.answer(self.files[each["id"]])
        return self.answer({"message": "Not Found"}, 404)


@pytest.fixture
def github(monkeypatch) -> Iterator[type[GitHub]]:
    """The server."""

    state = {"releases": [], "files": {}, "uploads": [], "uploads_left": 1000}
    of_this_test = type("OfThisTest", (GitHub,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), of_this_test)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("GITHUB_API_URL", f"{address}/api/v3")
    monkeypatch.setenv("GITHUB_SERVER_URL", address)
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # which PyGithub does between writes
    yield of_this_test
    server.shutdown()
    server.server_close()


@pytest.fixture
def empty(tmp_path: Path, shelf) -> Registry:
    return Registry.load(tmp_path / "shelf" / "registry.yaml")


def test_a_release_with_all_files_and_from_there(github, shelf, empty):
    entry = publish(shelf.folder, "github:me/weights", empty)
    assert entry.address.endswith(f"/me/weights/releases/download/{TAG}")
    (release,) = github.releases
    assert (release["tag_name"], release["draft"], release["prerelease"]) == (TAG, False, False)
    assert set(github.uploads) == {each.name for each in shelf.folder.iterdir()}
    assert github.uploads[-1] == MANIFEST
    assert release["body"].startswith("# digits 1.0.0") and "## Pictures" not in release["body"]
    check_files(fetch(shelf.reference, empty.file), entry.sha256)


def test_cut_off_it_is_not_seen_and_goes_on_where_it_was(github, shelf, empty):
    github.uploads_left = 3
    with pytest.raises(UserError, match="github:me/weights: GitHub answers 502: Bad gateway"):
        publish(shelf.folder, "github:me/weights", empty)
    (release,) = github.releases
    assert release["draft"] and not empty.file.exists()
    sent = github.uploads.copy()
    github.uploads_left = 1000
    entry = publish(shelf.folder, "github:me/weights", empty)
    assert len(github.releases) == 1 and not release["draft"]
    # The three that were whole have been sent once, the fourth again.
    assert github.uploads.count(sent[3]) == 2
    assert all(github.uploads.count(name) == 1 for name in sent[:3])
    check_files(fetch(shelf.reference, empty.file), entry.sha256)


def test_a_version_there_is_never_replaced(github, shelf, empty):
    publish(shelf.folder, "github:me/weights", empty)
    sent = len(github.uploads)
    publish(shelf.folder, "github:me/weights", Registry.load(empty.file))
    (shelf.folder / "labels.json").write_text("[]")
    write_manifest(shelf.folder)
    empty.file.unlink()
    with pytest.raises(UserError, match=f"{TAG}: another release has this tag"):
        publish(shelf.folder, "github:me/weights", Registry.load(empty.file))
    assert len(github.uploads) == sent and not empty.file.exists()


def test_mistakes_are_a_one_line_error(github, shelf, empty, monkeypatch):
    with pytest.raises(UserError, match="write github:owner/repository"):
        publish(shelf.folder, "github:weights", empty)
    with pytest.raises(UserError, match="404: Not Found; check the repository's name"):
        publish(shelf.folder, "github:me/none", empty)
    monkeypatch.setenv("GITHUB_TOKEN", "another")
    with pytest.raises(UserError, match="401: Bad credentials; check GITHUB_TOKEN"):
        publish(shelf.folder, "github:me/weights", empty)
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(UserError, match="no token; set GITHUB_TOKEN"):
        publish(shelf.folder, "github:me/weights", empty)
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="GitHub could not be reached"):
        publish(shelf.folder, "github:me/weights", empty)
