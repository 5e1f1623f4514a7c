"""How much memory extraction takes for each further image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FEW, MANY = 400, 1400
BYTES_AN_IMAGE = 40_000
"""For id, path, digest, vector and what goes with them, and for the tens of megabytes by which two
processes that do the same differ. Its pixels as the model sees them would take 49,152."""

PROGRAM = """
import sys
if sys.argv.pop(1) == "keras":
    sys.modules["onnxruntime"] = None
from cbir_tf.retrieval import gallery_plots
from cbir_tf.commands.cli import main
gallery_plots.MAPPED = 300  # reached by the fewer images, too
assert main(sys.argv[1:]) == 0
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """Folders of so many pictures, each file of another content."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = tmp_path_factory.mktemp("one") / "picture.jpg"
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(picture)
    content, root = picture.read_bytes(), tmp_path_factory.mktemp("many")
    for count in (FEW, MANY):
        (root / f"{count}").mkdir()
        for number in range(count):
            # What follows a JPEG's end is not looked at.
            (root / f"{count}" / f"{number}.jpg").write_bytes(content + b"%d" % number)
    return {count: root / f"{count}" for count in (FEW, MANY)}


@pytest.fixture(scope="module")
def large_run(tmp_path_factory, config_file) -> Path:
    from cbir_tf.commands.cli import main

    folder = tmp_path_factory.mktemp("runs") / "large"
    overrides = ["training.epochs=0", "data.image_size=128", "data.cache=memory"]
    overrides.append("model.options={width: 4}")
    assert main(["train", "--config", str(config_file), "--run", str(folder), *overrides]) == 0
    return folder


def peak(encoder: str, run: Path, images: Path) -> int:
    """Largest resident memory in bytes of extracting a folder, by a process of its own."""
    (run / "features.db").unlink(missing_ok=True)
    command = [sys.executable, "-c", PROGRAM, encoder, "extract", "--run", run, "--images", images]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"300 of {len(list(images.iterdir()))} images" in done.stderr
    return 1024 * int(done.stdout.split()[-1])


@pytest.mark.parametrize("encoder", ["onnxruntime", "keras"])
def test_memory_grows_only_by_the_stored_data_of_an_image(large_run, folders, encoder):
    few, many = (peak(encoder, large_run, folders[count]) for count in (FEW, MANY))
    print(f"{encoder}: {few / 1e6:.0f} MB, {many / 1e6:.0f} MB")
    assert many - few < BYTES_AN_IMAGE * (MANY - FEW)
