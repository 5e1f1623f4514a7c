"""RandAugment: Cubuk et al., 2020, https://arxiv.org/abs/1909.13719.

`keras.layers.RandAugment` uses a generator that counts its calls, so that images would differ after
a resume; here the seed alone decides.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from cbir_tf.config.data import RandAugment
from cbir_tf.data import pixel_ops

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength: image,
    "auto_contrast": lambda image, strength: pixel_ops.auto_contrast(image),
    "equalize": lambda image, strength: pixel_ops.equalize(image),
    "rotate": lambda image, strength: pixel_ops.rotate(image, 30 * strength),
    "solarize": lambda image, strength: pixel_ops.solarize(image, 256 * (1 - tf.abs(strength))),
    "color": lambda image, strength: pixel_ops.recolor(image, saturation=1 + 0.9 * strength),
    "posterize": lambda image, strength: pixel_ops.posterize(image, _bits(strength)),
    "contrast": lambda image, strength: pixel_ops.recolor(image, contrast=1 + 0.9 * strength),
    "brightness": lambda image, strength: pixel_ops.recolor(image, brightness=1 + 0.9 * strength),
    "sharpness": lambda image, strength: pixel_ops.sharpness(image, 1 + 0.9 * strength),
    "shear_x": lambda image, strength: pixel_ops.shear(image, 0.3 * strength, 0.0),
    "shear_y": lambda image, strength: pixel_ops.shear(image, 0.0, 0.3 * strength),
    "translate_x": lambda image, strength: pixel_ops.translate(
        image, 0.45 * strength * image.shape[1], 0.0
    ),
    "translate_y": lambda image, strength: pixel_ops.translate(
        image, 0.0, 0.45 * strength * image.shape[0]
    ),
}
"""The fourteen operations of the paper, with its ranges. Strength is within -1..1; 0 changes
nothing, except for auto_contrast and equalize, which have no strength."""


def rand_augment(image: tf.Tensor, step: RandAugment, seed: tf.Tensor) -> tf.Tensor:
    """Random operations for each image, with the configured magnitude and a random sign."""

    def apply_one(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        which = tf.cast(draw[0] * len(OPERATIONS), tf.int32)
        strength = tf.where(draw[1] < 0.5, -step.magnitude, step.magnitude)
        branches = [
            lambda operation=operation: operation(image, strength)
            for operation in OPERATIONS.values()
        ]
        return tf.ensure_shape(tf.switch_case(which, branches), image.shape)

    # A TensorFlow loop, so that the operations are traced only once.
    return tf.foldl(
        apply_one, tf.random.stateless_uniform((step.operations, 2), seed), initializer=image
    )


def _bits(strength: tf.Tensor) -> tf.Tensor:
    """From 8 bits at strength 0 to 4 bits at strength 1 or -1."""
    return 8 - tf.cast(tf.round(4 * tf.abs(strength)), tf.int32)
