"""cbir export and import: vectors leave and enter unchanged, and only where they belong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore

FORMATS = ["npz", "parquet"]


@pytest.fixture
def described(run_folder, photos) -> Path:
    """A run whose images have metadata, with a further folder of one class as a gallery."""
    folder = run_folder.parent / "more"
    folder.mkdir()
    lines = ["path,label,year,note"]
    for number, file in enumerate(sorted(photos.rglob("*.jpg"))[:4]):
        (folder / f"{number}.jpg").write_bytes(file.read_bytes() + b"\0" * (number + 1))
        lines.append(f'{number}.jpg,café,{2000 + number},"a, ""b""	c"')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert main(["extract", "--run", str(run_folder), "--images", str(folder), "--no-map"]) == 0
    return run_folder


def contents(run: Path, gallery: str | None = None):
    with FeatureStore.open(run / "features.db") as store:
        found = store.embeddings()
        vectors = dict(zip(found.ids.tolist(), found.vectors, strict=True))
        return {
            each.id: (
                (*store.class_names, None)[each.label],
                each.split,
                dict(each.metadata),
                each.digest,
                each.path,
                vectors[each.id].tolist(),
            )
            for each in store.records()
            if gallery in (None, each.gallery)
        }


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_exported_comes_back_the_same(described, tmp_path, suffix, capsys):
    pytest.importorskip("pyarrow")
    file = tmp_path / f"vectors.{suffix}"
    assert main(["export", "--run", str(described), "--to", str(file)]) == 0
    empty = tmp_path / "empty"
    shutil.copytree(described, empty)
    (empty / "features.db").unlink()
    assert main(["import", str(file), "--run", str(empty)]) == 0
    assert contents(empty) == contents(described)
    assert contents(empty, "more") == contents(described, "more")
    assert len(contents(empty, "vectors")) == len(contents(described, "run"))
    query = next(iter(contents(described)))
    capsys.readouterr()
    answers = []
    for run in (described, empty):
        assert main(["search", "--run", str(run), query, "-k", "3", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["neighbours"])
    assert answers[0] == answers[1]


def test_the_arrays_are_those_of_the_documentation(described, tmp_path):
    file = tmp_path / "vectors.npz"
    assert main(["export", "--run", str(described), "--to", str(file)]) == 0
    with np.load(file, allow_pickle=False) as arrays:
        rows = len(arrays["ids"])
        assert arrays["vectors"].shape == (rows, 8) or arrays["vectors"].shape[0] == rows
        for name in ("labels", "splits", "galleries", "paths", "digests", "metadata"):
            assert arrays[name].shape == (rows,)
        assert json.loads(str(arrays["metadata"][arrays["galleries"] == "more"][0]))["year"] == 2000


def test_the_projectors_folder_has_a_line_for_each_vector(described, tmp_path):
    folder = tmp_path / "projector"
    assert main(["export", "--run", str(described), "--to", str(folder)]) == 0
    vectors = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    lines = (folder / "metadata.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["ids", "labels", "splits", "galleries"]
    assert len(lines) == len(vectors) + 1
    expected = contents(described)[lines[1].split("\t")[0]][-1]
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-6)
    assert "metadata.tsv" in (folder / "projector_config.pbtxt").read_text()
    assert main(["export", "--run", str(described), "--to", str(folder)]) == 2  # not overwritten


def altered(file: Path, **changes) -> None:
    with np.load(file, allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    for name, change in changes.items():
        values[name] = change(values[name])
    np.savez(file, **values)


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"encoder": lambda value: np.array("another")}, "another encoder"),
        ({"vectors": lambda value: value[:, :2]}, "dimensions"),
        ({"vectors": lambda value: value * np.nan}, "not finite"),
        ({"ids": lambda value: np.repeat(value[:1], len(value))}, "unique"),
        ({"ids": lambda value: value[:-1]}, "length"),
        ({}, "the run's own images"),
    ],
)
def test_what_does_not_belong_is_refused_and_nothing_is_stored(
    described, tmp_path, capsys, changes, telling
):
    file = tmp_path / "vectors.npz"
    assert main(["export", "--run", str(described), "--to", str(file)]) == 0
    altered(file, **changes)
    before = contents(described)
    assert main(["import", str(file), "--run", str(described)]) == 2
    assert telling in capsys.readouterr().err
    assert contents(described) == before


@pytest.mark.parametrize("name", ["notes.txt", "missing.npz", "page.npz", "page.parquet"])
def test_another_file_is_one_line(run_folder, tmp_path, capsys, name):
    if name.startswith("page"):
        (tmp_path / name).write_text("<html>")
    assert main(["import", str(tmp_path / name), "--run", str(run_folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert name in error.splitlines()[-1]
    assert main(["export", "--run", str(run_folder), "--to", str(tmp_path / "a.txt")]) == 2
