"""A service to attack, as a process of its own, and another client of it.

Everything stays on this machine: the attacker is 127.0.0.1 and the other client 127.0.0.2, or the
same where the system has no more addresses.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from cbir_tf import Run
from cbir_tf.commands.cli import main as cbir
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint
from tests.attacks.client import KEY, OTHER, Client, photo

ROOT = Path(__file__).parents[2]
CLASSES, PER_CLASS, DIMENSION = 40, 75, 64
CONFIG = """
data:
  source: folder
  path: "{photos}"
  image_size: 96
  split: {{by: stratified, validation: 0.2, test: 0.2}}
  batch: {{classes: 2, images_per_class: 2}}
model: {{backbone: small_cnn, weights: null, embedding_size: {dimension}}}
training: {{epochs: 0}}
"""


def make_run(folder: Path) -> Run:
    """A run of 3,000 images in 40 classes with random vectors, and one large picture."""
    photos = folder / "photos"
    for each in range(24):
        path = photos / "ab"[each % 2] / f"{each}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(seed=each))
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(photos=photos, dimension=DIMENSION), encoding="utf-8")
    if cbir(["train", "--config", str(config), "--run", str(folder / "run")]):
        raise SystemExit("the run could not be made")
    run = Run.open(folder / "run")
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    vectors = random.normal(size=(len(labels), DIMENSION)) + random.normal(
        size=(CLASSES, DIMENSION)
    )[labels] / 3  # fmt: skip
    names = [f"class-{each:02d}" for each in range(CLASSES)]
    large = folder / "large.png"
    Image.fromarray(random.integers(0, 255, (2200, 2200, 3), np.uint8)).save(large)
    with FeatureStore.create(
        run.features, encoder_fingerprint(run, run.config.search), names
    ) as store:
        records = [
            Record(f"image-{each:04d}", large, int(label), "train", "digest")
            for each, label in enumerate(labels)
        ]
        store.write(records, vectors.astype(np.float32))
    return run


@dataclass
class Served:
    """A running service.

    Attributes:
        process: of `cbir serve`.
        port: where it answers.
        folder: of the run.
    """

    process: subprocess.Popen[str]
    port: int
    folder: Path

    def megabytes(self) -> float:
        """Resident memory of the process and of all that it started."""
        return sum(map(_resident, [self.process.pid, *_children(self.process.pid)])) / 1e6

    def interrupt(self) -> float:
        """Press Ctrl-C: seconds until the process has ended."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)
        return time.perf_counter() - start


@contextlib.contextmanager
def serving(folder: Path, *overrides: str) -> Iterator[Served]:
    """`cbir serve` of a run, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cbir_tf", "serve", "--run", str(folder), "--port", "0", *overrides],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"CBIR_TF_API_KEY": KEY},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://"), line
        yield Served(process, int(line.split()[0].rpartition(":")[2]), folder)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@dataclass
class Felt:
    """What another client got.

    Attributes:
        by_id, by_picture: seconds of its answers.
        refused: answers other than 200, and broken connections.
    """

    by_id: list[float] = field(default_factory=list)
    by_picture: list[float] = field(default_factory=list)
    refused: int = 0

    def medians(self) -> tuple[float, float]:
        """Of the searches by id, and by picture; infinite where there was no answer."""
        return tuple(  # type: ignore[return-value]
            statistics.median(each) if each else float("inf")
            for each in (self.by_id, self.by_picture)
        )


def ask(port: int, seconds: float, least: int = 4, pause: float = 0.05) -> Felt:
    """Be another client: search by id and by picture in turn, `least` times or more."""
    felt, picture, client = Felt(), photo(seed=99), Client(port, OTHER)
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn < least:
        start, turn = time.perf_counter(), turn + 1
        try:
            status, _ = client.search(picture) if turn % 2 else client.search_by_id()
        except (OSError, http.client.HTTPException):
            status = 0
        (felt.by_picture if turn % 2 else felt.by_id).append(time.perf_counter() - start)
        felt.refused += status != 200
        time.sleep(pause)
    client.close()
    return felt


@contextlib.contextmanager
def attacked(served: Served, name: str) -> Iterator[Counter]:
    """Attack within the block; what the attacker was answered is there after it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.attacks", name, str(served.port), str(served.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    statuses: Counter = Counter()
    try:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "attacking\n"
        yield statuses
        answered, _ = process.communicate(timeout=60)
        statuses.update({int(status): each for status, each in json.loads(answered).items()})
    finally:
        process.kill()
        process.communicate()


def _children(pid: int) -> list[int]:
    return [each.pid for each in psutil.Process(pid).children(recursive=True)]


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
