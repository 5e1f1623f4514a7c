"""What an embedder is trained for: a model over it, a loss, and the targets of that loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from cbir_tf.config import Config
from cbir_tf.config.losses import CrossEntropy, Pairs, Proxies, Reconstruction, Triplets
from cbir_tf.losses import build_loss
from cbir_tf.models import initial_weights_from, unnormalized
from cbir_tf.models.decoder import build_decoder
from cbir_tf.models.proxies import ProxySimilarities
from cbir_tf.training.microbatches import MicrobatchedModel

Tensor = Any


@dataclass(frozen=True)
class Objective:
    """A model over the embedder's own layers, and the loss it is trained by.

    Training the model trains the embedder, which itself stays free of optimizer, loss and head.

    Attributes:
        model: uint8 RGB (B, H, W, 3) -> float32 outputs: embeddings, logits or pixels.
        embedder: the same images -> embeddings.
        loss: of (targets, outputs).
        targets: (uint8 images, integer labels) -> targets of the loss.
        saved_model: saved beside the embedder, under its own name: `classifier`, from images to
            the probability of each class, or `autoencoder`, to pixels in 0..1; None for any other
            loss.
        noise: standard deviation of the Gaussian noise on the training images, of pixels in 0..1.
        is_classifier: whether the outputs are the logits of the classes.
        has_class_outputs: whether the outputs count into the training classes, so that there is no
            loss of others.
    """

    model: keras.Model
    embedder: keras.Model
    loss: keras.losses.Loss
    targets: Callable[[Tensor, Tensor], Tensor] = lambda images, labels: labels
    saved_model: keras.Model | None = None
    noise: float = 0.0
    is_classifier: bool = False
    has_class_outputs: bool = False

    @cached_property
    def validation_model(self) -> keras.Model:
        """The same images -> [embeddings, outputs], so that one pass gives both."""
        outputs = [self.embedder.outputs[0], self.model.outputs[0]]
        model = keras.Model(self.embedder.inputs, outputs)
        model.jit_compile = False  # as the embedder's
        return model

    def batches(self, batches: tf.data.Dataset, seed: int, first: int = 0) -> tf.data.Dataset:
        """Training batches as the model takes them.

        Args:
            batches: of uint8 images and integer labels.
            seed: of the noise, together with the number of the batch.
            first: number of the first batch, counted from the beginning of the training.

        Returns:
            A dataset of uint8 images, with noise if the objective has any, and targets.
        """

        def prepared(
            number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]
        ) -> tuple[Tensor, Tensor]:
            images, labels = batch
            return with_noise(images, self.noise, seed, number), self.targets(images, labels)

        function = tf.autograph.experimental.do_not_convert(prepared)
        return batches.enumerate(first).map(function, num_parallel_calls=tf.data.AUTOTUNE)

    def batch_metrics(
        self, images: np.ndarray, labels: np.ndarray, outputs: Tensor
    ) -> dict[str, float]:
        """Loss, and accuracy of a classifier, each the mean over one batch without noise.

        Args:
            images: (B, H, W, 3) uint8.
            labels: (B,) integers.
            outputs: of the model.
        """
        metrics = {"loss": float(self.loss(self.targets(images, labels), outputs))}
        if self.is_classifier:
            metrics["accuracy"] = float(np.mean(np.argmax(outputs, axis=1) == labels))
        return metrics


def build_objective(
    embedder: keras.Model, settings: Config, classes: int, seed: int = 0
) -> Objective:
    """The objective of a configuration's `loss` section.

    Args:
        embedder: to be trained.
        settings: `loss`, and `data.image_size`, the size of a decoder's images.
        classes: number of classes of a classifier.
        seed: of the initial weights of the layers over the embedder.
    """
    with initial_weights_from(seed):
        objective = OBJECTIVES[settings.loss.name](embedder, settings, classes)
    microbatch = settings.training.microbatch
    if microbatch is None:
        return objective
    model = objective.model
    return replace(objective, model=MicrobatchedModel(model.inputs, model.outputs[0], microbatch))


def with_noise(images: Tensor, noise: float, seed: int, number: Tensor = 0) -> Tensor:
    """Images with Gaussian noise, rounded and clipped to 0..255.

    Args:
        images: uint8 (B, H, W, 3).
        noise: standard deviation, of pixels in 0..1; 0 returns the images themselves.
        seed: not negative.
        number: of the batch; the same seed and number give the same noise.

    Returns:
        uint8 (B, H, W, 3).

    Example:
        >>> gray = np.full((1, 2, 2, 3), 128, np.uint8)
        >>> noisy = with_noise(gray, 0.1, seed=0, number=7)
        >>> bool((np.asarray(noisy) == np.asarray(with_noise(gray, 0.1, seed=0, number=7))).all())
        True
    """
    if not noise:
        return images
    words = tf.stack([tf.constant(seed % 2**63, tf.int64), tf.cast(number, tf.int64)])
    added = tf.random.stateless_normal(tf.shape(images), words, stddev=255 * noise)
    whole = tf.round(tf.clip_by_value(tf.cast(images, tf.float32) + added, 0, 255))
    return tf.cast(whole, tf.uint8)


def as_pixels(images: Tensor) -> Tensor:
    """uint8 0..255 as float32 0..1, any shape."""
    return ops.cast(images, "float32") / 255


def _pairs(embedder: keras.Model, settings: Config, classes: int) -> Objective:
    assert isinstance(settings.loss, Triplets | Pairs)
    model = keras.Model(embedder.inputs, embedder.outputs[0])
    return Objective(model, embedder, build_loss(settings.loss))


def _proxies(embedder: keras.Model, settings: Config, classes: int) -> Objective:
    loss = settings.loss
    assert isinstance(loss, Proxies)
    # Plain SGD's step grows with the square of the factor, that of the others with the factor.
    factor = loss.proxy_rate**0.5 if settings.optimizer.name == "sgd" else loss.proxy_rate
    layer = ProxySimilarities(classes, loss.proxies_per_class, factor, name="proxies")
    return Objective(
        keras.Model(embedder.inputs, layer(embedder.outputs[0])),
        embedder,
        build_loss(loss),
        has_class_outputs=True,
    )


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
        is_classifier=True,
        has_class_outputs=True,
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
    "triplet_semi_hard": _pairs,
    "triplet_hard": _pairs,
    "contrastive": _pairs,
    "multi_similarity": _pairs,
    "supervised_contrastive": _pairs,
    "circle": _pairs,
    "smooth_ap": _pairs,
    "proxy_anchor": _proxies,
    "proxy_nca": _proxies,
    "arcface": _proxies,
    "cross_entropy": _classification,
    "reconstruction": _reconstruction,
}
