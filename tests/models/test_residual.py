"""Residual networks: PyTorch's values, published sizes, and grouped convolutions that train."""

from __future__ import annotations

import math
import runpy
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cbir_tf.models.backbones import build_backbone
from cbir_tf.models.residual import (
    ARCHITECTURES,
    Architecture,
    GroupedConv2D,
    build_residual,
)

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = runpy.run_path(str(ROOT / "conformance" / "residual" / "torchvision_layout.py"))
# Every fourth channel of PyTorch's last feature maps with LAYOUT's random weights; made by
# conformance/residual/reference.py --small tests/models/residual_features.npz 33x38
RECORDED = Path(__file__).with_name("residual_features.npz")
SIZE = (33, 38)

# With a classifier of 1,000 classes, as in torchvision's table of models.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50_v1_5": 25_557_032,
    "resnet101_v1_5": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
}
QUICK = ("resnet18", "resnext50_32x4d")
EVERY = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES
]
SMALL = Architecture((1, 1, 1, 1), bottleneck=False)


@pytest.fixture(scope="module")
def with_random_weights(tmp_path_factory):
    """Builds a network with LAYOUT's random weights from a .safetensors file, once."""

    @cache
    def build(name: str) -> keras.Model:
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_file(LAYOUT["random_weights"](LAYOUT["NETWORKS"][name]), path)
        model = build_backbone(name, {}, str(path))
        path.unlink()
        return model

    return build


@pytest.fixture(scope="module")
def small() -> keras.Model:
    return build_residual(SMALL, "small")


def pixels(dtype: str = "float32") -> np.ndarray:
    return LAYOUT["normalized"](LAYOUT["random_image"](*SIZE)).astype(dtype)


def recorded(name: str) -> np.ndarray:
    with np.load(RECORDED, allow_pickle=False) as arrays:
        return arrays[f"{name}/33x38/layer4"]


# --- the networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_features_are_those_of_pytorch(with_random_weights, name):
    features = np.asarray(with_random_weights(name)(pixels()))[0]
    np.testing.assert_allclose(features[..., ::4], recorded(name), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_in_float64_it_is_the_same_function_but_for_the_recorded_rounding(
    with_random_weights, name
):
    """Tight enough to tell the batch norm's epsilon of 1e-5 from 1.001e-5."""
    keras.config.set_dtype_policy("float64")
    try:
        exact = build_residual(ARCHITECTURES[name], name)
    finally:
        keras.config.set_dtype_policy("float32")
    exact.set_weights(with_random_weights(name).get_weights())
    features = np.asarray(exact(pixels("float64")))[0]
    np.testing.assert_allclose(features[..., ::4], recorded(name), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_as_many_as_published(with_random_weights, name):
    model = with_random_weights(name)
    classifier = 1000 * model.output.shape[-1] + 1000
    count = sum(math.prod(each.shape) for each in model.trainable_variables)
    assert count + classifier == PUBLISHED[name]


@given(height=st.integers(1, 600), width=st.integers(1, 600))
@settings(max_examples=20)
def test_any_size_of_image_gives_a_32nd_of_it_rounded_up(small, height, width):
    expected = (2, math.ceil(height / 32), math.ceil(width / 32), 512)
    assert small.compute_output_shape((2, height, width, 3)) == expected


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 20)])
def test_a_feature_map_of_such_a_size_is_computed(small, size):
    features = np.asarray(small(np.ones((1, *size, 3), np.float32)))
    assert features.shape[1:3] == tuple(math.ceil(side / 32) for side in size)
    assert np.isfinite(features).all()


@pytest.mark.slow
def test_it_learns(small):
    """Two classes of noise, bright and dark, in a few steps."""
    bright = np.arange(8) % 2
    noise = np.random.default_rng(0).normal(size=(8, 40, 40, 3))
    images = (noise + 2 * bright[:, None, None, None] - 1).astype(np.float32)
    top = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(small.output))
    model = keras.Model(small.input, top)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    losses = model.fit(images, bright, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_gradients_are_finite_and_reach_every_weight(with_random_weights, name):
    model = with_random_weights(name)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=False)))
    gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_computes_in_half(policy):
    architecture = Architecture((1, 1, 1, 1), groups=32, group_width=4)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    exact = build_residual(architecture, "exact")
    keras.config.set_dtype_policy(policy)
    try:
        model = build_residual(architecture, "half")
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(exact.get_weights())
    assert {each.dtype for each in model.variables} == {"float32"}
    with tf.GradientTape() as tape:
        features = model(images)
        total = tf.reduce_sum(tf.cast(features, "float32"))
    kernel = model.get_layer("layer1.0.conv2").kernel
    assert features.dtype == policy.removeprefix("mixed_")
    assert np.isfinite(tape.gradient(total, kernel.value)).all()
    expected = np.asarray(exact(images))
    assert np.abs(np.asarray(features, "float32") - expected).max() < 0.05 * expected.max()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_keras_own_files_give_the_same_features(with_random_weights, tmp_path, suffix):
    model = with_random_weights("resnext50_32x4d")
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    again = build_backbone("resnext50_32x4d", {}, str(path))
    np.testing.assert_array_equal(again(pixels()), model(pixels()))


# --- grouped convolution ------------------------------------------------------------------------


@given(
    groups=st.integers(2, 6) | st.sampled_from([32, 64]),
    width=st.integers(1, 5),
    multiplier=st.integers(1, 2),
    stride=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15)
def test_values_and_gradients_are_those_of_keras_grouped_convolution(
    groups, width, multiplier, stride, padding, seed
):
    random = np.random.default_rng(seed)
    image = tf.constant(random.normal(size=(2, 5, 4, groups * width)).astype(np.float32))
    arguments = (groups * width * multiplier, 3, stride, padding)
    ours = GroupedConv2D(*arguments, groups=groups)
    theirs = keras.layers.Conv2D(*arguments, groups=groups)
    theirs.build(image.shape)
    ours.build(image.shape)
    ours.set_weights([random.normal(size=each.shape) for each in theirs.weights])
    theirs.set_weights(ours.get_weights())
    results = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(image)
            values = layer(image)
            total = tf.reduce_sum(values**2)
        gradients = tape.gradient(total, [image, layer.kernel.value, layer.bias.value])
        results.append([values, *gradients])
    for found, expected in zip(*results, strict=True):
        largest = np.abs(expected).max(initial=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_with_a_gpu_grouped_convolution_is_keras_own(monkeypatch):
    image = np.random.default_rng(0).normal(size=(1, 4, 4, 64)).astype(np.float32)
    ours, theirs = (kind(64, 3, groups=32) for kind in (GroupedConv2D, keras.layers.Conv2D))
    theirs(image)
    ours.build(image.shape)
    theirs.set_weights(ours.get_weights())
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: [f"{kind}:0"])
    np.testing.assert_array_equal(ours(image), theirs(image))


def test_grouped_convolution_comes_back_from_its_config():
    layer = GroupedConv2D(64, 3, strides=2, groups=32, use_bias=False, name="c")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, GroupedConv2D)
    assert again.get_config() == layer.get_config()
