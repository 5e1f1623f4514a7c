"""Train, extract, search, evaluate on small photos: what a user does, and what must come of it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbir_tf import Config, Retriever, Run
from cbir_tf.commands.cli import main
from cbir_tf.data.decode import decode_image
from cbir_tf.features.store import FeatureStore
from cbir_tf.losses import TripletSemiHardLoss
from cbir_tf.models import load_embedder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_everything_it_promises(trained_folder):
    names = {path.relative_to(trained_folder).as_posix() for path in trained_folder.rglob("*.*")}
    assert names >= {
        "config.yaml",
        "images.csv",
        "model.keras",
        "history.csv",
        "training.json",
        "features.db",
        "plots/samples.png",
        "plots/augmentation.png",
        "plots/loss.png",
        "plots/learning_rate.png",
        "plots/embedding_map.png",
        "plots/embedding_map.html",
        "plots/query_grid.png",
    }
    assert not (trained_folder / "checkpoints").exists()


def test_the_history_has_a_row_an_epoch_with_the_validation_figures(trained_folder):
    rows = list(csv.DictReader((trained_folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {"loss", "val_loss", "val_recall@1", "val_map_at_r"} <= rows[0].keys()


def test_the_stored_config_trains_the_same_model_again(trained_folder, tmp_path):
    again = tmp_path / "again"
    stored = trained_folder / "config.yaml"
    assert main(["train", "--config", str(stored), "--run", str(again)]) == 0
    first, second = (load_embedder(each / "model.keras") for each in (trained_folder, again))
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-4)


def test_stored_vectors_are_those_of_the_saved_model(trained_folder, photos):
    run = Run.open(trained_folder)
    model = load_embedder(run.model)
    with FeatureStore.open(run.features) as store:
        embeddings, records = store.embeddings(), store.records()
    assert len(embeddings) == 36
    for record, vector in list(zip(records, embeddings.vectors, strict=True))[::7]:
        assert record.path == photos / record.id
        pixels = decode_image(record.path, run.config.data.image_size, run.config.data.resize)
        np.testing.assert_allclose(model(pixels[None])[0], vector, atol=1e-5)


def test_extracting_again_changes_nothing(run_folder):
    before = FeatureStore.open(run_folder / "features.db").embeddings().vectors.tobytes()
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    assert FeatureStore.open(run_folder / "features.db").embeddings().vectors.tobytes() == before


def test_search_finds_its_class_and_leaves_the_query_out(trained_folder, capsys):
    command = ["search", "--run", str(trained_folder), "red/03.jpg", "-k", "4", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    neighbours = found["neighbours"]
    assert [each["label"] for each in neighbours] == ["red"] * 4
    assert [each["rank"] for each in neighbours] == [1, 2, 3, 4]
    assert "red/03.jpg" not in [each["id"] for each in neighbours]
    assert neighbours == sorted(neighbours, key=lambda each: (each["distance"], each["id"]))


def test_a_path_into_the_gallery_is_the_stored_image(trained_folder, photos, capsys):
    command = ["search", "--run", str(trained_folder), "--json"]
    main([*command, "red/03.jpg"])
    by_id = json.loads(capsys.readouterr().out)["neighbours"]
    main([*command, str(photos / "red" / "03.jpg")])
    assert json.loads(capsys.readouterr().out)["neighbours"] == by_id


def test_a_photo_from_elsewhere_finds_itself_first(trained_folder, photos, tmp_path, capsys):
    outside = tmp_path / "elsewhere.jpg"
    shutil.copy(photos / "blue" / "05.jpg", outside)
    grid = tmp_path / "grid.png"
    command = ["search", "--run", str(trained_folder), str(outside), "--json", "--grid", str(grid)]
    assert main(command) == 0
    nearest = json.loads(capsys.readouterr().out)["neighbours"][0]
    assert nearest["id"] == "blue/05.jpg"
    assert nearest["distance"] < 1e-6
    assert Image.open(grid).size[0] > 200


def test_the_python_interface_takes_paths_bytes_pixels_ids_and_vectors(trained_folder, photos):
    retriever = Retriever.open(trained_folder)
    data = Config.load(trained_folder / "config.yaml").data
    path = photos / "green" / "00.jpg"
    pixels = decode_image(path, data.image_size, data.resize)
    vector = retriever.encoder.model(pixels[None])[0].numpy()
    for query in (path.read_bytes(), pixels, vector):
        neighbours = retriever.search(query, k=3)
        assert neighbours.ids[0, 0] == "green/00.jpg"
        assert neighbours.distances[0, 0] < 1e-5
    assert retriever.search("green/00.jpg", k=2).ids[0, 0] != "green/00.jpg"


def test_evaluate_prints_one_json_document_and_keeps_it(run_folder, capsys):
    assert main(["evaluate", "--run", str(run_folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["queries"] == 9
    assert result["figures"]["recall@1"] > 0.6
    low, high = result["intervals"]["recall@1"]
    assert low <= result["figures"]["recall@1"] <= high
    assert set(result["per_class"]) == {"red", "green", "blue"}
    main(["evaluate", "--run", str(run_folder), "--gallery", "train", "--json"])
    against_train = json.loads(capsys.readouterr().out)
    assert against_train["gallery"] == 18
    kept = json.loads((run_folder / "metrics.json").read_text())
    assert kept == {"test against test": result, "test against train": against_train}
    assert (run_folder / "plots" / "confusion.png").exists()


@pytest.mark.parametrize("gallery", ["none", "train"])
def test_mistakes_are_drawn_in_either_protocol(config_file, photos, tmp_path, gallery):
    # Labels that have nothing to do with the pictures are bound to be missed.
    lines = [
        f"{path.relative_to(photos).as_posix()},{('odd', 'even')[number % 2]}"
        for number, path in enumerate(sorted(photos.rglob("*.jpg")))
    ]
    shutil.copytree(photos, tmp_path / "photos")
    manifest = tmp_path / "photos" / "manifest.csv"
    manifest.write_text("path,label\n" + "\n".join(lines))
    run = ["--run", str(tmp_path / "run")]
    overrides = [f"data.path={manifest}", "data.batch.classes=2", "training.epochs=0"]
    assert main(["train", "--config", str(config_file), *run, *overrides]) == 0
    assert main(["evaluate", *run, "--gallery", gallery]) == 0
    assert Image.open(tmp_path / "run" / "plots" / "mistakes.png").size[0] > 200


def test_a_folder_of_other_images_is_added_and_its_damaged_files_listed(
    run_folder, photos, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(photos / "red", other)
    (other / "broken.jpg").write_bytes((other / "00.jpg").read_bytes()[:500])
    (other / "empty.png").write_bytes(b"")
    assert main(["extract", "--run", str(run_folder), "--images", str(other), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12
    assert sorted(Path(each).name for each in result["unreadable"]) == ["broken.jpg", "empty.png"]
    with FeatureStore.open(run_folder / "features.db") as store:
        assert len(store.records()) == 36 + 12


def test_damaged_and_odd_files_never_stop_a_run(config_file, photos, tmp_path, capsys):
    root = tmp_path / "odd photos"
    shutil.copytree(photos, root)
    (root / "red" / "empty.jpg").write_bytes(b"")
    (root / "red" / "text.jpg").write_text("no picture")
    (root / "blue" / "truncated.jpg").write_bytes((root / "blue" / "00.jpg").read_bytes()[:700])
    Image.open(root / "blue" / "01.jpg").save(tmp_path / "picture.png")
    shutil.move(tmp_path / "picture.png", root / "blue" / "really_png.jpg")
    Image.new("1", (30_000, 30_000)).save(root / "green" / "huge.png")
    shutil.copy(root / "green" / "02.jpg", root / "green" / "copy.jpg")
    (root / "green" / "notes.txt").write_text("not an image file")
    folder = tmp_path / "run"
    overrides = [f"data.path={root}", "training.epochs=1"]
    command = ["train", "--config", str(config_file), "--run", str(folder), "--json", *overrides]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["damaged"]) == {
        "red/empty.jpg",
        "red/text.jpg",
        "blue/truncated.jpg",
        "green/huge.png",
    }
    with (folder / "images.csv").open() as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    assert table["blue/really_png.jpg"]["damage"] == ""
    assert "megapixels" in table["green/huge.png"]["damage"]
    pair = {"green/02.jpg", "green/copy.jpg"}
    split_apart = len({table[each]["split"] for each in pair}) == 2
    reported = any({each["id"], each["other_id"]} == pair for each in report["duplicates"])
    assert reported == split_apart


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--restart", "--config", "{config}"],
        ["extract", "--images", "{photos}"],
        ["evaluate"],
    ],
)
def test_a_full_disk_is_a_one_line_error_with_status_2(run_folder, config_file, photos, arguments):
    # The kernel refuses to grow any file beyond the limit, as it does when the disk is full.
    program = (
        "import resource, signal, sys; from cbir_tf.commands.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.exit(main(sys.argv[1:]))"
    )
    arguments = [each.format(config=config_file, photos=photos) for each in arguments]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--run", str(run_folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    if arguments[0] != "train":
        assert main(["search", "--run", str(run_folder), "red/03.jpg"]) == 0


def test_training_a_finished_run_again_needs_restart(run_folder, config_file, capsys):
    before = (run_folder / "model.keras").read_bytes()
    command = ["train", "--config", str(config_file), "--run", str(run_folder)]
    assert main(command) == 0
    assert (run_folder / "model.keras").read_bytes() == before
    assert "already trained" in capsys.readouterr().err
    assert main([*command, "training.epochs=1", "--restart"]) == 0
    assert len(list(csv.DictReader((run_folder / "history.csv").open()))) == 1
    assert not (run_folder / "features.db").exists()


def test_optimizer_options_and_tensorboard(config_file, tmp_path):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder), "training.epochs=2"]
    options = ["name: adamw", "weight_decay: 1e-3", "clip_norm: 1.0", "average: 0.9"]
    overrides = [f"optimizer={{{', '.join(options)}}}", "training.tensorboard=true"]
    assert main([*command, *overrides, "schedule=warmup_cosine"]) == 0
    assert list((folder / "logs").rglob("events.out.tfevents.*"))


def test_early_stopping_ends_a_training_that_does_not_improve(config_file, tmp_path):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    overrides = ["training.epochs=50", "optimizer.learning_rate=1e-12"]
    stop = ["training.early_stopping.patience=2", "training.early_stopping.min_delta=0.001"]
    assert main([*command, *overrides, *stop]) == 0
    assert len(list(csv.DictReader((folder / "history.csv").open()))) == 3


def test_the_bit_hyperrule_brings_optimizer_and_length(config_file, tmp_path):
    folder = tmp_path / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    assert main([*command, "schedule={name: bit_hyperrule, length: 10}"]) == 0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == 10
    # Batches of 12: peak .003 * 12 / 512, divided by 10 three times by the end.
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.003 * 12 / 512 / 1000)


def test_frozen_features_need_no_training(config_file, tmp_path):
    folder = tmp_path / "frozen"
    command = ["train", "--config", str(config_file), "--run", str(folder)]
    assert main([*command, "training.epochs=0", "model.embedding_size=null"]) == 0
    assert main(["evaluate", "--run", str(folder)]) == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone=mobilenet_v3"], "mobilenet"),
        (["model.weights=missing.weights.h5"], "missing.weights.h5"),
        (["data.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["data.split.train=500"], "500"),
        (["model.trainable=no_such_layer"], "no_such_layer"),
        (["model.trainable=head", "model.embedding_size=null"], "nothing to train"),
        (["model.options={alpha: 2}"], "alpha"),
        (["loss.margn=1"], "margin"),
        (["data.split.validation=0"], "data.split.validation"),
    ],
)
def test_wrong_input_to_train_is_a_one_line_error_and_leaves_no_folder(
    config_file, tmp_path, capsys, overrides, message
):
    folder = tmp_path / "run"
    status = main(["train", "--config", str(config_file), "--run", str(folder), *overrides])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("error: ")
    assert message in error
    assert not folder.exists()


def test_a_run_of_another_config_is_refused_and_stays(run_folder, config_file, capsys):
    before = (run_folder / "model.keras").read_bytes()
    command = ["train", "--config", str(config_file), "--run", str(run_folder), "loss.margin=0.7"]
    assert main(command) == 2
    assert "loss.margin: 0.7 here, 0.2 there" in capsys.readouterr().err
    assert (run_folder / "model.keras").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "red/03.jpg", "-k", "36"], "35"),
        (["search", "red/03.jpg", "-k", "0"], "k"),
        (["search", "red/99.jpg"], "red/99.jpg"),
        (["search", "{config}"], "not a JPEG"),
        (["search", "{empty}"], "empty"),
        (["search", "{folder}"], "{folder}"),
        (["extract", "--images", "{folder}"], "{folder}"),
        (["extract", "--images", "{folder}/missing"], "missing"),
        (["evaluate", "--split", "test", "--run", "{folder}"], "no run there"),
    ],
)
def test_wrong_input_is_a_one_line_error_with_status_2(
    trained_folder, config_file, tmp_path, capsys, arguments, message
):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    folder = tmp_path / "void"
    folder.mkdir()
    places = {"config": config_file, "empty": empty, "folder": folder}
    arguments = [each.format(**places) for each in arguments]
    if "--run" not in arguments:
        arguments += ["--run", str(trained_folder)]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    error = output.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message.format(**places) in error


def test_features_of_an_earlier_model_are_refused(run_folder, capsys):
    with (run_folder / "model.keras").open("ab") as file:
        file.write(b"\0")
    assert main(["search", "--run", str(run_folder), "red/03.jpg"]) == 2
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.yaml", ["search", "red/03.jpg"]),
        ("images.csv", ["extract"]),
        ("model.keras", ["extract"]),
        ("training.json", ["extract"]),
        ("training.json", ["train", "--config", "{config}"]),
        ("features.db", ["search", "red/03.jpg"]),
        ("metrics.json", ["evaluate"]),
    ],
)
def test_a_damaged_file_of_the_run_is_named(run_folder, config_file, capsys, name, command):
    (run_folder / name).write_text('{"half": ')
    (run_folder / "features.db-wal").unlink(missing_ok=True)
    command = [each.format(config=config_file) for each in command]
    assert main([*command, "--run", str(run_folder)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert name in error


def test_ranks_beyond_a_small_gallery_are_left_out(run_folder, capsys):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("  - 2\n", "  - 2\n  - 50\n"))
    assert Run.open(run_folder).config.evaluation.k == (1, 2, 50)
    assert main(["evaluate", "--run", str(run_folder), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert "recall@2" in figures
    assert "recall@50" not in figures


def test_a_folder_of_unreadable_images_changes_nothing(run_folder, tmp_path, capsys):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "one.jpg").write_text("no picture")
    before = (run_folder / "plots" / "embedding_map.png").read_bytes()
    assert main(["extract", "--run", str(run_folder), "--images", str(folder)]) == 2
    assert "none of the 1 images" in capsys.readouterr().err
    assert (run_folder / "plots" / "embedding_map.png").read_bytes() == before


def test_a_photo_that_has_gone_is_still_found(run_folder, photos, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(photos / "red", moved)
    assert main(["extract", "--run", str(run_folder), "--images", str(moved)]) == 0
    (moved / "00.jpg").unlink()
    grid = tmp_path / "grid.png"
    command = ["search", "--run", str(run_folder), "red/00.jpg", "--grid", str(grid)]
    assert main(command) == 0
    assert grid.exists()


def test_the_training_step_is_traced_once(config_file, tmp_path, monkeypatch):
    traced = []

    def call(self, y_true, y_pred, original=TripletSemiHardLoss.call):
        if not tf.executing_eagerly():
            traced.append(y_pred.shape)
        return original(self, y_true, y_pred)

    monkeypatch.setattr(TripletSemiHardLoss, "call", call)
    command = ["train", "--config", str(config_file), "--run", str(tmp_path / "run")]
    assert main([*command, "training.epochs=1"]) == 0
    assert len(traced) == 1
