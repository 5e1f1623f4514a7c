"""Keys that the model or the stored vectors depend on are refused when they are edited later."""

from __future__ import annotations

import json

import pytest
import yaml

from cbir_tf import Retriever, UserError, evaluate, extract
from cbir_tf.commands.cli import main
from cbir_tf.config import Config
from cbir_tf.config.fixed import CHANGEABLE, fixed_values
from cbir_tf.config.parsing import flat
from cbir_tf.retrieval.opening import trained_run

pytestmark = pytest.mark.slow


def edit(folder, key: str, value: object) -> None:
    """Change one key of a run's config.yaml, as by hand."""
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text())
    *sections, name = key.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[name] = value
    path.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 64),
        ("data.resize", "letterbox"),
        ("data.split.train", 0.6),
        ("data.augmentation", []),
        ("model.embedding_size", 16),
        ("model.normalize", False),
        ("model.backbone", "mobilenet_v2"),
        ("model.preprocessing", "caffe"),
        ("loss.margin", 0.5),
        ("training.epochs", 9),
        ("training.precision", "mixed_bfloat16"),
        ("seed", 3),
    ],
)
def test_an_edited_key_of_the_model_is_named_with_both_values(run_folder, photos, key, value):
    before = yaml.safe_load((run_folder / "config.yaml").read_text())
    edit(run_folder, key, value)
    with pytest.raises(UserError, match="put it back") as error:
        Retriever.open(run_folder)
    assert key in str(error.value) and "\n" not in str(error.value)
    for do in (trained_run, evaluate, lambda run: extract(run, folder=photos)):
        with pytest.raises(UserError, match=key.replace(".", r"\.")):
            do(run_folder)
    (run_folder / "config.yaml").write_text(yaml.safe_dump(before))
    with Retriever.open(run_folder) as retriever:
        assert retriever.search(photos / "red" / "03.jpg", 1).distances[0, 0] < 1


def test_the_commands_refuse_it_in_one_line(run_folder, photos, capsys):
    edit(run_folder, "data.image_size", [64, 64])
    for command in (["search", str(photos / "red" / "00.jpg")], ["evaluate"], ["calibrate"]):
        assert main([*command, "--run", str(run_folder)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "data.image_size is [64, 64]" in error and "[32, 32]" in error


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("search.dtype", "float16", "search.dtype"),
        ("search.test_time_augmentation", "flip", "test-time augmentation"),
        ("search.test_time_scales", [1.0, 0.5], "test-time augmentation"),
    ],
)
def test_a_key_of_the_stored_vectors_is_refused_until_the_store_is_moved_away(
    run_folder, key, value, words
):
    edit(run_folder, key, value)
    for do in (Retriever.open, evaluate, lambda run: extract(run, draw=False)):
        with pytest.raises(UserError, match=words) as error:
            do(run_folder)
        assert "move the file away" in str(error.value)
    for file in run_folder.glob("features.db*"):
        file.rename(run_folder / f"moved-{file.name}")
    assert extract(run_folder, draw=False).stored == 9


def test_what_neither_depends_on_may_change(run_folder, photos, tmp_path):
    moved = photos.rename(photos.with_name("moved photos"))
    try:
        for key, value in [
            ("name", "another"),
            ("data.path", str(moved)),
            ("data.licence", "CC0-1.0"),
            ("data.batch.size", 8),
            ("search.k", 3),
            ("search.metric", "euclidean"),
            ("search.whiten", 0.5),
            ("evaluation.bootstrap", 0),
            ("plots.queries", 2),
            ("server.rate", 9),
        ]:
            edit(run_folder, key, value)
        assert evaluate(run_folder)["queries"] == 9
    finally:
        moved.rename(photos)


def test_a_run_without_the_record_is_opened(run_folder):
    path = run_folder / "training.json"
    report = json.loads(path.read_text())
    assert report.pop("fixed_keys")["data.image_size"] == [32, 32]
    path.write_text(json.dumps(report))
    Retriever.open(run_folder).close()


def test_every_changeable_key_is_one_of_the_configuration():
    config = Config.check({"data": {"source": "digits"}})
    every = flat(config.model_dump(mode="json"))
    fixed = fixed_values(config)
    for name in CHANGEABLE:
        of_name = [key for key in every if f"{key}.".startswith(f"{name}.")]
        assert of_name and not fixed.keys() & set(of_name), name
