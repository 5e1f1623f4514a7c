"""Batches of pixels: tf.data from an ImageSet to uint8 RGB."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cbir_tf.config import Data
from cbir_tf.data.augment import augment
from cbir_tf.data.decode import ImageError, decode_image
from cbir_tf.data.sampling import epoch_batches
from cbir_tf.types import ImageSet

_log = logging.getLogger("cbir_tf.data")

Failures = dict[str, str]
"""Id of each image that could not be decoded, and why."""


class _Pixels:
    """Decodes images of a set by position; with a cache, each one once."""

    def __init__(self, images: ImageSet, data: Data, failures: Failures) -> None:
        self.images = images
        self.size = data.image_size
        self.resize = data.resize
        self.failures = failures
        self.cache = None
        if data.cache == "memory":
            self.cache = np.empty((len(images), *self.size, 3), np.uint8)
            self.cached = np.zeros(len(images), bool)

    def batch(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, H, W, 3) uint8 and (B,) int64: the images at `positions` that can be decoded."""
        pixels = np.empty((len(positions), *self.size, 3), np.uint8)
        good = np.ones(len(positions), bool)
        for row, position in enumerate(positions):
            try:
                pixels[row] = self._one(position)
            except ImageError as error:
                good[row] = False
                self._report(str(self.images.ids[position]), error)
        if not good.all():
            pixels, positions = pixels[good], positions[good]
        return pixels, positions

    def _one(self, position: int) -> np.ndarray:
        if self.cache is None:
            return decode_image(self.images.sources[position], self.size, self.resize)
        if not self.cached[position]:
            source = self.images.sources[position]
            self.cache[position] = decode_image(source, self.size, self.resize)
            self.cached[position] = True
        return self.cache[position]

    def _report(self, name: str, error: ImageError) -> None:
        if name not in self.failures:
            self.failures[name] = error.reason
            _log.warning("%s is left out: %s", name, error.reason)


def training_batches(
    images: ImageSet,
    data: Data,
    seed: int,
    first_epoch: int = 0,
    epochs: int = 1,
    *,
    steps: int | None = None,
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Augmented training batches of all epochs, one after the other.

    An image that cannot be decoded is dropped from its batch and logged once.

    Args:
        images: the training images.
        data: size, sampler, augmentation and cache.
        seed: the run's; with epoch and batch it decides everything random.
        first_epoch: where to start, counted from 0; the batches are those that a run from epoch 0
            comes to.
        epochs: how many epochs follow.
        steps: batches an epoch; None: as `sampling.steps_per_epoch`.
        failures: filled, as they are met, with the images that could not be decoded.

    Returns:
        A finite dataset of (B, H, W, 3) uint8 and (B,) int64 labels; B may vary.

    Raises:
        UserError: as `sampling.epoch_batches`.
    """

    def index_batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for epoch in range(first_epoch, first_epoch + epochs):
            for step, positions in enumerate(
                epoch_batches(images.labels, data.batch, seed, epoch, steps=steps)
            ):
                yield positions, _words(seed, epoch, step)

    per_epoch = len(epoch_batches(images.labels, data.batch, seed, first_epoch, steps=steps))
    pixels = _Pixels(images, data, {} if failures is None else failures)
    labels = tf.constant(images.labels)

    @tf.autograph.experimental.do_not_convert
    def read(positions: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch, kept = _decode(pixels, positions)
        if data.augmentation:
            batch = tf.map_fn(
                lambda pair: augment(
                    pair[0],
                    data.augmentation,
                    tf.random.experimental.stateless_fold_in(seeds, pair[1]),
                ),
                (batch, kept),
                fn_output_signature=tf.TensorSpec((*data.image_size, 3), tf.uint8),
            )
        return batch, tf.gather(labels, kept)

    source = tf.data.Dataset.from_generator(
        index_batches,
        output_signature=(tf.TensorSpec((None,), tf.int64), tf.TensorSpec((2,), tf.int32)),
    ).apply(tf.data.experimental.assert_cardinality(per_epoch * epochs))
    return source.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def inference_batches(
    images: ImageSet,
    data: Data,
    batch_size: int | None = None,
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Every image once, in order, as it is.

    Args:
        images: any images.
        data: size and cache.
        batch_size: images in a batch; None: `data.batch.size`.
        failures: filled, as they are met, with the images that could not be decoded.

    Returns:
        A finite dataset of (B, H, W, 3) uint8 and (B,) int64 positions in `images`; the positions
        of images that cannot be decoded do not appear.
    """
    return _plain(images, data, np.arange(len(images)), batch_size, failures)


def validation_batches(
    images: ImageSet, data: Data, seed: int, failures: Failures | None = None
) -> tf.data.Dataset:
    """Every image once, as it is, in one order fixed by the seed that mixes the classes.

    Args:
        images: the validation images.
        data: size, batch size and cache.
        seed: the run's.
        failures: filled, as they are met, with the images that could not be decoded.

    Returns:
        A finite dataset of (B, H, W, 3) uint8 and (B,) int64 labels.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    labels = tf.constant(images.labels)
    return _plain(images, data, order, None, failures).map(
        lambda pixels, positions: (pixels, tf.gather(labels, positions))
    )


def _plain(
    images: ImageSet,
    data: Data,
    order: np.ndarray,
    batch_size: int | None,
    failures: Failures | None,
) -> tf.data.Dataset:
    pixels = _Pixels(images, data, {} if failures is None else failures)
    return (
        tf.data.Dataset.from_tensor_slices(order)
        .batch(batch_size or data.batch.size)
        .map(lambda positions: _decode(pixels, positions), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )


def _decode(pixels: _Pixels, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    batch, kept = tf.numpy_function(pixels.batch, [positions], (tf.uint8, tf.int64))
    batch.set_shape((None, *pixels.size, 3))
    kept.set_shape((None,))
    return batch, kept


def _words(*numbers: int) -> np.ndarray:
    """A seed for TensorFlow's stateless operations, made of numbers of any size."""
    return np.random.SeedSequence(numbers).generate_state(2).astype(np.int32)
