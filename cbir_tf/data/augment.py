"""Random augmentation of training images, decided by a seed alone.

Every step takes and returns a uint8 (H, W, 3) image, with its section of the configuration and a
seed of its own: two integers, for TensorFlow's stateless random operations. The size stays, but
for that of a crop which names another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from cbir_tf.config import data as config_data
from cbir_tf.data import pixel_ops
from cbir_tf.data.rand_augment import rand_augment
from cbir_tf.errors import UserError


def augment(
    image: tf.Tensor, steps: Sequence[config_data.Augmentation], seed: tf.Tensor | Sequence[int]
) -> tf.Tensor:
    """Apply steps in order.

    Args:
        image: uint8 (H, W, 3) of known size.
        steps: sections of `data.augmentation`.
        seed: (2,) integers; the same seed gives the same picture.

    Returns:
        uint8 (H, W, 3), or of the last crop's size.

    Raises:
        UserError: a crop or its padding does not fit the image.

    Example:
        >>> image = tf.zeros((32, 32, 3), tf.uint8)
        >>> augment(image, [config_data.RandomCrop(size=28, padding=4)], seed=(0, 1)).shape
        TensorShape([28, 28, 3])
    """
    for number, step in enumerate(steps):
        step_seed = tf.random.experimental.stateless_fold_in(seed, number)
        image = STEPS[step.name](image, step, step_seed)
    return image


def flip(image: tf.Tensor, step: config_data.Flip, seed: tf.Tensor) -> tf.Tensor:
    """Mirror left and right half of the time; with `vertical`, up and down too."""
    chances = _uniform(2, seed)
    image = _maybe(chances[0] < 0.5, lambda each: tf.reverse(each, [1]), image)
    if step.vertical:
        image = _maybe(chances[1] < 0.5, lambda each: tf.reverse(each, [0]), image)
    return image


def random_crop(image: tf.Tensor, step: config_data.RandomCrop, seed: tf.Tensor) -> tf.Tensor:
    """Cut a square or, without `size`, the input's rectangle out of the padded image.

    A smaller crop stays so: training on 128 pixels of 160 and testing on all is BiT's recipe.
    """
    height, width, _ = image.shape
    crop_height, crop_width = (step.size, step.size) if step.size else (height, width)
    border = step.padding
    if border >= min(height, width):
        raise UserError(
            f"data.augmentation: random_crop: padding {border} must be smaller than the image, "
            f"{height} x {width} (data.image_size); lower it"
        )
    if crop_height > height + 2 * border or crop_width > width + 2 * border:
        raise UserError(
            f"data.augmentation: random_crop: size {step.size} is larger than the padded image, "
            f"{height + 2 * border} x {width + 2 * border}; lower it"
        )
    draws = _uniform(2, seed)
    top = _position(draws[0], height + 2 * border - crop_height) - border
    left = _position(draws[1], width + 2 * border - crop_width) - border
    return pixel_ops.window(image, top, left, (crop_height, crop_width))


def random_resized_crop(
    image: tf.Tensor, step: config_data.RandomResizedCrop, seed: tf.Tensor
) -> tf.Tensor:
    """Cut out a rectangle of random area, shape and place and scale it to the input's size.

    A smaller `size` trains faster. It also brings the size of objects in training nearer to that at
    test time, as crops enlarge them (Touvron et al. 2019, Fixing the train-test resolution
    discrepancy).

    The logarithm of width by height is uniform, within the shapes that fit the image.
    """
    height, width, _ = image.shape
    draws = _uniform(4, seed)
    area = height * width * _between(draws[0], *step.scale)
    ratio = tf.exp(_between(draws[1], *(tf.math.log(float(each)) for each in step.ratio)))
    ratio = tf.clip_by_value(ratio, area / height**2, width**2 / area)
    crop_height = _whole(tf.sqrt(area / ratio), height)
    crop_width = _whole(tf.sqrt(area * ratio), width)
    top = _position(draws[2], height - crop_height)
    left = _position(draws[3], width - crop_width)
    crop = tf.slice(image, (top, left, 0), tf.stack([crop_height, crop_width, 3]))
    to_height, to_width = (step.size, step.size) if step.size else (height, width)
    return tf.ensure_shape(pixel_ops.scale_to(crop, to_height, to_width), (to_height, to_width, 3))


def color_jitter(image: tf.Tensor, step: config_data.ColorJitter, seed: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue, in this order."""
    draws = _uniform(5, seed)

    def jitter(image: tf.Tensor) -> tf.Tensor:
        image = pixel_ops.recolor(
            image,
            brightness=_between(draws[1], 1 - step.brightness, 1 + step.brightness),
            contrast=_between(draws[2], 1 - step.contrast, 1 + step.contrast),
            saturation=_between(draws[3], 1 - step.saturation, 1 + step.saturation),
        )
        if step.hue:
            image = pixel_ops.hue(image, _between(draws[4], -step.hue, step.hue))
        return image

    return _maybe(draws[0] < step.probability, jitter, image)


def grayscale(image: tf.Tensor, step: config_data.Grayscale, seed: tf.Tensor) -> tf.Tensor:
    """Remove the colour."""
    return _maybe(_uniform(1, seed)[0] < step.probability, pixel_ops.gray, image)


def rotation(image: tf.Tensor, step: config_data.Rotation, seed: tf.Tensor) -> tf.Tensor:
    """Turn about the centre by a random angle."""
    return pixel_ops.rotate(image, _between(_uniform(1, seed)[0], -step.degrees, step.degrees))


STEPS: dict[str, Callable[[tf.Tensor, Any, tf.Tensor], tf.Tensor]] = {
    "flip": flip,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "color_jitter": color_jitter,
    "grayscale": grayscale,
    "rotation": rotation,
    "rand_augment": rand_augment,
}


def _uniform(count: int, seed: tf.Tensor) -> tf.Tensor:
    """float32 (count,) within 0..1, 1 excluded."""
    return tf.random.stateless_uniform((count,), seed)


def _between(draw: tf.Tensor, low: float | tf.Tensor, high: float | tf.Tensor) -> tf.Tensor:
    return low + draw * (high - low)


def _position(draw: tf.Tensor, last: int | tf.Tensor) -> tf.Tensor:
    """int32 within 0..last."""
    return tf.cast(draw * tf.cast(last + 1, tf.float32), tf.int32)


def _whole(value: tf.Tensor, most: int) -> tf.Tensor:
    return tf.clip_by_value(tf.cast(tf.round(value), tf.int32), 1, most)


def _maybe(
    chosen: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor
) -> tf.Tensor:
    return tf.cond(chosen, lambda: change(image), lambda: image)
