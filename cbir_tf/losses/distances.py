"""Distances between all embeddings of a batch, with TensorFlow Addons' names and values.

Source: `tensorflow_addons.losses.metric_learning`, version 0.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import backend, ops

from cbir_tf.errors import UserError, nearest

Tensor = Any  # keras.ops takes tensors of any backend and NumPy arrays, which share no type
DistanceMetric = str | Callable[[Tensor], Tensor]

# Where tf.math.l2_normalize stops dividing by the norm.
SMALLEST_SQUARED_NORM = 1e-12


def precise(embeddings: Tensor) -> Tensor:
    """The embeddings as float32, or unchanged if they are float64.

    Half precision has too few digits to distinguish small distances, whatever the compute policy.
    """
    embeddings = ops.convert_to_tensor(embeddings)
    if backend.standardize_dtype(embeddings.dtype) == "float64":
        return embeddings
    return ops.cast(embeddings, "float32")


def squared_euclidean_distances(embeddings: Tensor) -> Tensor:
    """d(a, b) = |a - b|^2 for every pair, never negative, exactly zero on the diagonal.

    Args:
        embeddings: (N, D).

    Returns:
        (N, N) float32, or float64 for float64 embeddings.

    Example:
        >>> import numpy as np
        >>> np.asarray(squared_euclidean_distances(np.array([[0.0, 0.0], [3.0, 4.0]]))).tolist()
        [[0.0, 25.0], [25.0, 0.0]]
    """
    embeddings = precise(embeddings)
    squares = ops.sum(ops.square(embeddings), axis=1, keepdims=True)
    products = ops.matmul(embeddings, ops.transpose(embeddings))
    squared = ops.maximum(squares + ops.transpose(squares) - 2.0 * products, 0.0)
    number = ops.arange(ops.shape(embeddings)[0])
    return ops.where(number[:, None] == number, ops.zeros_like(squared), squared)


def euclidean_distances(embeddings: Tensor) -> Tensor:
    """d(a, b) = |a - b| for every pair; its gradient at distance zero is zero, not infinite.

    Args:
        embeddings: (N, D).

    Returns:
        (N, N) float32, or float64 for float64 embeddings.

    Example:
        >>> import numpy as np
        >>> np.asarray(euclidean_distances(np.array([[0.0, 0.0], [3.0, 4.0]]))).tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """
    squared = squared_euclidean_distances(embeddings)
    touching = squared <= 0
    # The inner where keeps zero out of the square root: its gradient there is infinite, and
    # infinity times the outer where's zero would be NaN.
    root = ops.sqrt(ops.where(touching, ops.ones_like(squared), squared))
    return ops.where(touching, ops.zeros_like(root), root)


def angular_distances(embeddings: Tensor) -> Tensor:
    """d(a, b) = 1 - a . b / (|a| |b|) for every pair, never negative; 1 for a vector of zeros.

    Args:
        embeddings: (N, D), of any length.

    Returns:
        (N, N) float32, or float64 for float64 embeddings.

    Example:
        >>> import numpy as np
        >>> np.asarray(angular_distances(np.array([[2.0, 0.0], [0.0, 3.0]]))).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    embeddings = precise(embeddings)
    squares = ops.sum(ops.square(embeddings), axis=1, keepdims=True)
    normalised = embeddings * ops.rsqrt(ops.maximum(squares, SMALLEST_SQUARED_NORM))
    return ops.maximum(1.0 - ops.matmul(normalised, ops.transpose(normalised)), 0.0)


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "L2": euclidean_distances,
    "squared-L2": squared_euclidean_distances,
    "angular": angular_distances,
}


def distance_function(metric: DistanceMetric) -> Callable[[Tensor], Tensor]:
    """The distance of that name, (N, D) -> (N, N); a function is returned unchanged.

    Raises:
        UserError: no distance has that name.
    """
    if callable(metric):
        return metric
    if not isinstance(metric, str) or metric not in DISTANCES:
        hint = nearest(str(metric), DISTANCES)
        raise UserError(f"distance_metric: {metric!r} is unknown; {hint}")
    return DISTANCES[metric]
