"""ONNX Runtime gives the vectors of Keras for the current model, or is not used."""

from __future__ import annotations

import sys

import keras
import numpy as np
import onnx
import pytest

from cbir_tf.config.model import Model
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import is_exported, open_encoder, predict
from cbir_tf.models import bit, build_embedder, load_embedder

SIZE = (64, 48)


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.keras"
    build_embedder(Model(backbone="small_cnn", weights=None, embedding_size=8)).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"backbone": "mobilenet_v2", "options": {"alpha": 0.35}, "hidden": [16]},
        {
            "backbone": "mobilenet",
            "options": {"alpha": 0.25},
            "pooling": "gem",
            "normalize": False,
        },
        {"backbone": "small_cnn", "preprocessing": "caffe"},
        {"backbone": "bit_m_r50x1"},
    ],
    ids=lambda model: model["backbone"],
)
def test_exported_vectors_are_those_of_keras(model, tmp_path, monkeypatch):
    monkeypatch.setattr(bit, "UNITS", (1, 1, 1, 1))  # every kind of layer, and a fourth of them
    path = tmp_path / "model.keras"
    embedder = build_embedder(Model(**{"weights": None, "embedding_size": 8} | model))
    embedder.save(path)
    encoder = open_encoder(path, SIZE)
    assert is_exported(path)
    others = np.random.default_rng(1).integers(0, 256, (2, 80, 96, 3), dtype=np.uint8)
    for images in (pixels(1), pixels(5), others):
        expected = embedder.predict_on_batch(images)
        found = encoder(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_gelu_is_exported_too(tmp_path):
    image = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 32, -4)(image)
    x = keras.layers.Conv2D(4, 3, activation="gelu", name="backbone")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(4, activation="gelu")(x))
    model.save(tmp_path / "model.keras")
    encoder = open_encoder(tmp_path / "model.keras", SIZE)
    assert is_exported(tmp_path / "model.keras")
    expected = model.predict_on_batch(pixels(3))
    np.testing.assert_allclose(encoder(pixels(3)), expected, atol=1e-5)


@pytest.mark.parametrize("meanwhile", ["nothing", "gone", "damaged", "another"])
def test_a_batch_shared_out_among_the_cores_keeps_its_order_and_its_model(saved, meanwhile):
    encoder = open_encoder(saved, SIZE)
    pictures = pixels(67)
    alone = np.concatenate([encoder(each[np.newaxis]) for each in pictures])
    exported = saved.with_suffix(".onnx")
    if meanwhile == "gone":
        exported.unlink()
    elif meanwhile == "damaged":
        exported.write_bytes(b"no model")
    elif meanwhile == "another":
        model = Model(backbone="small_cnn", weights=None, embedding_size=8, pooling="gem")
        build_embedder(model).save(saved)
        other = open_encoder(saved, SIZE)
        assert not np.allclose(other(pictures[:1]), alone[:1], atol=1e-3)
    for count in (2, 3, 67):
        np.testing.assert_allclose(encoder(pictures[:count]), alone[:count], atol=1e-5)


def test_the_export_is_made_once_and_again_for_another_model_or_when_damaged(saved):
    exported = saved.with_suffix(".onnx")
    open_encoder(saved, SIZE)
    first = exported.stat()
    open_encoder(saved, SIZE)
    assert exported.stat().st_mtime_ns == first.st_mtime_ns

    of_one_size = onnx.load(exported)  # as earlier versions made it
    for side in of_one_size.graph.input[0].type.tensor_type.shape.dim[1:3]:
        side.dim_value = SIZE[0]
    onnx.save(of_one_size, exported)
    assert not is_exported(saved)
    open_encoder(saved, SIZE)
    assert is_exported(saved)

    exported.write_bytes(exported.read_bytes()[:1000])
    assert not is_exported(saved)
    before = open_encoder(saved, SIZE)(pixels(2))
    assert is_exported(saved)

    other = Model(backbone="small_cnn", weights=None, embedding_size=8)
    build_embedder(other, seed=1).save(saved)
    assert not is_exported(saved)
    after = open_encoder(saved, SIZE)(pixels(2))
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, predict(load_embedder(saved), pixels(2)), atol=1e-5)


def test_without_onnx_runtime_keras_does_the_work(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    encoder = open_encoder(saved, SIZE)
    assert not saved.with_suffix(".onnx").exists()
    assert np.array_equal(encoder(pixels(3)), predict(load_embedder(saved), pixels(3)))


def test_without_the_converter_keras_does_the_work(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    encoder = open_encoder(saved, SIZE)
    assert np.array_equal(encoder(pixels(3)), predict(load_embedder(saved), pixels(3)))


def test_a_damaged_model_is_a_one_line_error(saved):
    saved.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"model\.keras"):
        open_encoder(saved, SIZE)
