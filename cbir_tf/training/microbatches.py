"""Exact gradients of batches that are too large for the memory: the backbone sees slices.

The outputs of all slices are computed first and forgotten but for their values; the loss over the
whole batch gives the gradient by the outputs; each slice is then computed again, and that gradient
goes on through it. It costs one more forward pass and the memory of one slice: Gao et al. 2021,
Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
https://arxiv.org/abs/2101.06983.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


class MicrobatchedModel(keras.Model):  # type: ignore[misc]  # Keras has no type hints
    """A functional model whose training step passes a batch through it in slices.

    The step is that of the whole batch, up to rounding, for models without layers that mix the
    samples of a batch in training (trained batch normalisation).

    Args:
        inputs: of the model.
        outputs: of the model, one tensor (B, ...).
        microbatch: most images in a slice.
    """

    def __init__(self, inputs: Any, outputs: Any, microbatch: int) -> None:
        super().__init__(inputs, outputs)
        self.microbatch = microbatch

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step of the optimizer over one batch."""
        images, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        count = tf.shape(images)[0]
        slices = (count + self.microbatch - 1) // self.microbatch
        seeds = [each.state for layer in self._flatten_layers() for each in _generators(layer)]
        first = [tf.identity(each) for each in seeds]

        outputs = tf.map_fn(
            lambda number: self._padded(self(self._slice(images, number), training=True)),
            tf.range(slices),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        outputs = tf.reshape(outputs, (-1, *outputs.shape[2:]))[:count]
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = self.compute_loss(x=images, y=targets, y_pred=outputs, training=True)
        slopes = tape.gradient(loss, outputs)

        for each, value in zip(seeds, first, strict=True):  # the same dropout as before
            each.assign(value)
        gradients = self._gradients(images, slopes, slices)
        self.optimizer.apply(gradients, self.trainable_variables)
        self._loss_tracker.update_state(loss, sample_weight=count)
        metrics: dict[str, Tensor] = self.compute_metrics(images, targets, outputs)
        return metrics

    def _gradients(self, images: Tensor, slopes: Tensor, slices: Tensor) -> Sequence[Tensor]:
        """The gradients by the trained variables, summed over the slices one after the other."""

        def add(number: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
            with tf.GradientTape() as tape:
                outputs = self(self._slice(images, number), training=True)
                product = tf.reduce_sum(outputs * self._slice(slopes, number))
                product = self.optimizer.scale_loss(product)
            parts = tape.gradient(product, self.trainable_variables)
            return (number + 1, *(a + b for a, b in zip(sums, parts, strict=True)))

        start = (tf.constant(0), *(tf.zeros_like(each) for each in self.trainable_variables))
        done = tf.while_loop(lambda number, *_: number < slices, add, start, parallel_iterations=1)
        return list(done[1:])

    def _slice(self, values: Tensor, number: Tensor) -> Tensor:
        return values[number * self.microbatch : (number + 1) * self.microbatch]

    def _padded(self, outputs: Tensor) -> Tensor:
        """The outputs of a slice, those of the last filled up with zeros."""
        missing = self.microbatch - tf.shape(outputs)[0]
        rest = [[0, 0]] * (len(outputs.shape) - 1)
        padded = tf.pad(outputs, [[0, missing], *rest])
        return tf.ensure_shape(padded, (self.microbatch, *outputs.shape[1:]))


def _generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """The random generators of a layer."""
    return list(getattr(layer, "_seed_generators", []))
