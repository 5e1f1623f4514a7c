"""Keras 2 weight files of published triplet-loss models: backbone, Dense 2048, Dense 128.

The files are written here as Keras 2 writes them; `make conformance` does the same with files that
Keras 2 has written, of VGG16, MobileNetV2 and ResNet50.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from cbir_tf.config import model as config_model
from cbir_tf.models import build_embedder
from cbir_tf.models.golden import Golden
from cbir_tf.releases.golden_image import golden_image

SIZE = (32, 32)


def model(**changes: object) -> config_model.Model:
    values = {"backbone": "small_cnn", "options": {"width": 8}, "weights": None}
    values |= {"hidden": (2048,), "embedding_size": 128}
    return config_model.Model(**(values | changes))


@pytest.fixture(scope="module")
def donor() -> keras.Model:
    """An embedder with weights and statistics unlike those that another begins with."""
    embedder = build_embedder(model(), seed=3)
    rng = np.random.default_rng(3)
    for variable in embedder.variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.uniform(0.05, 0.4, variable.shape))
    return embedder


@pytest.fixture(scope="module")
def golden(donor: keras.Model) -> Golden:
    return Golden.of(donor, SIZE, "float32")


def write(file: Path, embedder: keras.Model, nested: bool, whole: bool, trained: bool) -> None:
    """As Keras 2 does: a group a layer, its attribute weight_names in the order of its weights.

    Args:
        file: to write.
        embedder: whose weights.
        nested: the backbone is one layer, `base`, first all that is trained in it, then all else;
            otherwise each of its layers is one.
        whole: model.save, where the layers are below `model_weights`; otherwise save_weights.
        trained: all layers are; otherwise the first half is frozen, and so comes last.
    """
    layers = [each for each in embedder.get_layer("backbone").layers if each.weights]
    frozen = [] if trained else layers[: len(layers) // 2]
    first = [
        (each, w) for each in layers for w in each.weights if w.trainable and each not in frozen
    ]
    chosen = {id(w) for _, w in first}
    last = [(each, w) for each in layers for w in each.weights if id(w) not in chosen]
    named = [(f"{each.name}/{w.name}:0", np.asarray(w)) for each, w in (*first, *last)]
    groups = {"input_1": [], "base": named} if nested else {}
    if not nested:
        for each in layers:
            groups[each.name] = [(f"{each.name}/{w.name}:0", np.asarray(w)) for w in each.weights]
    groups["global_average_pooling2d"] = []
    for name, ours in (("dense", "hidden_1"), ("dense_1", "embedding")):
        variables = embedder.get_layer(ours).weights
        groups[name] = [(f"{name}/{w.name}:0", np.asarray(w)) for w in variables]
    groups["lambda"] = []
    with h5py.File(file, "w") as h5:
        top = h5.create_group("model_weights") if whole else h5
        if whole:
            h5.attrs["model_config"] = b'{"class_name": "Functional", "config": "not read"}'
        top.attrs["layer_names"] = [name.encode() for name in groups]
        top.attrs["backend"], top.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for name, weights in groups.items():
            group = top.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key, _ in weights]
            for key, array in weights:
                group[key] = array


@pytest.mark.parametrize(("nested", "whole"), [(False, True), (True, False)])
def test_backbone_and_head_make_the_golden_embedding(tmp_path, donor, golden, nested, whole):
    file = tmp_path / "weights.h5"
    write(file, donor, nested, whole, trained=not nested)
    loaded = build_embedder(model(weights=str(file)))
    golden.check_model(loaded, file)
    for one, other in zip(loaded.weights, donor.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_another_head_the_backbone_alone_is_taken(tmp_path, donor, golden):
    file = tmp_path / "weights.h5"
    write(file, donor, nested=True, whole=False, trained=True)
    loaded = build_embedder(model(weights=str(file), hidden=(1024,)))
    ours, theirs = (each.get_layer("backbone").get_weights() for each in (loaded, donor))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    pixels = golden_image(*SIZE)[np.newaxis]
    assert golden.distance(loaded.predict_on_batch(pixels)[0]) > golden.tolerance


def test_a_head_that_differs_in_one_weight_is_not_golden(tmp_path, donor, golden):
    file = tmp_path / "weights.h5"
    write(file, donor, nested=True, whole=False, trained=True)
    with h5py.File(file, "a") as h5:
        h5["dense_1/dense_1/kernel:0"][...] = h5["dense_1/dense_1/kernel:0"][()][::-1]
    loaded = build_embedder(model(weights=str(file)))
    pixels = golden_image(*SIZE)[np.newaxis]
    assert golden.distance(loaded.predict_on_batch(pixels)[0]) > golden.tolerance


def test_weights_of_an_embedder_bring_its_head(tmp_path, donor):
    donor.save(tmp_path / "model.keras")
    donor.save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        loaded = build_embedder(model(weights=str(tmp_path / name)), seed=1)
        for one, other in zip(loaded.weights, donor.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_pixels_from_0_to_1_where_the_weights_were_trained_so(tmp_path, donor):
    """The pooled features are those of the backbone alone, given x / 255."""
    file = tmp_path / "weights.h5"
    write(file, donor, nested=False, whole=False, trained=True)
    unit = build_embedder(model(weights=str(file), preprocessing="unit"))
    pixels = np.full((1, *SIZE, 3), 0, dtype=np.uint8)
    pixels[0, ::2] = 255
    features = donor.get_layer("backbone").predict_on_batch(pixels.astype(np.float32) / 255)
    pooled = keras.Model(unit.input, unit.get_layer("pooling").output)
    np.testing.assert_allclose(
        pooled.predict_on_batch(pixels), features.mean(axis=(1, 2)), atol=1e-5
    )
