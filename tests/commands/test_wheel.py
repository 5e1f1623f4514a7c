"""The wheel holds all that the cbir program needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_cbir_works_from_the_wheel(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "cbir_tf", "callbacks"):
        os.symlink(ROOT / name, source / name)
    built = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        assert "cbir_tf/server/page/index.html" in archive.namelist()
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"cbir = cbir_tf.startup:script" in archive.read(entry)
    config = tmp_path / "digits.yaml"
    config.write_text(
        "data: {source: digits, image_size: 16, split: {by: stratified}}\n"
        "model: {backbone: small_cnn, weights: null}\ntraining: {epochs: 0}\n"
    )
    program = "from cbir_tf.startup import script; script()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--config", str(config)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "digits" / "model.keras").is_file()
