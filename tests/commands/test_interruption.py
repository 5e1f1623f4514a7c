"""Training and extraction as real processes: killed, interrupted, resumed."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from cbir_tf.features.store import FeatureStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def start(script: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("loss", "model"),
    [
        ("triplet_semi_hard", "model"),
        ("cross_entropy", "classifier"),
        ("{name: reconstruction, noise: 0.1}", "autoencoder"),
    ],
)
def test_training_killed_and_resumed_is_the_training_that_was_not(
    config_file, tmp_path, loss, model
):
    command = ("--config", config_file, "training.epochs=8", f"loss={loss}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start("train.py", *command, "--run", whole).wait() == 0

    process = start("train.py", *command, "--run", killed)
    wait_for(lambda: len(list((killed / "checkpoints").glob("last.npz"))) > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "model.keras").exists()

    refused = start("train.py", *command, "--run", killed)
    output, error = refused.communicate()
    assert (refused.returncode, output) == (2, "")
    assert "--resume" in error.strip().splitlines()[-1]

    resumed = start("train.py", *command, "--run", killed, "--resume")
    _, error = resumed.communicate()
    assert resumed.returncode == 0, error
    assert re.search(r"going on after epoch \d", error)

    for ours, theirs in zip(history(killed), history(whole), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-3)
    models = [
        keras.saving.load_model(folder / f"{model}.keras", compile=False)
        for folder in (killed, whole)
    ]
    for ours, theirs in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3)


def test_ctrl_c_says_how_to_go_on(config_file, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", "--config", config_file, "training.epochs=500", "--run", folder)
    wait_for((folder / "checkpoints" / "last.npz").exists, process)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate()
    assert process.returncode == 1
    assert output == ""
    assert "--resume goes on from here" in error.strip().splitlines()[-1]
    assert "Traceback" not in error


def test_extraction_killed_and_started_again_ends_with_the_same_store(run_folder, photos, tmp_path):
    many = tmp_path / "many photos"
    many.mkdir()
    sources = sorted(photos.rglob("*.jpg"))
    for number in range(2000):
        os.link(sources[number % len(sources)], many / f"{number:04d}.jpg")
    process = start("extract.py", "--run", run_folder, "--images", many)
    features = run_folder / "features.db"

    def extracted() -> int:
        with FeatureStore.open(features) as store:
            return sum("many photos" in record.id for record in store.records())

    wait_for(lambda: extracted() > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < extracted() < 2000
    again = start("extract.py", "--run", run_folder, "--images", many, "--json")
    _, error = again.communicate()
    assert again.returncode == 0, error
    assert extracted() == 2000
    with FeatureStore.open(features) as store:
        stored = dict(zip(store.embeddings().ids, store.embeddings().vectors, strict=True))
    for number in (0, 999, 1999):
        original = sources[number % len(sources)].relative_to(photos).as_posix()
        copy = stored[(many.resolve() / f"{number:04d}.jpg").as_posix()]
        np.testing.assert_allclose(copy, stored[original], atol=1e-5)
