"""Losses of pairs: every two samples of a batch attract or repel each other.

A loss is a similarity or distance, a choice of pairs, and a mean. Values are float32, or float64
for float64 embeddings, whatever the compute policy; a batch without pairs gives 0.
"""

from __future__ import annotations

from keras import ops

from cbir_tf.losses.distances import DistanceMetric, Tensor
from cbir_tf.losses.mining import INFINITY, labelled_pairs
from cbir_tf.losses.similarities import (
    cosine_similarities,
    log_one_plus,
    log_sum_exp,
    mean_of,
)


def contrastive_loss(
    y_true: Tensor,
    y_pred: Tensor,
    margin: float = 0.5,
    distance_metric: DistanceMetric = "L2",
) -> Tensor:
    """Contrastive loss: positives come together, negatives keep a distance.

    L = mean over positive pairs of d(a, p)^2
      + mean over negative pairs nearer than the margin of (margin - d(a, n))^2

    Hadsell et al. 2006, Dimensionality Reduction by Learning an Invariant Mapping. Negatives beyond
    the margin, most of them, do not count in the mean, which they would dilute.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings.
        margin: distance that negatives have to keep.
        distance_metric: "L2", "squared-L2", "angular" (1 - cosine), or a function from (N, D)
            embeddings to (N, N) distances.

    Returns:
        A float scalar.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.

    Example:
        The positive pair is 1 apart; of the negatives, at 2 and 3, one is nearer than 2.5.

        >>> import numpy as np
        >>> labels, embeddings = np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]])
        >>> float(contrastive_loss(labels, embeddings, margin=2.5))
        1.25
    """
    distances, positive, negative = labelled_pairs(y_true, y_pred, distance_metric)
    lacking = margin - distances
    return mean_of(ops.square(distances), positive) + mean_of(
        ops.square(lacking), negative & (lacking > 0)
    )


def multi_similarity_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float | None = 0.1,
) -> Tensor:
    """Multi-similarity loss: pairs count by how similar they are, alone and beside the others.

    L = mean over a of log(1 + sum over p of exp(-alpha (s(a, p) - base))) / alpha
                     + log(1 + sum over n of exp(beta (s(a, n) - base))) / beta

    with s the cosine similarity. Of the negatives those count with s(a, n) + epsilon > min s(a, p),
    of the positives those with s(a, p) - epsilon < max s(a, n): Wang et al. 2019, Multi-Similarity
    Loss with General Pair Weighting for Deep Metric Learning, https://arxiv.org/abs/1904.06627.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings of any length.
        alpha: sharpness of the weights of positives.
        beta: of negatives.
        base: similarity that positives should exceed and negatives not reach.
        epsilon: margin of the choice of pairs; None: all pairs count.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0, 0, 1, 1])
        >>> apart = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> float(multi_similarity_loss(labels, apart))  # nothing is left to learn
        0.0
    """
    similarities, positive, negative = labelled_pairs(y_true, y_pred, cosine_similarities)
    if epsilon is not None:
        positive, negative = multi_similarity_pairs(
            ops.stop_gradient(similarities), positive, negative, epsilon
        )
    attracting = log_one_plus(-alpha * (similarities - base), positive) / alpha
    repelling = log_one_plus(beta * (similarities - base), negative) / beta
    return mean_of(attracting + repelling, ops.ones_like(attracting, dtype="bool"))


def multi_similarity_pairs(
    similarities: Tensor, positive: Tensor, negative: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The pairs that are informative beside the hardest of the other kind of the same anchor.

    Args:
        similarities: (N, N), anchors in rows.
        positive: (N, N) bool.
        negative: (N, N) bool.
        epsilon: by how much a pair may be easier.

    Returns:
        (N, N) bool of each kind; an anchor without either kind has none.
    """
    least = ops.min(ops.where(positive, similarities, INFINITY), axis=1, keepdims=True)
    most = ops.max(ops.where(negative, similarities, -INFINITY), axis=1, keepdims=True)
    return positive & (similarities - epsilon < most), negative & (similarities + epsilon > least)


def supervised_contrastive_loss(y_true: Tensor, y_pred: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (SupCon): each positive competes with all other samples.

    L = mean over a with positives of mean over p of
        -log(exp(s(a, p) / T) / sum over all others b of exp(s(a, b) / T))

    with s the cosine similarity: Khosla et al. 2020, Supervised Contrastive Learning,
    https://arxiv.org/abs/2004.11362, its L_out.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings of any length.
        temperature: T; a smaller one weighs the hardest pairs more.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        Two equal samples and nothing else: each is the only choice of the other.

        >>> import numpy as np
        >>> float(supervised_contrastive_loss(np.array([3, 3]), np.array([[1.0], [1.0]])))
        0.0
    """
    similarities, positive, negative = labelled_pairs(y_true, y_pred, cosine_similarities)
    scores = similarities / temperature
    others = log_sum_exp(scores, positive | negative)
    others = ops.where(others > -INFINITY, others, 0.0)  # an only sample has no others
    counts = ops.sum(ops.cast(positive, scores.dtype), axis=1)
    sums = ops.sum(ops.where(positive, others[:, None] - scores, 0.0), axis=1)
    return mean_of(sums / ops.maximum(counts, 1.0), counts > 0)


def circle_loss(
    y_true: Tensor, y_pred: Tensor, margin: float = 0.25, scale: float = 64.0
) -> Tensor:
    """Circle loss: the farther a similarity is from its optimum, the larger its weight.

    L = mean over a with both kinds of log(1 + P N), where
    P = sum over p of exp(-scale w(p) (s(a, p) - 1 + margin)),
    N = sum over n of exp(scale w(n) (s(a, n) - margin))

    with w(n) = max(0, s(a, n) + margin) and w(p) = max(0, 1 + margin - s(a, p)), which carry no
    gradient, and s the cosine similarity: Sun et al. 2020, Circle Loss: A Unified Perspective of
    Pair Similarity Optimization, https://arxiv.org/abs/2002.10857.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; samples of equal label are positive pairs.
        y_pred: (N, D) embeddings of any length.
        margin: relaxation of both optima, 1 for positives and 0 for negatives.
        scale: sharpness.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0, 0, 1, 1])
        >>> apart = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> round(float(circle_loss(labels, apart)), 4)
        0.036
    """
    similarities, positive, negative = labelled_pairs(y_true, y_pred, cosine_similarities)
    fixed = ops.stop_gradient(similarities)
    pull = ops.maximum(1 + margin - fixed, 0.0) * (similarities - (1 - margin))
    push = ops.maximum(fixed + margin, 0.0) * (similarities - margin)
    exponent = log_sum_exp(-scale * pull, positive) + log_sum_exp(scale * push, negative)
    both = ops.any(positive, axis=1) & ops.any(negative, axis=1)
    return mean_of(ops.softplus(ops.where(both, exponent, 0.0)), both)
