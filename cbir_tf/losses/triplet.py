"""Triplet losses with semi-hard and with hard mining, as TensorFlow Addons defines them.

Names, arguments, values and gradients are those of `tensorflow_addons.losses.triplet`, version
0.23.0, with three differences, each where theirs is undefined or arbitrary:

- An anchor without a positive or without a negative, and a batch without either, contributes 0.
- Where a positive is exactly as far away as the farthest negative, theirs gives a part of that
  negative's gradient to the positive. Here it stays with the negatives at that distance, in equal
  shares.
- The result is float32 (float64 for float64 embeddings) whatever the compute policy, and the soft
  margin does not overflow.

A loss is a distance (`cbir_tf.losses.distances`), mining (`cbir_tf.losses.mining`) and a mean.
"""

from __future__ import annotations

from keras import ops

from cbir_tf.losses.distances import DistanceMetric, Tensor
from cbir_tf.losses.mining import INFINITY, equal_shares, labelled_pairs, semihard_weights


def triplet_semihard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    margin: float = 1.0,
    distance_metric: DistanceMetric = "L2",
) -> Tensor:
    """Triplet loss with semi-hard negatives.

    L = mean over all pairs (a, p) of equal label of max(0, margin + d(a, p) - d(a, n(a, p)))

    n(a, p) is the nearest negative of a strictly farther than p or, where none is farther, the
    farthest negative: Schroff et al. 2015, FaceNet, https://arxiv.org/abs/1503.03832, as TensorFlow
    Addons has it. Takes N^2 log N time and N^2 memory.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings.
        margin: by how much the negative has to be farther than the positive.
        distance_metric: "L2", "squared-L2", "angular" (1 - cosine), or a function from (N, D)
            embeddings to (N, N) distances, anchors in rows.

    Returns:
        A float scalar, 0 where there is no positive pair.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.

    Example:
        Two pairs: from 0, the negative at distance 3 is far enough; from 1, it is at 2, which
        makes 2 + 1 - 2 = 1.

        >>> import numpy as np
        >>> labels, embeddings = np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]])
        >>> float(triplet_semihard_loss(labels, embeddings, margin=2.0))
        0.5
    """
    distances, positive, negative = labelled_pairs(y_true, y_pred, distance_metric)
    weights, active = semihard_weights(
        ops.stop_gradient(distances), positive, negative, float(margin)
    )
    pairs = ops.maximum(ops.sum(ops.cast(positive, distances.dtype)), 1.0)
    return (ops.sum(weights * distances) + margin * active) / pairs


def triplet_hard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: DistanceMetric = "L2",
) -> Tensor:
    """Triplet loss with the hardest positive and negative of each anchor.

    L = mean over all anchors a of max(0, margin + max d(a, p) - min d(a, n))

    or, if soft, of log(1 + exp(max d(a, p) - min d(a, n))): Hermans et al. 2017, In Defense of the
    Triplet Loss for Person Re-Identification, https://arxiv.org/abs/1703.07737. An anchor without
    a positive or without a negative counts in the mean with 0.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings.
        margin: by how much the negative has to be farther than the positive; unused if soft.
        soft: use the soft margin, the second formula.
        distance_metric: as for `triplet_semihard_loss`.

    Returns:
        A float scalar.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.

    Example:
        The third sample has no positive and counts as 0: (0 + 1 + 0) / 3.

        >>> import numpy as np
        >>> labels, embeddings = np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]])
        >>> round(float(triplet_hard_loss(labels, embeddings, margin=2.0)), 4)
        0.3333
    """
    distances, positive, negative = labelled_pairs(y_true, y_pred, distance_metric)
    fixed = ops.stop_gradient(distances)
    farthest = ops.max(
        ops.where(positive, fixed, -INFINITY), axis=1, keepdims=True, initial=-INFINITY
    )
    closest = ops.min(ops.where(negative, fixed, INFINITY), axis=1, keepdims=True, initial=INFINITY)
    weights = equal_shares(positive & (fixed == farthest), distances.dtype) - equal_shares(
        negative & (fixed == closest), distances.dtype
    )
    complete = ops.any(positive, axis=1) & ops.any(negative, axis=1)
    # The shares carry the gradient; the value is the exact difference, not their rounded sum.
    shared = ops.sum(weights * distances, axis=1)
    exact = ops.where(complete, ops.squeeze(farthest - closest, axis=1), 0.0)
    difference = shared + ops.stop_gradient(exact - shared)
    losses = ops.softplus(difference) if soft else ops.maximum(difference + margin, 0.0)
    anchors = ops.maximum(ops.cast(ops.shape(distances)[0], distances.dtype), 1.0)
    return ops.sum(ops.where(complete, losses, 0.0)) / anchors
