"""Cosine similarities within a batch, and sums of exponentials that do not overflow."""

from __future__ import annotations

from keras import ops

from cbir_tf.losses.distances import SMALLEST_SQUARED_NORM, Tensor, precise
from cbir_tf.losses.mining import INFINITY


def unit_vectors(embeddings: Tensor) -> Tensor:
    """(N, D) vectors divided by their length, float32 or float64; zeros stay zeros."""
    embeddings = precise(embeddings)
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    return embeddings * ops.rsqrt(ops.maximum(squares, SMALLEST_SQUARED_NORM))


def cosine_similarities(embeddings: Tensor) -> Tensor:
    """s(a, b) = a . b / (|a| |b|) for every pair: (N, D) -> (N, N)."""
    unit = unit_vectors(embeddings)
    return ops.matmul(unit, ops.transpose(unit))


def log_sum_exp(values: Tensor, chosen: Tensor, axis: int = 1) -> Tensor:
    """log of the sum of exp(value) over the chosen ones; -inf where none is, without gradient."""
    values = ops.where(chosen, values, -INFINITY)
    largest = ops.max(values, axis=axis, keepdims=True)
    largest = ops.stop_gradient(ops.where(largest > -INFINITY, largest, 0.0))
    some = ops.any(chosen, axis=axis)
    total = ops.sum(ops.where(chosen, ops.exp(values - largest), 0.0), axis=axis)
    logs = ops.log(ops.where(some, total, 1.0)) + ops.squeeze(largest, axis)
    return ops.where(some, logs, -INFINITY)


def log_one_plus(values: Tensor, chosen: Tensor, axis: int = 1) -> Tensor:
    """log(1 + sum of exp(value) over the chosen ones); 0 where none is."""
    return ops.where(
        ops.any(chosen, axis=axis),
        ops.softplus(_finite(log_sum_exp(values, chosen, axis))),
        0.0,
    )


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values, a scalar; 0 where none is chosen."""
    counted = ops.cast(chosen, values.dtype)
    total = ops.sum(ops.where(chosen, values, 0.0))
    return total / ops.maximum(ops.sum(counted), 1.0)


def _finite(values: Tensor) -> Tensor:
    """Zeros in place of -inf, whose gradient would be NaN."""
    return ops.where(values > -INFINITY, values, 0.0)
