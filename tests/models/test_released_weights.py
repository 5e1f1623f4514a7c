"""model.weights: release:NAME@VERSION: the released embedder, checked, or one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from cbir_tf.config import model as config_model
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder, load_embedder
from cbir_tf.models.golden import TOLERANCES, Golden
from cbir_tf.progress import logger
from cbir_tf.releases.golden_image import golden_image
from cbir_tf.releases.manifest import MANIFEST, write_manifest
from cbir_tf.releases.registry import Entry, Registry
from cbir_tf.storage.files import sha256

DIGITS = Path(__file__).parents[2] / "weights" / "digits-1.0.0"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def model(**changes: object) -> config_model.Model:
    values = {"backbone": "small_cnn", "weights": "release:digits@1.0.0", "embedding_size": 64}
    return config_model.Model(**(values | changes))


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The folder of a release to be changed; calling `release.seal` makes it the one listed."""
    monkeypatch.setenv("CBIR_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CBIR_TF_REGISTRY", str(tmp_path / "registry.yaml"))
    return Path(shutil.copytree(DIGITS, tmp_path / "digits-1.0.0"))


def seal(folder: Path) -> None:
    write_manifest(folder)
    file = folder.parent / "registry.yaml"
    file.unlink(missing_ok=True)
    values = {"address": str(folder), "sha256": sha256(folder / MANIFEST), "licence": ""}
    Registry.load(file).add(Entry(name="digits", version="1.0.0", **values))


def refusal(folder: Path, **changes: object) -> str:
    seal(folder)
    with pytest.raises(UserError) as error:
        build_embedder(model(**changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_embedder_is_the_released_one_head_included(release):
    seal(release)
    built = build_embedder(model())
    expected = load_embedder(DIGITS / "model.keras").predict_on_batch(PIXELS)
    np.testing.assert_array_equal(built.predict_on_batch(PIXELS), expected)


def test_with_another_head_only_the_backbone_is(release, caplog):
    seal(release)
    logger.addHandler(caplog.handler)
    caplog.set_level("INFO", logger=logger.name)
    built = build_embedder(model(hidden=(16,)), seed=1)
    logger.removeHandler(caplog.handler)
    # What does not fit is named by what was asked for.
    assert "model.hidden [16] and model.embedding_size 64" in caplog.text
    assert "untrained" in caplog.text
    other = build_embedder(model(hidden=(16,), weights=None), seed=1)
    released = load_embedder(DIGITS / "model.keras").get_layer("backbone").get_weights()
    for one, expected in zip(built.get_layer("backbone").get_weights(), released, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert built.output_shape == other.output_shape == (None, 64)


def test_another_backbone_or_option_is_reported(release):
    said = refusal(release, backbone="mini_densenet")
    assert "release:digits@1.0.0 has backbone small_cnn; set model.backbone to that" in said
    assert "has options {}; set model.options to that" in refusal(release, options={"width": 8})


def test_a_golden_embedding_that_differs_is_refused(release):
    golden = json.loads((release / "golden.json").read_text())
    golden["embedding"][0] += 3 * golden["tolerance"]
    (release / "golden.json").write_text(json.dumps(golden))
    assert "its embedding of the test image is not the golden one" in refusal(release)
    golden["embedding"].pop()
    (release / "golden.json").write_text(json.dumps(golden))
    assert "64 dimensions, the golden embedding 63" in refusal(release)
    for damaged in ("", "[]", '{"size": [32, 32], "tolerance": 0.1, "embedding": [NaN]}'):
        (release / "golden.json").write_text(damaged)
        assert "golden.json" in refusal(release)


def test_a_model_of_other_weights_or_shape_is_refused(release):
    other = build_embedder(model(weights=None), seed=1)
    other.save(release / "model.keras")
    assert "its embedding of the test image is not the golden one" in refusal(release)
    wider = build_embedder(model(weights=None, options={"width": 8}), seed=1)
    wider.save(release / "model.keras")
    golden = Golden.of(wider, (32, 32), "float32")
    golden.save(release / "golden.json")
    said = refusal(release)  # its configuration says width 32
    assert "layer 'stem': expected (3, 3, 3, 32), found (3, 3, 3, 8)" in said


def test_code_in_a_model_is_not_run(release, tmp_path):
    image = keras.Input((None, None, 3), dtype="uint8")
    trap = tmp_path / "sprung"
    source = f"open({str(trap)!r}, 'w').close()"
    layer = keras.layers.Lambda(lambda x: exec(source) or x, output_shape=(None, None, 3))
    keras.Model(image, layer(image)).save(release / "model.keras")
    trap.unlink(missing_ok=True)
    assert "could not be read as a model" in refusal(release)
    assert not trap.exists()


def test_a_golden_embedding_reads_back_exactly(tmp_path):
    embedder = load_embedder(DIGITS / "model.keras")
    golden = Golden.of(embedder, (24, 40), "mixed_float16")
    golden.save(tmp_path / "golden.json")
    again = Golden.load(tmp_path / "golden.json")
    np.testing.assert_array_equal(again.vector, golden.vector)
    assert (again.size, again.tolerance) == ((24, 40), TOLERANCES["mixed_float16"])
    assert again.check_model(embedder, "here") == 0
    # Half of the length of a vector away from it, in the direction of another.
    moved = golden.vector + 0.5 * np.roll(golden.vector, 1)
    assert golden.distance(moved) == pytest.approx(0.5)


def test_the_test_image_is_the_same_everywhere():
    """By hand: red is 255 x / (W - 1), green 255 y / (H - 1), blue of three patterns."""
    image = golden_image(9, 17)
    assert image.shape == (9, 17, 3) and image.dtype == np.uint8
    assert image[0, 16].tolist() == [255, 0, 64]  # x // 16 is odd
    assert image[8, 0].tolist() == [0, 255, 191]  # y // 8 and 2 y // 16 are odd
    assert image[4, 5].tolist() == [255 * 5 // 16, 255 * 4 // 8, 64]  # x // 4 is odd
    assert sha256(golden_image(224, 224).tobytes()).startswith("29bb7fa66a48c519")


def test_the_registry_of_the_project_lists_digits_as_they_are_here():
    listed = yaml.safe_load((DIGITS.parent / "registry.yaml").read_text())["releases"]
    assert [each["address"] for each in listed if each["name"] == "digits"] == ["digits-1.0.0"]
    assert listed[0]["sha256"] == sha256(DIGITS / MANIFEST)
