"""Pair, ranking and proxy losses: loops from their papers, numerical gradients, and their edges."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.losses import LOSSES
from cbir_tf.losses.keras_losses import (
    ArcFaceLoss,
    CircleLoss,
    ContrastiveLoss,
    FunctionLoss,
    MultiSimilarityLoss,
    ProxyAnchorLoss,
    ProxyLoss,
    ProxyNCALoss,
    SmoothAPLoss,
    SupervisedContrastiveLoss,
)

CONFORMANCE = Path(__file__).parents[2] / "conformance" / "losses"
NAIVE = runpy.run_path(str(CONFORMANCE / "naive_pairs.py"))


def _distances(embeddings):
    return np.sqrt(np.square(embeddings[:, None] - embeddings).sum(-1))


# The loss, and what the loops make of the embeddings (or similarities to proxies).
CASES = {
    "contrastive": (
        ContrastiveLoss(margin=1.2),
        lambda labels, x: NAIVE["contrastive"](labels, _distances(x), 1.2),
    ),
    "multi_similarity": (
        MultiSimilarityLoss(alpha=2.0, beta=10.0, base=0.4),
        lambda labels, x: NAIVE["multi_similarity"](labels, NAIVE["cosines"](x), 2, 10, 0.4, 0.1),
    ),
    "multi_similarity of all pairs": (
        MultiSimilarityLoss(epsilon=None),
        lambda labels, x: NAIVE["multi_similarity"](labels, NAIVE["cosines"](x), 2, 50, 0.5, None),
    ),
    "supervised_contrastive": (
        SupervisedContrastiveLoss(temperature=0.2),
        lambda labels, x: NAIVE["supervised_contrastive"](labels, NAIVE["cosines"](x), 0.2),
    ),
    "circle": (
        CircleLoss(margin=0.3, scale=8.0),
        lambda labels, x: NAIVE["circle"](labels, NAIVE["cosines"](x), 0.3, 8.0),
    ),
    "smooth_ap": (
        SmoothAPLoss(temperature=0.05),
        lambda labels, x: NAIVE["smooth_ap"](labels, NAIVE["cosines"](x), 0.05),
    ),
    "proxy_anchor": (
        ProxyAnchorLoss(),
        lambda labels, x: NAIVE["proxy_anchor"](labels, x, 0.1, 32.0),
    ),
    "proxy_nca": (ProxyNCALoss(), lambda labels, x: NAIVE["proxy_nca"](labels, x, 1 / 9)),
    "arcface": (
        ArcFaceLoss(margin=0.4, scale=16.0),
        lambda labels, x: NAIVE["arcface"](labels, x, 0.4, 16.0),
    ),
}
PAIRS = [name for name, (loss, _) in CASES.items() if not isinstance(loss, ProxyLoss)]
PROXIES = [name for name in CASES if name not in PAIRS]
every = pytest.mark.parametrize("name", CASES)


def batch(name: str, seed: int, count: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 4 classes, and embeddings or similarities to 4 proxies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    if name in PROXIES:
        return labels, rng.uniform(-0.95, 0.95, (count, 4))
    return labels, rng.standard_normal((count, 5))


def function_of(loss: FunctionLoss):
    return partial(type(loss).function, **loss.arguments)


def value_and_gradient(loss, labels, values):
    values = tf.convert_to_tensor(values)
    with tf.GradientTape() as tape:
        tape.watch(values)
        value = loss(labels, values)
    return float(value), tape.gradient(value, values).numpy()


@every
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_the_value_is_that_of_loops_over_samples(name, seed, count):
    loss, naive = CASES[name]
    labels, values = batch(name, seed, count)
    found = float(function_of(loss)(labels, values))
    assert found == pytest.approx(naive(labels, values), rel=1e-9, abs=1e-9)
    assert float(loss(labels, values.astype(np.float32))) == pytest.approx(
        found, rel=2e-4, abs=1e-5
    )


@every
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_the_slope_of_the_loops(name, seed):
    loss, naive = CASES[name]
    labels, values = batch(name, seed)
    if name == "circle":  # its weights carry no gradient
        fixed = NAIVE["cosines"](values)

        def naive(labels, x):
            return NAIVE["circle"](labels, NAIVE["cosines"](x), 0.3, 8.0, fixed)

    _, gradient = value_and_gradient(function_of(loss), labels, values)
    step = 1e-6
    for place in np.ndindex(values.shape):
        above, below = values.copy(), values.copy()
        above[place] += step
        below[place] -= step
        slope = (naive(labels, above) - naive(labels, below)) / (2 * step)
        assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-6)


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(name, dtype):
    loss, _ = CASES[name]
    labels, values = batch(name, 0)
    half = tf.cast(values, dtype)
    assert float(loss(labels, half)) == float(loss(labels, tf.cast(half, "float32")))
    assert loss(labels, half).dtype == tf.float32


@pytest.mark.parametrize("name", PAIRS)
def test_equal_embeddings_and_zeros_have_finite_gradients(name):
    loss, _ = CASES[name]
    labels = np.array([0, 0, 1, 1])
    for values in (np.ones((4, 3), np.float32), np.zeros((4, 3), np.float32)):
        value, gradient = value_and_gradient(loss, labels, values)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", PROXIES)
def test_similarities_at_their_ends_have_finite_gradients(name):
    loss, _ = CASES[name]
    ends = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0]], np.float32)
    value, gradient = value_and_gradient(loss, np.array([0, 0]), ends)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", PAIRS)
def test_a_batch_without_positive_pairs_gives_finite_values(name):
    loss, naive = CASES[name]
    for labels in (np.arange(5), np.zeros(1, int)):
        values = np.random.default_rng(1).standard_normal((len(labels), 3))
        value, gradient = value_and_gradient(loss, labels, values)
        assert value == pytest.approx(naive(labels, values), abs=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", PAIRS)
def test_labels_are_compared_exactly(name):
    """Above 2^24 float32 would merge neighbouring labels, which Keras casts them to."""
    loss, _ = CASES[name]
    _, values = batch(name, 3, 4)
    values = values.astype(np.float32)
    large = np.array([2**40, 2**40, 2**40 + 1, 2**40 + 1])
    assert float(loss(large, values)) == float(loss(np.array([0, 0, 1, 1]), values))


@every
def test_a_loss_is_saved_and_loaded_with_its_arguments(name):
    loss, _ = CASES[name]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    labels, values = batch(name, 5)
    assert float(again(labels, values)) == float(loss(labels, values))
    assert again.arguments == loss.arguments


@every
def test_sample_weights_and_wrong_shapes_are_refused(name):
    loss, _ = CASES[name]
    labels, values = batch(name, 0)
    with pytest.raises(UserError, match="y_true"):
        loss(np.eye(4)[labels], values)
    with pytest.raises(UserError, match="y_pred"):
        loss(labels, values[:, :, None])
    if name in PAIRS:
        with pytest.raises(UserError, match="sample_weight"):
            loss(labels, values, sample_weight=np.ones(len(labels)))
    with pytest.raises(TypeError, match="sharpness"):
        type(loss)(sharpness=3)


def test_every_loss_has_a_name_in_the_configuration():
    assert {type(loss) for loss, _ in CASES.values()} <= set(LOSSES.values())
