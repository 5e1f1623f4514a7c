"""What an embedder is trained for: its twin with a loss, and the targets that the loss takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from cbir_tf.config import Config
from cbir_tf.config.training import CrossEntropy, Reconstruction, Triplets
from cbir_tf.losses import build_loss
from cbir_tf.models import initial_weights_from, unnormalized
from cbir_tf.models.decoder import build_decoder

Tensor = Any


@dataclass(frozen=True)
class Objective:
    """A twin: a model over the embedder's own layers, and what it is trained towards.

    Training the twin trains the embedder, which stays free of optimizer, loss and whatever the
    twin has on top.

    Attributes:
        twin: uint8 RGB (B, H, W, 3) -> float32 outputs: embeddings, logits or pixels.
        embedder: the same images -> embeddings.
        loss: of (targets, outputs).
        targets: (uint8 images, integer labels) -> what the loss holds the outputs against.
        companion: a model to be saved beside the embedder, under its own name: `classifier`, from
            images to the probability of each class, or `autoencoder`, to pixels in 0..1.
        noise: standard deviation of the noise on the images that the twin is trained on, of
            pixels in 0..1.
        has_classes: whether the outputs are the logits of the classes.
    """

    twin: keras.Model
    embedder: keras.Model
    loss: keras.losses.Loss
    targets: Callable[[Tensor, Tensor], Tensor] = lambda images, labels: labels
    companion: keras.Model | None = None
    noise: float = 0.0
    has_classes: bool = False

    @cached_property
    def observed(self) -> keras.Model:
        """The same images -> [embeddings, outputs]."""
        outputs = [self.embedder.outputs[0], self.twin.outputs[0]]
        observed = keras.Model(self.embedder.inputs, outputs)
        observed.jit_compile = False  # as the embedder's
        return observed

    def batches(self, batches: tf.data.Dataset, seed: int, first: int = 0) -> tf.data.Dataset:
        """Training batches as the twin takes them.

        Args:
            batches: of uint8 images and integer labels.
            seed: of the noise; with the number of a batch it decides it.
            first: number of the first batch, counted from the beginning of the training.

        Returns:
            A dataset of uint8 images, disturbed where there is noise, and targets.
        """

        @tf.autograph.experimental.do_not_convert
        def one(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[Tensor, Tensor]:
            images, labels = batch
            targets = self.targets(images, labels)
            return disturbed(images, self.noise, seed, number), targets

        return batches.enumerate(first).map(one, num_parallel_calls=tf.data.AUTOTUNE)

    def figures(self, images: np.ndarray, labels: np.ndarray, outputs: Tensor) -> dict[str, float]:
        """What one batch is measured by, each the mean over its images; undisturbed ones.

        Args:
            images: (B, H, W, 3) uint8.
            labels: (B,) integers.
            outputs: the twin's.
        """
        found = {"loss": float(self.loss(self.targets(images, labels), outputs))}
        if self.has_classes:
            found["accuracy"] = float(np.mean(np.argmax(outputs, axis=1) == labels))
        return found


def build_objective(
    embedder: keras.Model, settings: Config, classes: int, seed: int = 0
) -> Objective:
    """The objective that a configuration's `loss` section names.

    Args:
        embedder: to be trained.
        settings: `loss`, and `data.image_size`, which a decoder makes.
        classes: number of classes, which a classifier tells apart.
        seed: of the random weights of what the twin has on top.
    """
    with initial_weights_from(seed):
        return OBJECTIVES[settings.loss.name](embedder, settings, classes)


def disturbed(images: Tensor, noise: float, seed: int, number: Tensor = 0) -> Tensor:
    """Images with Gaussian noise, each pixel cut to what a pixel can be; without noise themselves.

    Args:
        images: uint8 (B, H, W, 3).
        noise: standard deviation, of pixels in 0..1.
        seed: not negative.
        number: of the batch; the same seed and number give the same noise.

    Returns:
        uint8 (B, H, W, 3).
    """
    if not noise:
        return images
    words = tf.stack([tf.constant(seed % 2**63, tf.int64), tf.cast(number, tf.int64)])
    added = tf.random.stateless_normal(tf.shape(images), words, stddev=255 * noise)
    whole = tf.round(tf.clip_by_value(tf.cast(images, tf.float32) + added, 0, 255))
    return tf.cast(whole, tf.uint8)


def as_pixels(images: Tensor) -> Tensor:
    """uint8 0..255 as float32 0..1."""
    return ops.cast(images, "float32") / 255


def _triplets(embedder: keras.Model, settings: Config, classes: int) -> Objective:
    assert isinstance(settings.loss, Triplets)
    twin = keras.Model(embedder.inputs, embedder.outputs[0])
    return Objective(twin, embedder, build_loss(settings.loss))


def _classification(embedder: keras.Model, settings: Config, classes: int) -> Objective:
    assert isinstance(settings.loss, CrossEntropy)
    logits = layers.Dense(classes, dtype="float32", name="logits")(unnormalized(embedder))
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(logits)
    return Objective(
        keras.Model(embedder.inputs, logits),
        embedder,
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.loss.label_smoothing, dtype="float32"
        ),
        lambda images, labels: ops.one_hot(labels, classes, dtype="float32"),
        keras.Model(embedder.inputs, probabilities, name="classifier"),
        has_classes=True,
    )


def _reconstruction(embedder: keras.Model, settings: Config, classes: int) -> Objective:
    assert isinstance(settings.loss, Reconstruction)
    vector = unnormalized(embedder)
    pixels = build_decoder(vector.shape[1], *settings.data.image_size)(vector)
    return Objective(
        keras.Model(embedder.inputs, pixels),
        embedder,
        keras.losses.MeanSquaredError(dtype="float32"),
        lambda images, labels: as_pixels(images),
        keras.Model(embedder.inputs, pixels, name="autoencoder"),
        noise=settings.loss.noise,
    )


OBJECTIVES: dict[str, Callable[[keras.Model, Config, int], Objective]] = {
    "triplet_semi_hard": _triplets,
    "triplet_hard": _triplets,
    "cross_entropy": _classification,
    "reconstruction": _reconstruction,
}
