"""A packed run: the same bytes each time, all that is to be known, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from cbir_tf import Config, Run
from cbir_tf.commands.cli import main
from cbir_tf.errors import UserError
from cbir_tf.models import load_embedder
from cbir_tf.publishing.pack import pack
from cbir_tf.publishing.verify import verify
from cbir_tf.releases.golden_image import golden_image
from cbir_tf.releases.manifest import check_files, write_manifest
from cbir_tf.releases.registry import Reference

pytestmark = pytest.mark.slow

REFERENCE = Reference("colours", "1.0.0-rc.1")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, trained_folder) -> Path:
    """The folder of a run that has been evaluated."""
    folder = shutil.copytree(trained_folder, tmp_path_factory.mktemp("evaluated") / "run")
    assert main(["evaluate", "--run", str(folder)]) == 0
    return Path(folder)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, evaluated) -> Path:
    """Its release."""
    return pack(Run.open(evaluated), REFERENCE, tmp_path_factory.mktemp("packed"), "MIT")


@pytest.fixture
def release(tmp_path, packed) -> Path:
    """A copy of the release that may be changed."""
    return Path(shutil.copytree(packed, tmp_path / packed.name))


def test_the_files_of_a_release(packed, evaluated, photos):
    assert packed.name == "colours-1.0.0-rc.1"
    names = set(check_files(packed))
    assert names >= {"README.md", "model.keras", "model.weights.h5", "config.yaml", "labels.json"}
    assert names >= {"metrics.json", "golden.json", "release.json", "embedding_map.png"}
    assert (packed / "model.keras").read_bytes() == (evaluated / "model.keras").read_bytes()
    assert json.loads((packed / "labels.json").read_text()) == ["blue", "green", "red"]
    assert json.loads((packed / "metrics.json").read_text()) == json.loads(
        (evaluated / "metrics.json").read_text()
    )
    vector = load_embedder(evaluated / "model.keras").predict_on_batch(golden_image(32, 32)[None])[
        0
    ]
    golden = json.loads((packed / "golden.json").read_text())
    np.testing.assert_array_equal(np.array(golden["embedding"], np.float32), vector)
    distances = verify(packed)
    assert set(distances) >= {"model.keras", "model.weights.h5"}
    assert max(distances.values()) < 1e-4


def test_no_path_of_this_machine_is_in_it(packed, evaluated, photos):
    values = yaml.safe_load((packed / "config.yaml").read_text())
    assert values["data"]["path"] == photos.name
    whole = Config.load(evaluated / "config.yaml").model_dump(mode="json")
    assert values == whole | {"data": whole["data"] | {"path": photos.name}}
    for name in ("README.md", "config.yaml", "metrics.json", "release.json"):
        assert str(photos.parent) not in (packed / name).read_text()


def test_packed_again_it_is_the_same_bytes(packed, evaluated, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run")
    (run / "model.onnx").unlink(
        missing_ok=True
    )  # exported again, in a process that has exported before
    again = pack(Run.open(run), REFERENCE, tmp_path, "MIT")
    for each in packed.iterdir():
        assert each.read_bytes() == (again / each.name).read_bytes(), each.name
    before = {each.name: each.stat().st_mtime_ns for each in again.iterdir()}
    assert pack(Run.open(run), REFERENCE, tmp_path, "MIT") == again
    with pytest.raises(UserError, match="holds something else"):
        pack(Run.open(run), REFERENCE, tmp_path, "another licence")
    assert {each.name: each.stat().st_mtime_ns for each in again.iterdir()} == before
    assert {each.name for each in tmp_path.iterdir()} == {"run", again.name}


def test_the_card_shows_the_measures_and_what_is_not_known(packed, evaluated):
    card = (packed / "README.md").read_text()
    (result,) = json.loads((evaluated / "metrics.json").read_text()).values()
    low, high = result["intervals"]["map_at_r"]
    row = next(line for line in card.splitlines() if line.startswith("| map_at_r"))
    assert f"{result['figures']['map_at_r']:.4f}" in row and f"{low:.4f} to {high:.4f}" in row
    assert "Licence of the weights: MIT." in card and "Licence of the images: not stated." in card
    assert "train 18, validation 9, test 9" in card
    assert "3 classes: blue, green, red." in card
    # Pictures of images whose licence is not stated are not given away.
    assert "query_grid.png" not in card and not (packed / "query_grid.png").exists()
    assert "![The embedding map](embedding_map.png)" in card


def test_with_the_licence_of_the_images_their_pictures_are_in_it(evaluated, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["data"]["licence"] = "CC0; by the tests"
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    folder = pack(Run.open(run), REFERENCE, tmp_path)
    card = (folder / "README.md").read_text()
    assert "Licence of the images: CC0; by the tests." in card
    assert "(query_grid.png)" in card and (folder / "query_grid.png").is_file()
    assert "Licence of the weights: not stated." in card


def test_a_refused_release_is_a_one_line_error_and_leaves_no_folder(run_folder, tmp_path, capsys):
    command = ["release", "pack", "--to", str(tmp_path / "to"), "--run", str(run_folder)]
    for name, version, said in [
        ("colours", "1.0.0", "not evaluated"),
        ("Colours", "1.0.0", "'Colours': not a valid release name"),
        ("../x", "1.0.0", "not a valid release name"),
        ("colours", "v1", "'v1': not a valid release version"),
    ]:
        capsys.readouterr()
        assert main([*command, "--name", name, "--version", version]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and said in line
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.weights.h5", b"\x89HDF", "model.weights.h5: does not fit model.keras"),
        ("model.onnx", b"not a model", "model.onnx: could not be run"),
        ("labels.json", b"{}", "labels.json: damaged"),
        ("config.yaml", b"data: {source: nothing}", "config.yaml: data.source: no 'nothing'"),
        ("golden.json", b"{}", "not a golden embedding"),
        ("release.json", b'{"format": 2}', "format 2 is not supported"),
    ],
)
def test_verify_reports_files_that_do_not_fit_the_release(release, name, content, said):
    if not (release / name).exists():
        pytest.skip("ONNX Runtime is not installed")
    (release / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is not the file that was released|not supported"):
        verify(release)
    write_manifest(release)
    with pytest.raises(UserError, match=said) as error:
        verify(release)
    assert "\n" not in str(error.value)


def test_weights_of_another_model_do_not_verify(release, evaluated):
    embedder = load_embedder(release / "model.keras")
    for variable in embedder.trainable_variables:
        variable.assign(variable * 1.5)
    embedder.save_weights(release / "model.weights.h5")
    write_manifest(release)
    with pytest.raises(UserError, match=r"model\.weights\.h5: its embedding of the test image"):
        verify(release)
