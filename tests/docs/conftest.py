"""The folder that the documentation's commands run in: photos, a configuration, a trained run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
COLOURS = {"daisy": (230, 230, 60), "rose": (220, 40, 40), "tulip": (60, 80, 220)}

FLOWERS = """
data:
  source: folder
  path: photos
  image_size: 32
  split: {by: stratified, validation: 0.25, test: 0.25}
  batch: {classes: 3, images_per_class: 4}
  augmentation: [flip]
model: {backbone: small_cnn, options: {width: 4}, weights: null, embedding_size: 8}
optimizer: {learning_rate: 3e-3}
training: {epochs: 2}
evaluation: {bootstrap: 100, k: [1, 2]}
plots: {layout: pca, queries: 3}
"""
"""In place of the pages' flowers.yaml, whose ImageNet weights would be downloaded."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every page's commands run: a run notes the full paths of its images."""
    return tmp_path_factory.mktemp("documentation") / "reader"


@pytest.fixture(scope="session")
def prepared(place: Path) -> Path:
    """A folder with photos, flowers.yaml, configs/, weights/ and a trained, extracted run."""
    from cbir_tf.commands.cli import main

    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for number in range(28):
            pixels = rng.integers(90, 160, (48, 64, 3))
            top, left = rng.integers(0, 20, 2)
            pixels[top : top + 24, left : left + 30] = colour + rng.integers(-30, 30, (24, 30, 3))
            save(pixels.clip(0, 255), place / "photos" / name / f"{number:02d}.jpg")
    for name in ("photo.jpg", "new.jpg", "pictures/rose/a.jpg", "pictures/rose/b.jpg"):
        save(rng.integers(40, 200, (48, 64, 3)), place / name)
    save(rng.integers(40, 200, (48, 64, 3)), place / "pictures" / "tulip" / "c.jpg")
    (place / "flowers.yaml").write_text(FLOWERS)
    shutil.copytree(ROOT / "configs", place / "configs")
    shutil.copytree(ROOT / "weights", place / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", "--config", "flowers.yaml"]) == 0
        assert main(["extract", "--run", "runs/flowers", "--split", "all"]) == 0
    return Path(shutil.copytree(place, place.parent / "prepared"))


def save(pixels: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) pixels of 0..255 as a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


@pytest.fixture
def page_folder(prepared: Path, place: Path) -> Path:
    """The prepared folder as it was, for one page."""
    shutil.rmtree(place)
    return Path(shutil.copytree(prepared, place))
