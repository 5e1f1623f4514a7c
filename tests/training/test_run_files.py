"""What a training finds in its images before it begins."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Config, Run
from cbir_tf.data.sources import load_images
from cbir_tf.training.run_files import begin, inspect_for, write_report


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A smooth random picture; of another size it is the same one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 12 pictures, each there in two sizes; one has a copy in the other class."""
    root = tmp_path / "photos"
    for name, first in (("cat", 0), ("dog", 100)):
        (root / name).mkdir(parents=True)
        for number in range(12):
            (root / name / f"{number}.png").write_bytes(picture(first + number))
            (root / name / f"{number} small.png").write_bytes(picture(first + number, (40, 30)))
    (root / "dog" / "a cat.png").write_bytes(picture(3))
    return root


def run_of(photos: Path, **split) -> Run:
    data = {"source": "folder", "path": str(photos), "split": {"by": "stratified", **split}}
    return Run(photos.parent / "run", Config.check({"data": data}))


def load(run: Run):
    return inspect_for(run, load_images(run.config.data, run.config.seed))


def test_duplicates_can_be_kept_in_one_split(photos, caplog):
    _, found = load(run_of(photos))
    assert found.across_splits
    assert "data.split.group=duplicates" in caplog.text
    run = run_of(photos, group="duplicates")
    inspection, found = load(run)
    assert not found.across_splits
    split = dict(zip(inspection.images.ids.tolist(), inspection.images.split.tolist(), strict=True))
    assert set(split.values()) == {"train", "validation", "test"}
    for number in range(12):
        assert split[f"cat/{number}.png"] == split[f"cat/{number} small.png"]
    begin(run, inspection)
    resumed, _ = load(run)  # the splits are those of images.csv
    assert resumed.images.split.tolist() == inspection.images.split.tolist()


def test_one_picture_under_two_labels_is_reported_whatever_the_split(photos, caplog):
    run = run_of(photos, train=None, validation=0, test=0)
    inspection, found = load(run)
    (each,) = found.contradictions
    assert dict(zip(each.ids, each.labels, strict=True)) == {
        "cat/3 small.png": "cat",
        "cat/3.png": "cat",
        "dog/a cat.png": "dog",
    }
    assert "dog/a cat.png (dog)" in caplog.text
    run.folder.mkdir()
    write_report(run, {}, inspection, found)
    report = json.loads(run.training.read_text())
    assert report["contradictions"][0]["ids"] == list(each.ids)
