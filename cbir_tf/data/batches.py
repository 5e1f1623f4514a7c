"""Batches of pixels: from an ImageSet to a tf.data dataset of uint8 RGB images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from cbir_tf.config.data import Augmentation, Data
from cbir_tf.data.augment import augment
from cbir_tf.data.decode import ImageError, decode_image
from cbir_tf.data.sampling import epoch_batches, steps_per_epoch
from cbir_tf.errors import UserError
from cbir_tf.types import ImageSet

_log = logging.getLogger("cbir_tf.data")

Failures = dict[str, str]
"""Reason by id for each image that could not be decoded."""


class _Pixels:
    """Decodes images of a set by position; with a cache, each image once."""

    def __init__(self, images: ImageSet, data: Data, failures: Failures) -> None:
        self.images = images
        self.size = data.image_size
        self.resize = data.resize
        self.failures = failures
        self.cache = _room(len(images), self.size) if data.cache == "memory" else None
        self.cached = np.zeros(len(images), bool)

    def training_batch(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `batch`; an error if no image of the batch can be decoded."""
        pixels, kept = self.batch(positions)
        if not len(kept):
            first = str(self.images.ids[positions[0]])
            raise UserError(
                f"data: none of a batch of {len(positions)} images could be decoded; check the "
                f"files, the first is {first}: {self.failures[first]}"
            )
        return pixels, kept

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
        return (pixels, positions) if good.all() else (pixels[good], positions[good])

    def _one(self, position: int) -> np.ndarray:
        if self.cache is None:
            return decode_image(self.images.sources[position], self.size, self.resize)
        if not self.cached[position]:
            source = self.images.sources[position]
            self.cache[position] = decode_image(source, self.size, self.resize)
            self.cached[position] = True
        pixels: np.ndarray = self.cache[position]
        return pixels

    def _report(self, name: str, error: ImageError) -> None:
        if name not in self.failures:
            self.failures[name] = error.reason
            _log.warning("%s is left out: %s", name, error.reason)


def _room(count: int, size: tuple[int, int]) -> np.ndarray:
    """An empty (N, H, W, 3) uint8 array; the system allocates its memory as it is filled."""
    try:
        return np.empty((count, *size, 3), np.uint8)
    except MemoryError:
        gigabytes = count * size[0] * size[1] * 3 / 1e9
        raise UserError(
            f"data.cache: {count} images of {size[0]} x {size[1]} need {gigabytes:.0f} GB "
            "of memory; set data.cache=none"
        ) from None


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
        seed: of the run; together with epoch and batch it determines all randomness.
        first_epoch: counted from 0; its batches are the same as in a run from epoch 0.
        epochs: number of epochs.
        steps: batches per epoch; None: `sampling.steps_per_epoch`.
        failures: receives the images that could not be decoded.

    Returns:
        A finite dataset of (B, H, W, 3) uint8 and (B,) int64 labels; B may vary.

    Raises:
        UserError: from `sampling.epoch_batches` and `augment.augment`, or the cache does not fit
            into memory. A batch without any image that can be decoded ends the dataset with an
            error of TensorFlow.
    """
    filled = steps_per_epoch(images.labels, data.batch)
    steps = filled if steps is None else steps
    pixels = _Pixels(images, data, {} if failures is None else failures)

    def plan() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for epoch in range(first_epoch, first_epoch + epochs):
            batches = epoch_batches(images.labels, data.batch, seed, epoch, steps=steps)
            for step, positions in enumerate(batches):
                yield positions, _words(seed, epoch, step)

    def read(positions: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch, kept = _decode(pixels.training_batch, positions, data.image_size)
        if data.augmentation:
            batch = _augment(batch, kept, data.augmentation, seed)
        return batch, tf.gather(images.labels, kept)

    return (
        tf.data.Dataset.from_generator(
            plan,
            output_signature=(tf.TensorSpec((None,), tf.int64), tf.TensorSpec((2,), tf.int32)),
        )
        .apply(tf.data.experimental.assert_cardinality(steps * epochs))
        # Autograph would turn an error in the configuration into a long traceback.
        .map(tf.autograph.experimental.do_not_convert(read), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )


def inference_batches(
    images: ImageSet,
    data: Data,
    batch_size: int | None = None,
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Every image once, in order, without augmentation.

    Args:
        images: any images.
        data: image size; nothing is cached, as each image is read once.
        batch_size: images per batch; None: `data.batch.size`.
        failures: receives the images that could not be decoded.

    Returns:
        A finite dataset of (B, H, W, 3) uint8 and (B,) int64 positions in `images`; the positions
        of images that cannot be decoded do not appear.
    """
    return _plain(images, data, np.arange(len(images)), batch_size, failures)


def _plain(
    images: ImageSet,
    data: Data,
    order: np.ndarray,
    batch_size: int | None,
    failures: Failures | None,
) -> tf.data.Dataset:
    data = data.model_copy(update={"cache": "none"})
    pixels = _Pixels(images, data, {} if failures is None else failures)
    return (
        tf.data.Dataset.from_tensor_slices(order)
        .batch(batch_size or data.batch.size)
        .map(
            lambda positions: _decode(pixels.batch, positions, data.image_size),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .filter(lambda batch, positions: tf.size(positions) > 0)
        .prefetch(2)
    )


def _decode(
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    positions: tf.Tensor,
    size: tuple[int, int],
) -> tuple[tf.Tensor, tf.Tensor]:
    batch, kept = tf.numpy_function(read, [positions], (tf.uint8, tf.int64))
    return tf.ensure_shape(batch, (None, *size, 3)), tf.ensure_shape(kept, (None,))


def _augment(
    batch: tf.Tensor, positions: tf.Tensor, steps: Sequence[Augmentation], seed: tf.Tensor
) -> tf.Tensor:
    """Augment each image with a seed made of the batch's seed and the image's position."""

    def one(image_and_position: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, position = image_and_position
        return augment(image, steps, tf.random.experimental.stateless_fold_in(seed, position))

    augmented = tf.map_fn(one, (batch, positions), fn_output_signature=tf.uint8)
    return tf.ensure_shape(augmented, (None, None, None, 3))


def _words(*numbers: int) -> np.ndarray:
    """A seed for TensorFlow's stateless operations, from integers of any size."""
    return np.random.SeedSequence(numbers).generate_state(2).astype(np.int32)
