"""BiT R50x1: the features of an independent implementation, and its official weight files."""

from __future__ import annotations

import hashlib
import io
import math
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.models.bit import StandardizedConv2D, build_bit_r50x1, load_bit_weights

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = runpy.run_path(str(ROOT / "conformance" / "bit" / "official_layout.py"))
# Feature maps of transformers' BitModel with LAYOUT's random weights, by HEIGHTxWIDTH; made by
# conformance/bit/reference.py tests/models/bit_features.npz 64x64 33x70
RECORDED = Path(__file__).with_name("bit_features.npz")

SOME_KERNEL = "resnet/block3/unit02/b/standardized_conv2d/kernel"
SOME_GAMMA = "resnet/block1/unit01/a/group_norm/gamma"
ROOT_KERNEL = "resnet/root_block/standardized_conv2d/kernel"


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return LAYOUT["random_weights"]()


@pytest.fixture(scope="module")
def official_file(weights, tmp_path_factory) -> Path:
    """An .npz file with every official key, the ignored head among them."""
    path = tmp_path_factory.mktemp("bit") / "BiT-M-R50x1.npz"
    head = {
        "resnet/head/conv2d/kernel": np.zeros((1, 1, 2048, 5), np.float32),
        "resnet/head/conv2d/bias": np.zeros(5, np.float32),
    }
    np.savez(path, **weights, **head)
    return path


@pytest.fixture(scope="module")
def model(official_file) -> keras.Model:
    built = build_bit_r50x1("bit")
    load_bit_weights(built, official_file)
    return built


@pytest.fixture(scope="module")
def fresh() -> keras.Model:
    """A model to load into, the untouched target of failed loads."""
    return build_bit_r50x1("bit")


def features(model: keras.Model, size: str) -> np.ndarray:
    return np.asarray(model(LAYOUT["random_image"](*map(int, size.split("x")))))[0]


def refusal(model: keras.Model, source: Path | str) -> str:
    """The error of loading, checked to be one line and to leave the model as it was."""
    before = [np.array(each) for each in model.weights]
    with pytest.raises(UserError) as caught:
        load_bit_weights(model, source)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save_model(folder: Path, weights: dict[str, np.ndarray], prefix: str = "") -> Path:
    """A SavedModel whose variables have the official names, as those on TensorFlow Hub."""
    module = tf.Module()
    module.variables_by_number = [
        tf.Variable(values, name=prefix + name) for name, values in weights.items()
    ]
    tf.saved_model.save(module, str(folder))
    return folder


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["64x64", "33x70"])
def test_features_are_those_of_an_independent_implementation(model, size):
    with np.load(RECORDED, allow_pickle=False) as recorded:
        np.testing.assert_allclose(features(model, size), recorded[size], rtol=0, atol=1e-4)


def test_parameters_are_as_many_as_published(model):
    # 25,549,352 with a head of 1,000 classes: 2,048 x 1,000 weights and 1,000 biases.
    assert model.count_params() == 25_549_352 - 2_049_000


@pytest.mark.slow
def test_in_float64_it_is_the_same_function_but_for_the_recorded_rounding(official_file):
    """Tight enough to tell the group norm's epsilon of 1e-5 from 2e-5."""
    keras.config.set_dtype_policy("float64")
    try:
        exact = build_bit_r50x1("bit")
    finally:
        keras.config.set_dtype_policy("float32")
    load_bit_weights(exact, official_file)
    with np.load(RECORDED, allow_pickle=False) as recorded:
        np.testing.assert_allclose(features(exact, "64x64"), recorded["64x64"], rtol=0, atol=1e-6)


@given(height=st.integers(1, 600), width=st.integers(1, 600))
@settings(max_examples=20, deadline=None)
def test_any_size_of_image_gives_a_32nd_of_it_rounded_up(fresh, height, width):
    expected = (2, math.ceil(height / 32), math.ceil(width / 32), 2048)
    assert fresh.compute_output_shape((2, height, width, 3)) == expected


@given(
    size=st.integers(1, 3),
    channels=st.integers(1, 4),
    mean=st.floats(-10, 10),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_standardized_convolution_against_a_loop_over_filters(size, channels, mean, scale, seed):
    random = np.random.default_rng(seed)
    shape = (size, size, channels, 5)
    kernel = (random.normal(mean, 1, shape) * scale * random.uniform(0.5, 2, 5)).astype("float32")
    image = random.normal(size=(1, size, size, channels)).astype("float32")
    layer = StandardizedConv2D(5, size, use_bias=False)
    layer.build(image.shape)
    layer.kernel.assign(kernel)
    expected = []
    for number in range(5):
        values = kernel[..., number].astype("float64")
        standardized = (values - values.mean()) / np.sqrt(values.var() + 1e-10)
        expected.append((image[0] * standardized).sum())
    np.testing.assert_allclose(np.asarray(layer(image))[0, 0, 0], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_filter_of_equal_values_gives_zeros_in_half_precision(policy):
    layer = StandardizedConv2D(2, 1, use_bias=False, kernel_initializer="ones", dtype=policy)
    np.testing.assert_array_equal(np.asarray(layer(np.ones((1, 2, 2, 3))), "float32"), 0)


def test_standardized_convolution_comes_back_from_its_config():
    layer = StandardizedConv2D(5, 3, strides=2, use_bias=False, name="c")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, StandardizedConv2D)
    assert again.get_config() == layer.get_config()


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_weight(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(LAYOUT["random_image"](64, 64), training=True)))
    for weight, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, [each.value for each in model.trainable_variables]),
        strict=True,
    ):
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path


@pytest.mark.slow
def test_a_saved_model_file_comes_back_in_safe_mode_with_the_same_features(model, tmp_path):
    path = tmp_path / "bit.keras"
    model.save(path)
    again = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(features(again, "64x64"), features(model, "64x64"))


# --- its weights --------------------------------------------------------------------------------


def test_the_file_is_stored_unchanged(model, weights):
    kernel = model.get_layer("block3.unit02.b.standardized_conv2d").kernel
    np.testing.assert_array_equal(kernel, weights[SOME_KERNEL])


def test_group_norms_may_be_four_dimensional_and_convolutions_numbered(fresh, weights, tmp_path):
    """As in some official files, according to the loader of big_vision."""
    changed = {
        name.replace("/a/standardized_conv2d/", "/a/standardized_conv2d_7/"): (
            values.reshape(1, 1, 1, -1) if values.ndim == 1 else values
        )
        for name, values in weights.items()
    }
    np.savez(tmp_path / "changed.npz", **changed)
    load_bit_weights(fresh, tmp_path / "changed.npz")
    for layer, weight, name in [
        ("block1.unit01.a.group_norm", "gamma", SOME_GAMMA),
        (
            "block4.unit03.a.standardized_conv2d",
            "kernel",
            "resnet/block4/unit03/a/standardized_conv2d/kernel",
        ),
    ]:
        np.testing.assert_array_equal(getattr(fresh.get_layer(layer), weight), weights[name])


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "keras_layer/"])
def test_a_saved_model_through_tensorflow_hub_gives_the_same_features(
    fresh, model, weights, tmp_path, prefix
):
    load_bit_weights(fresh, save_model(tmp_path / "saved", weights, prefix))
    np.testing.assert_array_equal(features(fresh, "64x64"), features(model, "64x64"))


@pytest.mark.parametrize("missing", [SOME_KERNEL, SOME_GAMMA, ROOT_KERNEL])
def test_a_missing_key_is_named_with_its_shape(fresh, weights, tmp_path, missing):
    path = tmp_path / "some.npz"
    np.savez(path, **{name: each for name, each in weights.items() if name != missing})
    message = refusal(fresh, path)
    assert missing in message
    assert str(weights[missing].shape) in message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (SOME_KERNEL, np.zeros((256, 256, 3, 3), np.float32)),
        (SOME_GAMMA, np.zeros(32, np.float32)),
        (ROOT_KERNEL, np.zeros((7, 7, 3, 192), np.float32)),
    ],
)
def test_another_shape_is_named_beside_the_expected_one(fresh, weights, tmp_path, name, values):
    path = tmp_path / "other.npz"
    np.savez(path, **weights | {name: values})
    message = refusal(fresh, path)
    assert all(each in message for each in (name, str(values.shape), str(weights[name].shape)))


def test_a_file_cut_short_is_refused(fresh, official_file, tmp_path):
    path = tmp_path / "short.npz"
    path.write_bytes(official_file.read_bytes()[:1_000_000])
    assert str(path) in refusal(fresh, path)


@given(data=st.data(), save=st.sampled_from([np.savez, np.savez_compressed]))
@settings(max_examples=100, deadline=None)
def test_any_changed_bytes_are_a_one_line_error(fresh, weights, tmp_path_factory, data, save):
    """Of an archive with the first weight alone: undamaged, it lacks the second."""
    archive = io.BytesIO()
    save(archive, **{ROOT_KERNEL: weights[ROOT_KERNEL]})
    content = bytearray(archive.getvalue())
    edges = st.integers(0, 200) | st.integers(len(content) - 200, len(content) - 1)
    for place in data.draw(st.lists(edges | st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.npz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_bit_weights(fresh, path)
    assert "\n" not in str(caught.value)


def test_a_single_array_is_refused(fresh, tmp_path):
    path = tmp_path / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "not an .npz archive" in refusal(fresh, path)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 nor this"])
def test_a_file_of_something_else_is_refused(fresh, tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    assert str(path) in refusal(fresh, path)


def test_pickled_objects_are_refused(fresh, weights, tmp_path):
    path = tmp_path / "pickled.npz"
    objects = np.empty(weights[ROOT_KERNEL].shape, object)
    np.savez(path, **weights | {ROOT_KERNEL: objects})
    assert "allow_pickle" in refusal(fresh, path)


def test_a_missing_file_is_refused(fresh, tmp_path):
    assert "no such file" in refusal(fresh, tmp_path / "BiT-M-R50x1.npz")


def test_an_empty_folder_is_refused(fresh, tmp_path):
    assert str(tmp_path) in refusal(fresh, tmp_path)


def test_a_saved_model_of_something_else_is_refused(fresh, tmp_path):
    saved = save_model(tmp_path / "saved", {"dense/kernel": np.zeros((2, 2), np.float32)})
    assert ROOT_KERNEL in refusal(fresh, saved)


def test_a_failed_download_asks_for_a_file(fresh, tmp_path, monkeypatch):
    """Nothing listens on port 9 of this machine."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    message = refusal(fresh, "http://127.0.0.1:9/bit/1")
    assert "BiT-M-R50x1.npz" in message


def test_imagenet21k_is_the_official_handle(fresh, tmp_path, monkeypatch, weights):
    """Found in TensorFlow Hub's cache, where a download would have put it."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = "https://tfhub.dev/google/bit/m-r50x1/1"
    save_model(tmp_path / hashlib.sha1(handle.encode()).hexdigest(), weights)
    load_bit_weights(fresh, "imagenet21k")
    kernel = fresh.get_layer("root_block.standardized_conv2d").kernel
    np.testing.assert_array_equal(kernel, weights[ROOT_KERNEL])
