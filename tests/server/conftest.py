"""Services of a small trained run: in this process, and as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.pipeline.service import Service

ROOT = Path(__file__).parents[2]


@contextmanager
def _serving(folder: Path, *overrides: str, key: str | None = None) -> Iterator[TestClient]:
    """A client of a service of a run, in this process."""
    run = Run.open(folder)
    config = Config.load(run.config_file, ["server.rate=0", *overrides])
    app = make_app(Service(run, config), key)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Path:
    """A copy of the trained run for the tests of one file."""
    return Path(shutil.copytree(trained_folder, tmp_path_factory.mktemp("served") / "run"))


Serving = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """`with serving(folder, "server.rate=1", key="...") as client`, in this process."""
    return _serving


@pytest.fixture(scope="module")
def client(served_folder: Path) -> Iterator[TestClient]:
    """Of a service of `served_folder`."""
    with _serving(served_folder) as client:
        yield client


Started = Callable[..., tuple[subprocess.Popen[str], str]]


@contextmanager
def _starting() -> Iterator[Started]:
    started: list[subprocess.Popen[str]] = []

    def starting(folder: Path, *overrides: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "cbir_tf", "serve", "--run", str(folder), "--port", "0"]
        process = subprocess.Popen(
            [*command, *overrides],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        return process, line.split()[0]

    yield starting
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start() -> Iterator[Started]:
    """Starts `cbir serve` of a run: the process and its address."""
    with _starting() as starting:
        yield starting


@pytest.fixture(scope="module")
def start_once() -> Iterator[Started]:
    """As `start`, for all tests of a file; the services' standard error is to be short."""
    with _starting() as starting:
        yield starting
