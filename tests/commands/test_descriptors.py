"""Runs of classical features: trained, extracted, searched, measured, as any run is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cbir_tf import Config, Retriever
from cbir_tf.commands.cli import main
from cbir_tf.data.decode import decode_image
from cbir_tf.errors import UserError
from cbir_tf.features.descriptors import Descriptors
from cbir_tf.features.store import FeatureStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def descriptors_file(tmp_path_factory, photos):
    path = tmp_path_factory.mktemp("configs") / "words.yaml"
    path.write_text(
        f"""
data:
  source: folder
  path: "{photos}"
  image_size: 32
  split: {{by: stratified, train: 0.5, validation: 0.25, test: null}}
  batch: {{size: 4}}
descriptors:
  - {{name: visual_words, words: [8, 16], grid: 4}}
  - color_histogram
evaluation: {{bootstrap: 100, k: [1, 2]}}
plots: {{layout: pca, queries: 3}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def fitted_folder(tmp_path_factory, descriptors_file):
    folder = tmp_path_factory.mktemp("runs") / "words"
    assert main(["train", "--config", str(descriptors_file), "--run", str(folder)]) == 0
    assert main(["extract", "--run", str(folder), "--split", "all"]) == 0
    return folder


@pytest.fixture
def words_folder(tmp_path, fitted_folder):
    """A copy that a test may change."""
    return Path(shutil.copytree(fitted_folder, tmp_path / "words"))


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_of_descriptors_has_an_open_file_for_a_model(fitted_folder):
    names = {path.name for path in fitted_folder.iterdir()}
    assert {"config.yaml", "images.csv", "model.npz", "training.json", "features.db"} <= names
    assert not {"model.keras", "history.csv", "checkpoints", "model.onnx"} & names
    report = json.loads((fitted_folder / "training.json").read_text())
    words, colours = report["descriptors"]
    assert (
        words["words"]
        == words["dimensions"]
        == min((8, 16), key=lambda size: words["davies_bouldin"][str(size)])
    )
    assert colours == {"name": "color_histogram", "dimensions": 512}
    assert report["dimensions"] == words["dimensions"] + 512
    assert report["class_names"] == ["blue", "green", "red"]


def test_trained_again_from_the_stored_configuration_it_is_the_same_file(
    fitted_folder, tmp_path, capsys
):
    again = tmp_path / "again"
    stored = fitted_folder / "config.yaml"
    assert main(["train", "--config", str(stored), "--run", str(again)]) == 0
    assert (again / "model.npz").read_bytes() == (fitted_folder / "model.npz").read_bytes()
    printed = capsys.readouterr().out
    assert "color_histogram: 512 dimensions" in printed
    assert "Davies-Bouldin index 8: " in printed
    assert str(again / "model.npz") in printed


def test_stored_vectors_are_those_of_the_file(fitted_folder):
    data = Config.load(fitted_folder / "config.yaml").data
    encoder = Descriptors.load(fitted_folder / "model.npz")
    with FeatureStore.open(fitted_folder / "features.db") as store:
        embeddings, records = store.embeddings(), store.records()
    assert len(embeddings) == 36
    for record, vector in list(zip(records, embeddings.vectors, strict=True))[::7]:
        pixels = decode_image(record.path, data.image_size, data.resize)
        np.testing.assert_allclose(encoder(pixels[None])[0], vector, atol=1e-6)


def test_search_by_id_path_and_a_photo_from_elsewhere_without_tensorflow(
    fitted_folder, photos, tmp_path
):
    outside = tmp_path / "elsewhere.jpg"
    shutil.copy(photos / "blue" / "05.jpg", outside)
    program = (
        "import sys\nfrom cbir_tf.commands.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "assert 'tensorflow' not in sys.modules\nsys.exit(status)"
    )
    found = []
    for query in ("blue/05.jpg", str(photos / "blue" / "05.jpg"), str(outside)):
        command = ["search", "--run", str(fitted_folder), query, "-k", "3", "--json"]
        result = subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout)["neighbours"])
    assert found[0] == found[1]
    assert [each["label"] for each in found[0]] == ["blue"] * 3
    assert found[2][0]["id"] == "blue/05.jpg"
    assert found[2][0]["distance"] < 1e-6


def test_the_python_interface_takes_pixels_of_any_size_and_has_no_keras_model(fitted_folder):
    retriever = Retriever.open(fitted_folder)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert retriever.search(pixels, k=2).ids.shape == (1, 2)
    with pytest.raises(UserError, match=r"model\.npz: descriptors are no Keras model"):
        _ = retriever.encoder.model


def test_evaluate_and_compare_with_a_trained_embedding(
    words_folder, trained_folder, tmp_path, capsys
):
    assert main(["evaluate", "--run", str(words_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["recall@1"] > 0.6
    command = ["compare", str(words_folder), str(trained_folder), "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    dimensions = json.loads((words_folder / "training.json").read_text())["dimensions"]
    assert [row["dimensions"] for row in rows] == [dimensions, 8]


def test_extraction_killed_and_started_again_ends_with_the_same_store(words_folder):
    store = words_folder / "features.db"
    with FeatureStore.open(store) as before:
        expected, records = before.embeddings(), before.records()
    store.unlink()
    command = [sys.executable, "extract.py", "--run", str(words_folder), "--split", "all"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if store.is_file() and store.with_name("features.db-wal").is_file():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.wait()
    assert process.returncode in (-signal.SIGKILL, 0)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with FeatureStore.open(store) as after:
        assert after.records() == records
        assert after.embeddings().vectors.tobytes() == expected.vectors.tobytes()


@pytest.mark.parametrize("content", [b"", b"half of a file"])
def test_a_damaged_model_is_a_one_line_error(words_folder, capsys, content):
    (words_folder / "model.npz").write_bytes(content)
    for command in (["search", "red/00.jpg"], ["extract"], ["evaluate"]):
        verb, *rest = command
        assert main([verb, "--run", str(words_folder), *rest]) == 2
        assert f"{words_folder / 'model.npz'}: damaged" in last_line(capsys)


def test_without_opencv_nothing_is_begun(descriptors_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    folder = tmp_path / "run"
    assert main(["train", "--config", str(descriptors_file), "--run", str(folder)]) == 2
    assert "pip install 'cbir-tf[opencv]'" in last_line(capsys)
    assert not folder.exists()


def test_too_few_keypoints_leave_a_run_that_is_not_trained(descriptors_file, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "--config", str(descriptors_file), "--run", str(folder)]
    words = "descriptors=[{name: visual_words, words: 5000}]"
    assert main([*command, words]) == 2
    assert "too few for 5000 words; set fewer words" in last_line(capsys)
    assert not (folder / "model.npz").exists()
    assert main(["extract", "--run", str(folder)]) == 2
    assert main([*command, "--restart"]) == 0
    assert (folder / "model.npz").exists()


def test_a_run_of_descriptors_restarted_as_an_embedder_keeps_no_file_of_it(
    words_folder, config_file, capsys
):
    command = ["train", "--config", str(config_file), "--run", str(words_folder), "--restart"]
    assert main([*command, "training.epochs=0"]) == 0
    assert (words_folder / "model.keras").exists()
    assert not (words_folder / "model.npz").exists()
    assert os.listdir(words_folder / "plots")
