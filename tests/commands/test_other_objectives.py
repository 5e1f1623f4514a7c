"""Classifiers and auto-encoders from end to end: train, evaluate, files in the run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from cbir_tf import Run
from cbir_tf.commands.cli import main
from cbir_tf.data.decode import decode_image
from cbir_tf.models import load_embedder
from cbir_tf.retrieval.run_images import split_images

pytestmark = pytest.mark.slow


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "history.csv").open()))


def pixels_of(folder: Path, split: str) -> tuple[np.ndarray, list[str]]:
    run = Run.open(folder)
    images = split_images(run, split)
    size = run.config.data.image_size
    pixels = np.stack([decode_image(each, size, run.config.data.resize) for each in images.sources])
    names = (*images.class_names, "")  # the last for those without a label
    return pixels, [names[label] for label in images.labels]


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory, config_file) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "run"
    head = "model={backbone: small_cnn, weights: null, hidden: [16], dropout: 0.5}"
    overrides = [head, "model.embedding_size=null", "training.monitor=val_accuracy"]
    command = ["train", "--config", str(config_file), "--run", str(folder), "loss=cross_entropy"]
    assert main([*command, "training.epochs=8", *overrides]) == 0
    return folder


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, photos) -> Path:
    """The photos in one folder, without classes."""
    root = tmp_path_factory.mktemp("unlabelled photos")
    for path in photos.rglob("*.jpg"):
        shutil.copy(path, root / f"{path.parent.name}{path.name}")
    return root


@pytest.fixture(scope="module")
def autoencoder_folder(tmp_path_factory, config_file, unlabelled) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder") / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    overrides = [
        f"data.path={unlabelled}",
        "loss={name: reconstruction, noise: 0.1}",
        "data.batch={size: 6}",
        "data.augmentation=[]",
        "training={epochs: 12}",
    ]
    assert main([*command, *overrides]) == 0
    return folder


def test_a_classifier_learns_and_its_last_hidden_layer_is_the_embedder(classifier_folder, capsys):
    report = json.loads((classifier_folder / "training.json").read_text())
    history = rows(classifier_folder)
    assert {"loss", "val_loss", "val_accuracy", "val_recall@1"} <= history[0].keys()
    assert not any(name.startswith("val_spread") for name in history[0])  # that is of triplets
    assert report["best"]["val_accuracy"] == max(float(row["val_accuracy"]) for row in history)
    assert report["best"]["val_accuracy"] >= 0.85
    config = classifier_folder / "config.yaml"
    assert main(["train", "--config", str(config), "--run", str(classifier_folder)]) == 0
    assert f"val_accuracy {report['best']['val_accuracy']:.4f}" in capsys.readouterr().out
    assert load_embedder(classifier_folder / "model.keras").output_shape == (None, 16)


def test_evaluate_reports_the_accuracy_of_the_saved_classifier(classifier_folder, capsys):
    command = ["evaluate", "--run", str(classifier_folder)]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    pixels, classes = pixels_of(classifier_folder, "test")
    model = keras.saving.load_model(classifier_folder / "classifier.keras")
    names = ["blue", "green", "red"]
    chosen = [names[each] for each in model.predict_on_batch(pixels).argmax(axis=1)]
    accuracy = np.mean([one == other for one, other in zip(chosen, classes, strict=True)])
    assert result["classifier"]["accuracy"] == pytest.approx(accuracy)
    assert result["classifier"]["images"] == len(classes) == 9
    low, high = result["classifier"]["interval"]
    assert low <= accuracy <= high
    kept = json.loads((classifier_folder / "metrics.json").read_text())
    assert kept["test against test"]["classifier"] == result["classifier"]
    assert main([*command, "--gallery", "train"]) == 0
    assert f"classifier: accuracy {accuracy:.4f} (95 %" in capsys.readouterr().out


def test_a_damaged_classifier_is_a_one_line_error(classifier_folder, tmp_path, capsys):
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "run"))
    (folder / "classifier.keras").write_bytes(b"half of a model")
    assert main(["evaluate", "--run", str(folder)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{folder / 'classifier.keras'}: could not be read as a model" in error


def test_a_classifier_of_some_classes_is_watched_by_retrieval_among_others(
    config_file, tmp_path, capsys
):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder), "loss=cross_entropy"]
    split = "data.split={by: class, train: 2, validation: 1, test: 0}"
    assert main([*command, split, "training.epochs=1"]) == 0
    assert {"val_loss", "val_accuracy"}.isdisjoint(rows(folder)[0])
    capsys.readouterr()
    assert main(["evaluate", "--run", str(folder), "--split", "validation", "--json"]) == 0
    assert "classifier" not in json.loads(capsys.readouterr().out)


def test_an_auto_encoder_of_unlabelled_images_beats_their_mean(autoencoder_folder):
    report = json.loads((autoencoder_folder / "training.json").read_text())
    history = rows(autoencoder_folder)
    assert set(history[0]) == {"epoch", "loss", "val_loss"}
    assert report["best"]["val_loss"] == min(float(row["val_loss"]) for row in history)
    held_out, training = (
        pixels_of(autoencoder_folder, split)[0] / 255 for split in ("validation", "train")
    )
    of_the_mean = np.mean((held_out - training.mean(axis=0)) ** 2)
    assert report["best"]["val_loss"] < of_the_mean
    model = keras.saving.load_model(autoencoder_folder / "autoencoder.keras")
    made = model.predict_on_batch((255 * held_out).round().astype(np.uint8))
    error = np.mean((made - held_out) ** 2)
    assert error == pytest.approx(report["best"]["val_loss"], rel=1e-3)


def test_unlabelled_images_are_extracted_and_searched(autoencoder_folder, capsys):
    assert Image.open(autoencoder_folder / "plots" / "reconstructions.png").size[0] > 600
    run = ["--run", str(autoencoder_folder)]
    assert main(["extract", *run, "--split", "all"]) == 0
    capsys.readouterr()
    assert main(["search", *run, "red03.jpg", "-k", "4", "--json"]) == 0
    neighbours = json.loads(capsys.readouterr().out)["neighbours"]
    assert len(neighbours) == 4
    assert main(["evaluate", *run]) == 2
    assert "has no label" in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_auto_encoder_of_labelled_images_is_measured_by_retrieval_too(config_file, tmp_path):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    overrides = ["loss=reconstruction", "training.epochs=1", "data.augmentation=[flip]"]
    assert main([*command, *overrides, "training.monitor=val_map_at_r"]) == 0
    assert set(rows(folder)[0]) == {"epoch", "loss", "val_loss", "val_recall@1", "val_map_at_r"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=cross_entropy"], "none of the 36 images has a label"),
        (["loss=reconstruction", "training.monitor=val_recall@1"], "training.monitor=val_loss"),
        (["loss=reconstruction", "data.batch.sampler=balanced"], "data.batch.sampler=shuffled"),
        (["loss=reconstruction", "data.split.validation=0"], "data.split.validation"),
    ],
)
def test_commands_that_need_labels_are_a_one_line_error_without_them(
    config_file, unlabelled, tmp_path, capsys, overrides, message
):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    assert main([*command, f"data.path={unlabelled}", *overrides]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not folder.exists()
