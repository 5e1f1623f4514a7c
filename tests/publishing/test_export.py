"""Every export makes Keras' embeddings, near enough, or is not kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cbir_tf import Run
from cbir_tf.commands.cli import main
from cbir_tf.data.batches import inference_batches
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import open_encoder
from cbir_tf.models import load_embedder
from cbir_tf.publishing import export, export_report
from cbir_tf.publishing.export import FORMATS, Format, Source
from cbir_tf.publishing.export_report import _compare, export_all, format_exports
from cbir_tf.retrieval.extraction import split_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)
VECTORS = np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)


def compared(name: str, vectors: np.ndarray) -> export_report.Exported:
    rows = {image.tobytes(): vector for image, vector in zip(PIXELS, vectors, strict=True)}
    encoder = lambda pixels: np.stack([rows[each.tobytes()] for each in pixels])  # noqa: E731
    return _compare(name, Path(__file__), encoder, PIXELS, VECTORS)


def test_figures_of_a_comparison():
    exact = compared("onnx", VECTORS)
    assert exact.kept and (exact.largest_difference, exact.same_nearest) == (0, 1)
    # A vector at a right angle to what it should be: cosine 0 of one, so 5 / 6 in the mean.
    moved = VECTORS.copy()
    moved[2] = 0
    moved[2, :2] = [-VECTORS[2, 1], VECTORS[2, 0]]
    found = compared("onnx-int8", moved)
    assert found.least_cosine == pytest.approx(0, abs=1e-6)
    assert found.cosine == pytest.approx(5 / 6, abs=1e-6)
    assert found.largest_difference == pytest.approx(np.abs(moved - VECTORS).max())
    assert not found.kept
    assert found.megabytes == Path(__file__).stat().st_size / 1e6


@pytest.mark.parametrize(("noise", "kept"), [(0.0, True), (0.1, False), (np.nan, False)])
def test_what_does_not_agree_is_not_kept(noise, kept):
    changed = VECTORS + np.float32(noise) * np.roll(VECTORS, 1, axis=1)
    assert compared("litert", changed).kept == kept


def test_a_model_that_finds_other_neighbours_is_not_said_to_be_as_keras():
    row = compared("onnx-int8", VECTORS)
    assert row.neighbours == "as Keras"
    for same, kept, words in [(0.87, True, "others"), (0.995, True, "as Keras"), (1, False, "del")]:
        table = format_exports([dataclasses.replace(row, same_nearest=same, kept=kept)])
        last = table.splitlines()[-1].split("|")
        assert f"{same:.1%}" in last[-3] and words in last[-2]
        assert "yes" not in table


@pytest.mark.slow
def test_a_run_in_all_formats(run_folder, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    command = ["release", "export", "--run", str(run_folder), "--to", str(tmp_path / "to")]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["format"] for row in rows] == ["keras", *FORMATS]
    assert all(row["kept"] for row in rows), rows
    assert {each.name for each in (tmp_path / "to").iterdir()} == {row["file"] for row in rows[1:]}
    # Read back from the files, by the images that verify them and by us.
    run = Run.open(run_folder)
    images = split_images(run, "test")
    ((pixels, _),) = inference_batches(images, run.config.data)
    reference = load_embedder(run.model).predict_on_batch(pixels)
    for name, chosen in FORMATS.items():
        vectors = chosen.read(tmp_path / "to" / chosen.name)(pixels.numpy())
        assert vectors.shape == reference.shape and vectors.dtype == np.float32
        cosines = (vectors * reference).sum(axis=1)  # of unit vectors
        assert cosines.min() > (0.9 if name.endswith("int8") else 0.99999), name
    sizes = {row["format"]: row["megabytes"] for row in rows}
    assert sizes["onnx-int8"] < 0.5 * sizes["onnx"]
    assert sizes["litert-int8"] < 0.5 * sizes["litert"]
    assert "| litert-int8 |" in format_exports([export_report.Exported(**row) for row in rows])


@pytest.mark.slow
def test_an_export_that_embeds_otherwise_is_deleted(run_folder, tmp_path, monkeypatch):
    def write(source: Source, path: Path) -> None:
        path.write_bytes(b"x")

    other = Format("model.other", write, lambda path: lambda pixels: np.ones((len(pixels), 8)))
    monkeypatch.setitem(export.FORMATS, "other", other)
    run = Run.open(run_folder)
    images = split_images(run, "train")
    rows = export_all(run, images, images, ["other"], tmp_path)
    assert [row.kept for row in rows] == [True, False]
    assert not (tmp_path / "model.other").exists()

    def fails(source: Source, path: Path) -> None:
        raise RuntimeError("no such operation\nand a long story")

    monkeypatch.setitem(export.FORMATS, "other", Format("model.other", fails, open_encoder))
    with pytest.raises(
        UserError, match=r"model\.other: could not be converted: no such operation$"
    ):
        export_all(run, images, images, ["other"], tmp_path)
