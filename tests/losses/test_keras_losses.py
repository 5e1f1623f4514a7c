"""The triplet losses inside Keras: labels, precision, saving, training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbir_tf.config.losses import HardTriplets, SemiHardTriplets
from cbir_tf.errors import UserError
from cbir_tf.losses import (
    TripletHardLoss,
    TripletSemiHardLoss,
    build_loss,
    triplet_hard_loss,
    triplet_semihard_loss,
)

ROOT = Path(__file__).resolve().parents[2]
CLASSES = pytest.mark.parametrize("kind", [TripletSemiHardLoss, TripletHardLoss])


@keras.saving.register_keras_serializable(package="cbir_tf_tests")
def manhattan(rows):
    return tf.reduce_sum(tf.abs(rows[:, None] - rows), axis=-1)


@pytest.fixture
def policy():
    """Sets a dtype policy and puts the former one back."""
    former = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(former)


def small_model(jit_compile=False, loss=None):
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(4)]
    )
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=jit_compile)
    return model


def blobs(classes=6, of_a_class=5):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), of_a_class)
    centres = random.normal(size=(classes, 6))
    noise = random.normal(size=(len(labels), 6))
    return (centres[labels] + 0.7 * noise).astype(np.float32), labels


def test_classes_compute_what_the_functions_do():
    images, labels = blobs()
    assert TripletSemiHardLoss(0.3, "angular")(labels, images).numpy() == pytest.approx(
        triplet_semihard_loss(labels, images, 0.3, "angular").numpy()
    )
    assert TripletHardLoss(0.3, True, "squared-L2")(labels, images).numpy() == pytest.approx(
        triplet_hard_loss(labels, images, 0.3, True, "squared-L2").numpy()
    )


def test_the_defaults_are_those_of_tensorflow_addons():
    assert TripletSemiHardLoss(name="mine").get_config() == {
        "margin": 1.0,
        "distance_metric": "L2",
        "name": "mine",
    }
    assert TripletHardLoss(name="mine").get_config() == {
        "margin": 1.0,
        "soft": False,
        "distance_metric": "L2",
        "name": "mine",
    }


@CLASSES
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_labels_stay_apart_inside_a_compiled_model(kind, precision, jit_compile, policy):
    policy(precision)
    images, labels = blobs()
    model = small_model(jit_compile, kind())
    small = model.evaluate(images, labels, batch_size=30, verbose=0)
    for offset in (300, 2**24, 2**40):
        large = model.evaluate(images, labels + offset, batch_size=30, verbose=0)
        assert large == pytest.approx(small, rel=1e-6)


@CLASSES
def test_arithmetic_is_float32_under_mixed_precision(kind, policy):
    policy("mixed_bfloat16")
    images, labels = blobs()
    embeddings = small_model(loss=kind())(images)
    assert embeddings.dtype == tf.bfloat16
    loss = kind()(labels, embeddings)
    assert loss.dtype == tf.float32
    assert loss.numpy() == kind()(labels, tf.cast(embeddings, tf.float32)).numpy()


@CLASSES
@pytest.mark.parametrize("metric", ["squared-L2", manhattan])
def test_a_saved_model_comes_back_with_its_loss(kind, metric, tmp_path):
    images, labels = blobs()
    model = small_model(loss=kind(margin=0.3, distance_metric=metric))
    expected = model.evaluate(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(images, labels, verbose=0) == pytest.approx(expected, rel=1e-6)
    assert isinstance(loaded.loss, kind)
    assert loaded.loss.get_config() == model.loss.get_config()


@CLASSES
def test_training_lowers_the_loss(kind):
    images, labels = blobs()
    model = small_model(loss=kind(margin=0.5))
    history = model.fit(images, labels, batch_size=30, epochs=40, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


TWO_REPLICAS = """
import numpy as np, tensorflow as tf
devices = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from cbir_tf.losses import TripletHardLoss, TripletSemiHardLoss
labels, images = np.arange(8) // 2, np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for loss in (TripletSemiHardLoss(), TripletHardLoss()):
    total = strategy.reduce("SUM", strategy.run(loss, (labels, images)), axis=None)
    np.testing.assert_allclose(total, loss(labels, images), rtol=1e-6)
"""


@pytest.mark.slow
def test_replicas_that_see_the_same_add_up_to_the_loss_of_one():
    # tf.distribute adds up the gradients of all replicas, so each has to give its share.
    subprocess.run([sys.executable, "-c", TWO_REPLICAS], check=True, cwd=ROOT)


@CLASSES
def test_sample_weights_are_refused(kind):
    images, labels = blobs()
    with pytest.raises(UserError, match="sample_weight"):
        kind()(labels, images, np.ones(len(labels)))


@CLASSES
def test_unknown_distance_is_refused_at_once(kind):
    with pytest.raises(UserError, match="did you mean 'angular'"):
        kind(distance_metric="angle")


@pytest.mark.parametrize(
    ("config", "kind", "settings"),
    [
        (SemiHardTriplets(margin=0.1, distance="angular"), TripletSemiHardLoss, {"margin": 0.1}),
        (HardTriplets(soft=True), TripletHardLoss, {"soft": True, "margin": 0.2}),
    ],
)
def test_the_configuration_builds_its_loss(config, kind, settings):
    loss = build_loss(config)
    assert type(loss) is kind
    assert loss.get_config().items() >= settings.items()
    assert loss.distance_metric == config.distance
