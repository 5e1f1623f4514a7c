"""A search of hyper-parameters: its trials are runs, its folder tells of them, kills do no harm."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cbir_tf import Config, Run
from cbir_tf.commands.cli import main

pytest.importorskip("optuna")

ROOT = Path(__file__).parents[2]
SPACE = ("optimizer.learning_rate=1e-4..1e-2 log", "model.hidden=[]|[8]")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def best_of(run: Run) -> float:
    """The highest monitored value, from the run's own history."""
    with run.history.open() as file:
        return max(float(row[run.config.training.monitor]) for row in csv.DictReader(file))


def standing(folder: Path, number: int) -> tuple[float, float, int]:
    """MAP@R of a trial, then its loss, then its number, the best the largest."""
    best = json.loads((folder / f"trial-{number:03d}" / "training.json").read_text())["best"]
    return best["val_map_at_r"], -best["val_loss"], -number


def test_mistakes_are_a_one_line_error_and_leave_nothing(config_file, tmp_path, capsys):
    folder = tmp_path / "search"
    command = ["tune", "--config", str(config_file), "--run", str(folder)]
    for overrides, words in {
        (): "nothing to tune",
        ("loss.margn=0..1",): "did you mean 'margin'",
        (SPACE[0], "training.epoch=3"): "did you mean 'epochs'",
    }.items():
        assert main([*command, *overrides]) == 2
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "\n" not in error
    assert not folder.exists()
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    assert main([*command, *SPACE]) == 2
    assert "no tuning" in capsys.readouterr().err


def test_without_optuna_the_error_names_the_package_to_install(config_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "--config", str(config_file), *SPACE]) == 2
    assert "pip install 'cbir-tf[tune]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_killed_and_started_again_is_the_search_that_was_not(
    config_file, tmp_path, capsys
):
    killed = tmp_path / "killed"
    command = ["tune", "--config", str(config_file), *SPACE, "training.epochs=3", "--run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cbir_tf", *command, str(killed), "--trials", "2"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 1200
    while not (killed / "trial-001" / "checkpoints" / "last.npz").is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first_model = (killed / "trial-000" / "model.keras").stat()

    assert main([*command, str(killed), "--trials", "2"]) == 0
    captured = capsys.readouterr()
    assert "resuming after epoch" in captured.err
    assert captured.err.count("trial 0:") == 0
    whole = tmp_path / "whole"
    assert main([*command, str(whole), "--trials", "2", "--keep-models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    runs = [Run.open(whole / f"trial-{number:03d}") for number in range(2)]
    assert [row["value"] for row in document["trials"]] == [best_of(run) for run in runs]
    assert all(run.trained for run in runs)
    best = max(range(2), key=lambda number: standing(whole, number))
    assert document["best"] == best
    chosen = Config.load(whole / "best.yaml")
    assert chosen.model == runs[best].config.model
    assert chosen.optimizer == runs[best].config.optimizer

    for ours, theirs in zip(table(killed), table(whole), strict=True):
        assert [ours[key.partition("=")[0]] for key in SPACE] == [
            theirs[key.partition("=")[0]] for key in SPACE
        ]
        assert float(ours["val_map_at_r"]) == pytest.approx(float(theirs["val_map_at_r"]), abs=0.12)
    kept = [run.parent.name for run in killed.glob("*/model.keras")]
    winner = max(range(2), key=lambda number: standing(killed, number))
    assert kept == [f"trial-{winner:03d}"]
    if kept == ["trial-000"]:
        assert (killed / "trial-000" / "model.keras").stat().st_mtime_ns == first_model.st_mtime_ns

    assert main([*command, str(killed), "model.pooling=max|gem"]) == 2
    assert "another tuning" in capsys.readouterr().err
    (killed / "notes.txt").write_text("mine")
    again = [*command, str(killed), "optimizer.momentum=0.1..0.9", "--restart", "--trials", "1"]
    assert main(again) == 0
    assert len(table(killed)) == 1
    assert not (killed / "trial-001").exists()
    assert (killed / "notes.txt").is_file()


@pytest.mark.slow
def test_a_trial_that_diverges_does_not_end_the_search(config_file, tmp_path, capsys):
    folder = tmp_path / "search"
    command = ["tune", "--config", str(config_file), "optimizer.name=sgd", "training.epochs=2"]
    rates = "optimizer.learning_rate=1e30|1e-3"
    assert main([*command, rates, "--run", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in document["trials"]] == ["failed", "complete"]
    assert "diverged" in document["trials"][0]["reason"]
    assert document["best"] == 1
