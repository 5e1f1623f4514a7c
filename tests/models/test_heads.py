"""Pooling and normalisation against the formulas, and finite gradients at the edges."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir_tf.config import model as config_model
from cbir_tf.models.heads import GeneralizedMeanPooling, apply_head

maps = arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.just(2)),
    elements=st.floats(2**-6, 128, width=32),
)


def head(feature_map: np.ndarray, **changes: object) -> tuple[keras.Model, np.ndarray]:
    given = {"backbone": "small_cnn", "weights": None, "embedding_size": None, "normalize": False}
    inputs = keras.Input(feature_map.shape[1:])
    model = keras.Model(inputs, apply_head(inputs, config_model.Model(**(given | changes))))
    return model, np.asarray(model(feature_map))


@settings(max_examples=25, deadline=None)
@given(maps, st.floats(1, 8))
def test_generalised_mean_follows_its_formula(feature_map, power):
    pooled = np.asarray(GeneralizedMeanPooling(power)(feature_map))
    double = feature_map.astype(np.float64)
    expected = (double**power).mean(axis=(1, 2)) ** (1 / power)
    np.testing.assert_allclose(pooled, expected, rtol=1e-4)


@pytest.mark.parametrize("power", [1.0, 3.0, 60.0])
@pytest.mark.parametrize("largest", [0.0, 1e-3, 1e4])
def test_generalised_mean_has_finite_gradients(power, largest):
    feature_map = tf.Variable(
        np.linspace(-largest, largest, 18, dtype=np.float32).reshape(1, 3, 3, 2)
    )
    pooling = GeneralizedMeanPooling(power)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(pooling(feature_map))
    by_map, by_power = tape.gradient(total, [feature_map, pooling.p.value])
    assert np.isfinite(total.numpy())
    assert np.isfinite(by_map).all()
    assert np.isfinite(by_power)


def test_the_gradient_of_the_power_is_that_of_the_formula():
    feature_map = np.random.default_rng(0).uniform(0.1, 5, (1, 4, 4, 3)).astype(np.float32)
    pooling = GeneralizedMeanPooling()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(pooling(feature_map))
    gradient = tape.gradient(total, pooling.p.value)

    def formula(power):
        return ((feature_map.astype(np.float64) ** power).mean(axis=(1, 2)) ** (1 / power)).sum()

    assert pooling.p == 3
    np.testing.assert_allclose(gradient, (formula(3.001) - formula(2.999)) / 0.002, rtol=1e-3)


def test_average_and_max_pooling():
    feature_map = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(head(feature_map)[1], feature_map.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(head(feature_map, pooling="max")[1], feature_map.max(axis=(1, 2)))


def test_hidden_layers_dropout_and_embedding_are_named_and_in_order():
    model, _ = head(
        np.zeros((1, 2, 2, 3), np.float32),
        hidden=(8, 4),
        dropout=0.5,
        embedding_size=2,
        normalize=True,
    )
    names = ["pooling", "hidden_1", "hidden_2", "dropout", "embedding", "normalize"]
    assert [layer.name for layer in model.layers[1:]] == names


def test_normalised_vectors_have_length_1_in_their_direction():
    feature_map = np.random.default_rng(0).normal(size=(3, 2, 2, 5)).astype(np.float32)
    pooled = feature_map.mean(axis=(1, 2))
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(head(feature_map, normalize=True)[1], expected, rtol=1e-5)


def test_a_zero_vector_stays_zero_with_finite_gradients():
    model, vectors = head(np.zeros((1, 2, 2, 3), np.float32), normalize=True)
    np.testing.assert_array_equal(vectors, 0)
    feature_map = tf.Variable(np.zeros((1, 2, 2, 3), np.float32))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(feature_map))
    assert np.isfinite(tape.gradient(total, feature_map)).all()


def test_batch_normalisation_follows_each_hidden_layer_and_is_trained():
    feature_map = np.random.default_rng(0).normal(3, 2, (32, 2, 2, 3)).astype(np.float32)
    model, _ = head(feature_map, hidden=(8, 4), hidden_norm="batch", embedding_size=2)
    assert [layer.name for layer in model.layers[1:]] == [
        "pooling",
        "hidden_1",
        "hidden_1_norm",
        "hidden_2",
        "hidden_2_norm",
        "embedding",
    ]
    norm = model.get_layer("hidden_2_norm")
    normalised = keras.Model(model.input, norm.output)(feature_map, training=True)
    deviations = np.asarray(normalised).std(axis=0)
    assert (np.isclose(deviations, 1, atol=0.02) | (deviations == 0)).all()  # 0 of a dead relu
    assert deviations.any()
    assert np.asarray(norm.moving_mean).any()
