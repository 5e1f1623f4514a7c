"""Releases to test with: a copy of the digits' in a registry and with a cache of its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cbir_tf.releases.manifest import MANIFEST, write_manifest
from cbir_tf.releases.registry import Entry, Reference, Registry
from cbir_tf.storage.files import sha256

DIGITS = Path(__file__).parents[2] / "weights" / "digits-1.0.0"


@dataclass
class Shelf:
    """A release that may be changed, and the registry that lists it."""

    folder: Path
    file: Path
    reference = Reference("digits", "1.0.0")

    def seal(self, address: str = "digits-1.0.0") -> None:
        """Make the folder, as it is now, the release that is listed, under an address."""
        write_manifest(self.folder)
        self.file.unlink(missing_ok=True)
        digest = sha256(self.folder / MANIFEST)
        entry = Entry(name="digits", version="1.0.0", address=address, sha256=digest, licence="")
        Registry.load(self.file).add(entry)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A copy of the digits' release, its models a few bytes, to be changed at will."""
    monkeypatch.setenv("CBIR_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CBIR_TF_REGISTRY", str(tmp_path / "registry.yaml"))
    left_out = shutil.ignore_patterns("*.png", "model.*", MANIFEST)
    shutil.copytree(DIGITS, tmp_path / "digits-1.0.0", ignore=left_out)
    for name in ("model.keras", "model.onnx"):
        (tmp_path / "digits-1.0.0" / name).write_bytes(f"instead of {name}".encode() * 100)
    shelf = Shelf(tmp_path / "digits-1.0.0", tmp_path / "registry.yaml")
    shelf.seal()
    return shelf


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the folder of the shelf on a local web server."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
