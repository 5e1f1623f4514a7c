"""`cbir_tf.train` in a program of one's own: the command's work as a function."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import cbir_tf
from cbir_tf import Config, Run, UserError
from cbir_tf.models import load_embedder

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "name": "tiny",
    "data": {"source": "digits", "image_size": 16, "split": {"by": "stratified"}},
    "model": {"backbone": "small_cnn", "options": {"width": 4}, "weights": None},
    "training": {"epochs": 1, "steps_per_epoch": 3},
}


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C as soon as so many epochs are saved."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None) -> None:
        if epoch + 1 == self.epochs:
            raise KeyboardInterrupt


def history(run: Run) -> list[dict[str, str]]:
    with run.history.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    return cbir_tf.train(SETTINGS, run=tmp_path_factory.mktemp("runs") / "trained")


def test_a_run_holds_its_files_and_is_what_run_open_opens(trained):
    assert trained.trained
    assert {path.name for path in trained.folder.iterdir()} == {
        "config.yaml",
        "images.csv",
        "model.keras",
        "history.csv",
        "training.json",
        "plots",
    }
    assert Run.open(trained.folder) == trained
    report = json.loads(trained.training.read_text())
    assert (report["epochs"], report["best_epoch"]) == (1, 1)
    assert report["best"]["val_recall@1"] == float(history(trained)[0]["val_recall@1"])
    assert len(report["class_names"]) == 10
    with trained.images.open() as file:
        assert len(list(csv.DictReader(file))) == 1797
    embeddings = load_embedder(trained.model)(np.zeros((2, 16, 16, 3), np.uint8))
    assert embeddings.shape == (2, 128)


def test_nothing_is_printed_and_a_trained_run_is_returned_unchanged(trained, capfd):
    before = trained.model.read_bytes()
    capfd.readouterr()
    assert cbir_tf.train(SETTINGS, run=trained.folder) == trained
    assert trained.model.read_bytes() == before
    assert capfd.readouterr().out == ""
    retrained = cbir_tf.train(SETTINGS, run=trained.folder, restart=True)
    assert retrained.trained
    assert capfd.readouterr().out == ""


def test_file_mapping_and_config_are_the_same_configuration(tmp_path, trained):
    """A run of an equal configuration is accepted as finished; of any other it would be refused."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    for config in (path, str(path), Config.check(SETTINGS)):
        assert cbir_tf.train(config, run=trained.folder) == trained
        with pytest.raises(UserError, match=r"loss\.margin: 0\.7 here, 0\.2 there"):
            cbir_tf.train(config, ["loss.margin=0.7"], run=trained.folder)
    assert SETTINGS["training"] == {"epochs": 1, "steps_per_epoch": 3}


def test_an_interrupted_run_is_resumed_or_restarted_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    three = ["training.epochs=3"]
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        cbir_tf.train(SETTINGS, three, run=folder, callbacks=[Interrupt(2)])
    assert not Run.open(folder).trained
    with pytest.raises(UserError, match="--resume"):
        cbir_tf.train(SETTINGS, three, run=folder)
    with pytest.raises(UserError, match="give one"):
        cbir_tf.train(SETTINGS, three, run=folder, resume=True, restart=True)
    resumed = cbir_tf.train(SETTINGS, three, run=folder, resume=True)
    whole = cbir_tf.train(SETTINGS, three, run=tmp_path / "whole")
    for ours, theirs in zip(history(resumed), history(whole), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-3)
    again = cbir_tf.train(SETTINGS, run=folder, restart=True)
    assert len(history(again)) == 1
    assert not again.checkpoints.exists()


def test_a_run_begun_with_a_former_default_goes_on_with_it(tmp_path):
    folder = tmp_path / "run"
    two = ["training.epochs=2"]
    with pytest.raises(KeyboardInterrupt):
        cbir_tf.train(
            SETTINGS, [*two, "training.monitor=val_recall@1"], run=folder, callbacks=[Interrupt(1)]
        )
    with pytest.raises(
        UserError, match=r"training\.monitor: 'val_loss' here, 'val_recall@1' there"
    ):
        cbir_tf.train(SETTINGS, [*two, "training.monitor=val_loss"], run=folder, resume=True)
    resumed = cbir_tf.train(SETTINGS, two, run=folder, resume=True)
    assert resumed.config.training.monitor == "val_recall@1" and len(history(resumed)) == 2
    assert cbir_tf.train(SETTINGS, two, run=folder).trained
    again = cbir_tf.train(SETTINGS, two, run=folder, restart=True)
    assert again == Run.open(folder) and again.config.training.monitor == "val_map_at_r"


def test_the_precision_of_a_run_does_not_outlive_it(tmp_path):
    before = keras.config.dtype_policy()
    settings = {**SETTINGS, "training": {**SETTINGS["training"], "precision": "mixed_bfloat16"}}
    cbir_tf.train(settings, run=tmp_path / "run")
    assert keras.config.dtype_policy() == before


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        ({"loss": {"margn": 1}}, {}, "margin"),
        ({"name": ""}, {}, "name"),
        ({"model": {"backbone": "mobilenet_v3"}}, {"run": "run"}, "mobilenet"),
        ({}, {"run": "s3://bucket/run"}, "cbir train --run s3://bucket/run"),
        ({}, {"overrides": ["seed"]}, "section.key=value"),
        ({"model": {}, "training": {}, "descriptors": "hog"}, {"callbacks": [1]}, "callbacks"),
    ],
)
def test_a_mistake_is_a_one_line_error_and_makes_no_folder(
    tmp_path, monkeypatch, settings, arguments, words
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        cbir_tf.train({**SETTINGS, **settings}, **arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_names_are_imported_when_they_are_used():
    program = (
        "import sys, cbir_tf, cbir_tf.training, cbir_tf.commands.cli\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        "import cbir_tf.training.from_config, cbir_tf.training.fit\n"
        "from cbir_tf.training import WarmupDecay, BiTHyperRule, train\n"
        "assert train is cbir_tf.train and callable(train)\n"
        "from callbacks import WarmupDecay as short\n"
        "assert short is WarmupDecay\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
