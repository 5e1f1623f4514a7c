"""Large batches in slices: the gradient and the training are those of the whole batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder
from cbir_tf.training.objectives import build_objective

SIDE, CLASSES, COUNT = 16, 4, 22


def objective(microbatch, loss="triplet_semi_hard", **model):
    settings = Config.check(
        {
            "data": {"source": "digits", "image_size": SIDE},
            "model": {
                "backbone": "small_cnn",
                "options": {"width": 4},
                "weights": None,
                "batch_norm": "frozen",
                "embedding_size": 8,
            }
            | model,
            "loss": loss,
            "training": {"microbatch": microbatch},
        }
    )
    return build_objective(build_embedder(settings.model, 0), settings, CLASSES, 0)


def batch():
    random = np.random.default_rng(1)
    labels = np.arange(COUNT) % CLASSES
    shade = np.linspace(30, 220, CLASSES)[labels, None, None, None]
    pixels = np.clip(shade + random.normal(0, 40, (COUNT, SIDE, SIDE, 3)), 0, 255)
    return pixels.astype(np.uint8), labels


def trained(microbatch, steps=3, **options):
    tested = objective(microbatch, **options)
    keras.utils.set_random_seed(7)
    tested.model.compile(keras.optimizers.SGD(0.5), tested.loss, jit_compile=False)
    losses = [float(tested.model.train_on_batch(*batch())) for _ in range(steps)]
    return losses, tested.model.get_weights()


@pytest.mark.parametrize(
    ("loss", "microbatch"),
    [
        *((loss, 5) for loss in ("triplet_semi_hard", "triplet_hard", "smooth_ap", "proxy_anchor")),
        ("multi_similarity", 1),
        ("multi_similarity", 22),
        ("multi_similarity", 100),
    ],
)
def test_training_in_slices_is_training_with_the_whole_batch(loss, microbatch):
    """22 images: slices of 5 leave a remainder, those of 100 are larger than the batch."""
    expected_losses, expected = trained(None, loss=loss)
    losses, weights = trained(microbatch, loss=loss)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_is_the_same_in_both_passes_of_a_slice():
    """With another mask in the second pass the loss would not fall along its own gradient."""
    tested = objective(4, dropout=0.5)
    keras.utils.set_random_seed(3)
    tested.model.compile(keras.optimizers.SGD(0.0), tested.loss, jit_compile=False)
    pixels, labels = batch()
    generators = [
        each for layer in tested.model._flatten_layers() for each in layer._seed_generators
    ]
    assert generators
    before = [np.array(each.state) for each in generators]
    tested.model.train_on_batch(pixels, labels)
    slices = -(-COUNT // 4)
    for old, each in zip(before, generators, strict=True):
        assert (np.array(each.state) != old).any()
        fresh = keras.random.SeedGenerator(0)
        fresh.state.assign(old)
        for _ in range(slices):  # as often as one pass draws
            fresh.next()
        np.testing.assert_array_equal(np.array(each.state), np.array(fresh.state))


def test_loss_scaling_leaves_the_gradient_as_it_is():
    steps = []
    for scaled in (False, True):
        tested = objective(4)
        optimizer = keras.optimizers.SGD(0.5)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
        tested.model.compile(optimizer, tested.loss, jit_compile=False)
        tested.model.train_on_batch(*batch())
        steps.append(tested.model.get_weights())
    for plain, scaled in zip(*steps, strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-6)


def test_only_one_slice_passes_the_network_at_a_time():
    """The largest activation of the compiled step is that of a slice."""
    tested = objective(2)
    tested.model.compile(keras.optimizers.SGD(0.1), tested.loss, jit_compile=False)
    pixels, labels = batch()

    @tf.function
    def step(images, targets):
        return tested.model.train_step((images, targets))["loss"]

    graph = step.get_concrete_function(tf.constant(pixels), tf.constant(labels)).graph
    functions = [
        graph,
        *(each.graph for each in graph._functions.values() if hasattr(each, "graph")),
    ]
    convolutions = [
        operation
        for each in functions
        for operation in each.get_operations()
        if operation.type == "Conv2D"
    ]
    assert all(operation.outputs[0].shape[0] in (None, 2) for operation in convolutions)


def test_trained_batch_norms_are_refused():
    with pytest.raises(UserError, match=r"microbatch.*batch_norm"):
        objective(4, batch_norm="trained")
