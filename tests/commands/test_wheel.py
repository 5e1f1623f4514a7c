"""The wheel holds all that the cbir program needs, and no package but cbir_tf."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cbir_tf

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from links so that nothing is written into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "cbir_tf", "callbacks", "train.py"):
        os.symlink(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    built = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """A folder with the wheel's packages, as in site-packages."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_installs_cbir_tf_alone_with_its_program_and_page(site):
    packages = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert packages == {"cbir_tf"}
    assert (site / "cbir_tf" / "server" / "page" / "index.html").is_file()
    assert (site / "cbir_tf" / "py.typed").is_file()
    (information,) = site.glob("*.dist-info")
    assert "cbir = cbir_tf.commands.cli:script" in (information / "entry_points.txt").read_text()


def test_the_version_is_that_of_the_project_in_any_folder(site, tmp_path):
    program = "from cbir_tf.commands.cli import main; main(['--version'])"
    installed = run(site, tmp_path, "-c", program)
    in_the_checkout = subprocess.run(
        [sys.executable, "train.py", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.stdout == in_the_checkout.stdout == f"cbir-tf {cbir_tf.__version__}\n"


def test_a_training_is_not_disturbed_by_a_users_own_callbacks_file(site, tmp_path):
    (tmp_path / "callbacks.py").write_text("raise RuntimeError('not the callbacks of cbir_tf')\n")
    config = tmp_path / "digits.yaml"
    config.write_text(
        "data: {source: digits, image_size: 16, split: {by: stratified}}\n"
        "model: {backbone: small_cnn, options: {width: 4}, weights: null}\n"
        "training: {epochs: 1, steps_per_epoch: 2}\n"
    )
    done = run(site, tmp_path, "-m", "cbir_tf", "train", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "digits" / "model.keras").is_file()
    assert done.stdout.splitlines()[1] == "runs/digits/model.keras"
