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

from cbir_tf import Run, train
from cbir_tf.commands.cli import main
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
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_training(ours: Path, theirs: Path, model: str = "model") -> None:
    for row, other in zip(history(ours), history(theirs), strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), abs=1e-3)
    models = [
        keras.saving.load_model(folder / f"{model}.keras", compile=False)
        for folder in (ours, theirs)
    ]
    for weights, others in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(weights.numpy(), others.numpy(), atol=1e-3)


def test_training_killed_and_resumed_is_the_training_that_was_not(config_file, tmp_path, capsys):
    command = ("--config", str(config_file), "training.epochs=6")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", *command, "--run", str(whole)]) == 0

    process = start("train.py", *command, "--run", killed)
    wait_for((killed / "checkpoints" / "last.npz").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "model.keras").exists()

    capsys.readouterr()
    assert main(["train", *command, "--run", str(killed)]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert "--resume" in error.strip().splitlines()[-1]

    assert main(["train", *command, "--run", str(killed), "--resume"]) == 0
    assert re.search(r"resuming after epoch \d", capsys.readouterr().err)
    assert_same_training(killed, whole)


def test_an_interrupted_classifier_resumes_too(config_file, tmp_path):
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    overrides = ["training.epochs=3", "loss=cross_entropy"]
    train(config_file, overrides, run=whole)
    interrupted_after(2, config_file, interrupted, *overrides)
    train(config_file, overrides, run=interrupted, resume=True)
    assert_same_training(interrupted, whole, "classifier")


def test_sigterm_names_the_option_to_resume(config_file, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", "--config", config_file, "training.epochs=500", "--run", folder)
    wait_for((folder / "checkpoints" / "last.npz").exists, process)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate()
    assert process.returncode == 143
    assert output == ""
    last = error.strip().splitlines()[-1]
    assert last.startswith("interrupted; ") and f"kept in {folder}" in last and "--resume" in last
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("library", "number", "status"),
    [("_multiarray_umath", signal.SIGINT, 130), ("libtensorflow_", signal.SIGTERM, 143)],
)
def test_a_signal_while_libraries_are_loaded_is_one_line(
    config_file, tmp_path, library, number, status
):
    process = start("train.py", "--config", config_file, "--run", tmp_path / "run")
    wait_for(lambda: library in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(number)
    output, error = process.communicate()
    assert process.returncode == status
    assert output == ""
    (line,) = error.strip().splitlines()
    assert line.startswith("interrupted; ") and "repeat the command" in line


class CtrlC(keras.callbacks.Callback):
    """Ctrl-C as soon as so many epochs are saved."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.epochs:
            raise KeyboardInterrupt


def interrupted_after(epochs: int, config_file: Path, folder: Path, *overrides: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config_file, overrides, run=folder, callbacks=[CtrlC(epochs)])


def test_an_interrupted_run_may_be_given_more_epochs(config_file, tmp_path, capsys):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    command = ["train", "--config", str(config_file), "--run"]
    assert main([*command, str(whole), "training.epochs=5"]) == 0
    interrupted_after(2, config_file, longer, "training.epochs=3")
    assert main([*command, str(longer), "training.epochs=5"]) == 2
    assert "training.epochs: 5 here, 3 there" in capsys.readouterr().err
    for refused in (["training.epochs=5", "loss.margin=0.7"], ["training.epochs=2"]):
        assert main([*command, str(longer), "--resume", *refused]) == 2
    assert main([*command, str(longer), "--resume", "training.epochs=5"]) == 0
    assert [row["epoch"] for row in history(longer)] == ["1", "2", "3", "4", "5"]
    for ours, theirs in zip(history(longer), history(whole), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-3)
    assert Run.open(longer).config == Run.open(whole).config
    capsys.readouterr()
    assert main([*command, str(longer), "--resume", "training.epochs=9"]) == 2
    assert "has finished" in capsys.readouterr().err


def test_a_schedule_of_all_epochs_keeps_their_number(config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    command.append("schedule=warmup_cosine")
    interrupted_after(1, config_file, folder, "schedule=warmup_cosine", "training.epochs=2")
    assert main([*command, "--resume", "training.epochs=3"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "warmup_cosine" in error
    assert Run.open(folder).config.training.epochs == 2


def test_resuming_without_a_checkpoint_starts_over_with_a_note(config_file, tmp_path, capsys):
    command = [
        "train",
        "--config",
        str(config_file),
        "training.epochs=0",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*command, "--resume"]) == 0
    assert "no checkpoint" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    error = capsys.readouterr().err
    assert "already trained" in error
    assert "no checkpoint" not in error


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
    assert main(["extract", "--run", str(run_folder), "--images", str(many), "--json"]) == 0
    assert extracted() == 2000
    with FeatureStore.open(features) as store:
        stored = dict(zip(store.embeddings().ids, store.embeddings().vectors, strict=True))
    for number in (0, 999, 1999):
        original = sources[number % len(sources)].relative_to(photos).as_posix()
        copy = stored[(many.resolve() / f"{number:04d}.jpg").as_posix()]
        np.testing.assert_allclose(copy, stored[original], atol=1e-5)
