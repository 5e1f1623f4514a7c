"""Fixtures for every test."""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each process
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(threads, "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from cbir_tf.releases.manifest import MANIFEST, write_manifest
from cbir_tf.releases.registry import Entry, Reference, Registry
from cbir_tf.storage.files import sha256

# A shell that starts the suite in the background lets it, and what it starts, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and weights beside the checkout; tests skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data is not here")
    return folder


@pytest.fixture(scope="session")
def coco128(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 photos of COCO with their annotations."""
    folder = tmp_path_factory.mktemp("coco128")
    with tarfile.open(shared_data / "coco128.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder


COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 220)}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes with 12 JPEG files each: blobs of one colour on a noisy ground."""
    root = tmp_path_factory.mktemp("my photos")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(12):
            pixels = rng.integers(90, 160, (48, 64, 3))
            top, left = rng.integers(0, 20, 2)
            pixels[top : top + 24, left : left + 30] = colour + rng.integers(-30, 30, (24, 30, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / name / f"{number:02d}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A small configuration over `photos`."""
    path = tmp_path_factory.mktemp("configs") / "colours.yaml"
    path.write_text(
        f"""
data:
  source: folder
  path: "{photos}"
  image_size: 32
  split: {{by: stratified, train: 0.5, validation: 0.25, test: null}}
  batch: {{classes: 3, images_per_class: 4}}
  augmentation: [flip, {{name: random_crop, padding: 2}}]
model: {{backbone: small_cnn, weights: null, embedding_size: 8}}
optimizer: {{learning_rate: 3e-3}}
training: {{epochs: 4}}
evaluation: {{bootstrap: 100, k: [1, 2]}}
plots: {{layout: pca, queries: 3}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, config_file: Path) -> Path:
    """The folder of a run trained on `photos`, all of whose images are extracted."""
    from cbir_tf.commands.cli import main

    folder = tmp_path_factory.mktemp("runs") / "colours"
    assert main(["train", "--config", str(config_file), "--run", str(folder)]) == 0
    assert main(["extract", "--run", str(folder), "--split", "all"]) == 0
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, trained_folder: Path) -> Path:
    """A copy of the trained run that a test may change."""
    return Path(shutil.copytree(trained_folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a local S3 server."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the local server, which holds one empty bucket, `pictures`; a mirror of its own.

    Nothing of the machine's own settings is in force.
    """
    import boto3

    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings_of_aws = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "CBIR_TF_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings_of_aws.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    yield client
    for each in client.list_objects_v2(Bucket="pictures").get("Contents", ()):
        client.delete_object(Bucket="pictures", Key=each["Key"])
    client.delete_bucket(Bucket="pictures")


DIGITS = Path(__file__).parents[1] / "weights" / "digits-1.0.0"


@dataclass
class Shelf:
    """A release that may be changed, and the registry that lists it."""

    folder: Path
    file: Path
    reference = Reference("digits", "1.0.0")

    def seal(self, address: str = "digits-1.0.0") -> None:
        """List the folder in its present state as the release, under an address."""
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
