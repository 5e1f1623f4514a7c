"""Triplet losses with semi-hard and with hard mining, as TensorFlow Addons defines them.

Names, arguments, values and gradients are those of `tensorflow_addons.losses.triplet`, version
0.23.0, with three differences, each where theirs is undefined or arbitrary:

- An anchor without a positive or without a negative, and a batch without either, contributes 0.
- Where a positive lies exactly as far away as the farthest negative, theirs hands a part of that
  negative's gradient to the positive. Here it stays with the negatives at that distance, in
  equal shares.
- The result is float32 (float64 for float64 embeddings) whatever the compute policy, and the soft
  margin does not overflow.

Sources: Schroff et al., FaceNet (2015), for semi-hard mining; Hermans et al., In Defense of the
Triplet Loss (2017), for hard mining.
"""

from __future__ import annotations

from keras import ops

from cbir_tf.errors import UserError
from cbir_tf.losses.distances import DistanceMetric, Tensor, distance_function, precise

INFINITY = float("inf")


def triplet_semihard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    margin: float = 1.0,
    distance_metric: DistanceMetric = "L2",
) -> Tensor:
    """Mean over all anchor-positive pairs of max(0, margin + d(anchor, positive) - d(negative)).

    The negative of a pair is the nearest one strictly farther from the anchor than the positive
    is, or the farthest one where none is farther. Takes N^2 log N time and N^2 memory.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; equal labels make a positive pair.
        y_pred: (N, D) embeddings.
        margin: how much farther than the positive the negative has to be.
        distance_metric: "L2", "squared-L2", "angular" (one minus cosine), or a function from
            (N, D) embeddings to (N, N) distances whose rows are the anchors.

    Returns:
        A float scalar, 0 where there is no pair to compare.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.
    """
    distances, positive, negative = _pairs(y_true, y_pred, distance_metric)
    weights, active = _semihard_weights(
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
    """Mean over all anchors of max(0, margin + d(farthest positive) - d(nearest negative)).

    An anchor without a positive or without a negative counts in the mean with 0.

    Args:
        y_true: (N,) or (N, 1) labels of any dtype; equal labels make a positive pair.
        y_pred: (N, D) embeddings.
        margin: how much farther than the positive the negative has to be; unused when soft.
        soft: log(1 + exp(x)) of the difference x in place of max(0, margin + x).
        distance_metric: as for `triplet_semihard_loss`.

    Returns:
        A float scalar.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.
    """
    distances, positive, negative = _pairs(y_true, y_pred, distance_metric)
    fixed = ops.stop_gradient(distances)
    farthest = ops.max(
        ops.where(positive, fixed, -INFINITY), axis=1, keepdims=True, initial=-INFINITY
    )
    closest = ops.min(ops.where(negative, fixed, INFINITY), axis=1, keepdims=True, initial=INFINITY)
    weights = _equal_shares(positive & (fixed == farthest), distances.dtype) - _equal_shares(
        negative & (fixed == closest), distances.dtype
    )
    complete = ops.any(positive, axis=1) & ops.any(negative, axis=1)
    # The shares carry the gradient; their rounded sum gives way to the exact difference.
    shared = ops.sum(weights * distances, axis=1)
    exact = ops.where(complete, ops.squeeze(farthest - closest, axis=1), 0.0)
    difference = shared + ops.stop_gradient(exact - shared)
    losses = ops.softplus(difference) if soft else ops.maximum(difference + margin, 0.0)
    anchors = ops.maximum(ops.cast(ops.shape(distances)[0], distances.dtype), 1.0)
    return ops.sum(ops.where(complete, losses, 0.0)) / anchors


def flat_labels(y_true: Tensor) -> Tensor:
    """The labels as (N,), in their own dtype.

    Raises:
        UserError: they are neither (N,) nor (N, 1).
    """
    labels = ops.convert_to_tensor(y_true)
    if tuple(labels.shape[1:]) not in ((), (1,)) or not labels.shape:
        raise UserError(
            f"y_true: labels must be (N,) or (N, 1), got {tuple(labels.shape)}; "
            "triplet losses take class numbers, not one-hot vectors"
        )
    return ops.reshape(labels, (-1,))


def _pairs(
    y_true: Tensor, y_pred: Tensor, distance_metric: DistanceMetric
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, and which pairs are positive and which negative, each (N, N), anchors in rows."""
    labels = flat_labels(y_true)
    embeddings = precise(y_pred)
    if len(embeddings.shape) != 2:
        raise UserError(f"y_pred: embeddings must be (N, D), got {tuple(embeddings.shape)}")
    lengths = (labels.shape[0], embeddings.shape[0])
    if None not in lengths and lengths[0] != lengths[1]:
        raise UserError(f"y_true: {lengths[0]} labels for {lengths[1]} embeddings in y_pred")
    number = ops.arange(ops.shape(embeddings)[0])
    same = labels[:, None] == labels
    positive = same & (number[:, None] != number)
    return distance_function(distance_metric)(embeddings), positive, ops.logical_not(same)


def _equal_shares(chosen: Tensor, dtype: str) -> Tensor:
    """(N, N) of this dtype: in each row one, shared out equally among the chosen."""
    chosen = ops.cast(chosen, dtype)
    return chosen / ops.maximum(ops.sum(chosen, axis=1, keepdims=True), 1.0)


def _semihard_weights(
    distances: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """What each distance counts in the sum over all pairs, and the number of active pairs.

    Once the triplets are chosen the sum is linear in the distances: an active pair counts its
    positive once, and takes away its negative, in equal shares where several are equally far.

    Returns:
        (N, N) weights and a scalar, both in the dtype of the distances.
    """
    count = ops.shape(distances)[0]
    # A comparison with NaN is false, so NaN never enters the sort, which it could break.
    sortable = negative & (distances < INFINITY)
    ordered = ops.reshape(ops.sort(ops.where(sortable, distances, INFINITY), axis=1), (-1,))
    farthest = ops.max(
        ops.where(sortable, distances, -INFINITY), axis=1, keepdims=True, initial=-INFINITY
    )
    # Each negative finds the first of those as far as itself, each positive the first of those it
    # is compared with: the next one beyond, which passes over equals, or else the farthest.
    tie = _positions(
        ordered,
        ops.minimum(distances, farthest),
        passes_equals=positive & (distances < farthest),
        count=count,
    )
    # Without any negative the chosen distance is infinite and the pair inactive.
    active = positive & (margin + (distances - ops.take(ordered, tie)) >= 0)
    votes, members = (
        ops.segment_sum(
            ops.reshape(ops.cast(each, distances.dtype), (-1,)),
            ops.reshape(tie, (-1,)),
            num_segments=count * count,
        )
        for each in (active, negative)
    )
    shares = ops.take(votes / ops.maximum(members, 1.0), tie)
    active = ops.cast(active, distances.dtype)
    return active - ops.where(negative, shares, 0.0), ops.sum(active)


def _positions(ordered: Tensor, values: Tensor, passes_equals: Tensor, count: Tensor) -> Tensor:
    """Where each value belongs in the ascending row of its anchor, by binary search.

    Args:
        ordered: (N * N,) rows one after the other; nothing may belong behind a row's end.
        values: (N, N).
        passes_equals: (N, N) bool: behind the equal ones, in place of before them.
        count: N.

    Returns:
        (N, N) int32 positions in `ordered`.
    """

    def halve(remaining: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        half = remaining // 2
        probe = ops.take(ordered, position + (half - 1))
        passes = (probe < values) | (passes_equals & (probe == values))
        return remaining - half, ops.where(passes, position + half, position)

    row_starts = ops.arange(count, dtype="int32")[:, None] * count
    start = row_starts + ops.zeros_like(values, dtype="int32")
    return ops.while_loop(lambda remaining, position: remaining > 1, halve, (count, start))[1]
