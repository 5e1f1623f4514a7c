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
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, flowers.yaml, configs/, weights/ and a trained, extracted run."""
    from cbir_tf.commands.cli import main

    folder = tmp_path_factory.mktemp("documentation")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(90, 160, (48, 64, 3))
            top, left = rng.integers(0, 20, 2)
            pixels[top : top + 24, left : left + 30] = colour + rng.integers(-30, 30, (24, 30, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / "photos" / name / f"{number:02d}.jpg", quality=90)
    for name in ("photo.jpg", "new.jpg"):
        pixels = rng.integers(40, 200, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "flowers.yaml").write_text(FLOWERS)
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(ROOT / "weights", folder / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--config", "flowers.yaml"]) == 0
        assert main(["extract", "--run", "runs/flowers", "--split", "all"]) == 0
    return folder


@pytest.fixture
def page_folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder for one page."""
    return Path(shutil.copytree(prepared, tmp_path / "page"))
