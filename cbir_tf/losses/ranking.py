"""A loss of whole rankings."""

from __future__ import annotations

from keras import ops

from cbir_tf.losses.distances import Tensor
from cbir_tf.losses.mining import labelled_pairs
from cbir_tf.losses.similarities import cosine_similarities, mean_of


def smooth_ap_loss(y_true: Tensor, y_pred: Tensor, temperature: float = 0.01) -> Tensor:
    """1 - mean average precision of the batch, with ranks that have a gradient.

    L = 1 - mean over a with positives of mean over p of
        (1 + sum over positives q of g(s(a, q) - s(a, p)))
      / (1 + sum over all others b of g(s(a, b) - s(a, p)))

    with g(x) = 1 / (1 + exp(-x / T)) in place of a step, q and b other than p, and s the cosine
    similarity: Brown et al. 2020, Smooth-AP: Smoothing the Path Towards Large-Scale Image
    Retrieval, https://arxiv.org/abs/2007.12163. Takes N^3 time and memory: 70 MB at 256 samples.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings of any length.
        temperature: T; a smaller one is nearer to average precision, with gradients of fewer pairs.

    Returns:
        A float scalar, 0 where there is no positive pair.

    Raises:
        UserError: the shapes do not fit.

    Example:
        For the first, the negative comes before the positive: its precision is 1 / 2.

        >>> import numpy as np
        >>> labels = np.array([0, 1, 0])
        >>> angles = np.array([0.0, 0.5, 1.2])
        >>> embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        >>> round(float(smooth_ap_loss(labels, embeddings)), 4)
        0.5
    """
    similarities, positive, negative = labelled_pairs(y_true, y_pred, cosine_similarities)
    number = ops.arange(ops.shape(similarities)[0])
    # differences[a, p, b] = s(a, b) - s(a, p), counted for b other than p.
    differences = similarities[:, None, :] - similarities[:, :, None]
    other = (number[:, None] != number)[None]
    before = ops.sigmoid(differences / temperature)
    among_positives = ops.sum(ops.where(other & positive[:, None, :], before, 0.0), axis=2)
    among_all = among_positives + ops.sum(ops.where(negative[:, None, :], before, 0.0), axis=2)
    precision = ops.where(positive, (1 + among_positives) / (1 + among_all), 0.0)
    counts = ops.sum(ops.cast(positive, precision.dtype), axis=1)
    average = ops.sum(precision, axis=1) / ops.maximum(counts, 1.0)
    return mean_of(1 - average, counts > 0)
