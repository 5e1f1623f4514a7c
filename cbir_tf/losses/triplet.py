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
    if len(labels.shape) == 0 or tuple(labels.shape[1:]) not in ((), (1,)):
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
    ordered, columns = ops.top_k(ops.where(sortable, -distances, -INFINITY), count)
    ordered = -ordered
    farthest = ops.max(ops.where(sortable, distances, -INFINITY), axis=1, initial=-INFINITY)

    anchor, partner = (ops.cast(each, "int32") for each in ops.nonzero(positive))
    reach = ops.take(distances, anchor * count + partner)
    limit = ops.take(farthest, anchor)
    # The next negative beyond the positive, passing over equals, or else the first of those that
    # are farthest.
    chosen = _positions(
        ordered, anchor, ops.minimum(reach, limit), passes_equals=reach < limit, count=count
    )
    # Without any negative the chosen distance is infinite and the pair inactive.
    active = ops.cast(margin + (reach - ops.take(ordered, chosen)) >= 0, distances.dtype)
    shares = _shares_of_equals(ordered, chosen, active, count)

    rows = ops.arange(count, dtype="int32")[:, None] * count
    weights = _add_up(active, anchor * count + partner, count) - _add_up(
        shares, rows + columns, count
    )
    return weights, ops.sum(active)


def _positions(
    ordered: Tensor, row: Tensor, values: Tensor, passes_equals: Tensor, count: Tensor
) -> Tensor:
    """Where each value belongs in its row, by binary search.

    Args:
        ordered: (N, N), each row ascending.
        row: (P,) int32, the row of each value.
        values: (P,), none of which belongs behind the last of its row.
        passes_equals: (P,) bool: behind the equal ones, in place of before them.
        count: N.

    Returns:
        (P,) int32 positions in the flattened rows.
    """

    def halve(remaining: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        half = remaining // 2
        probe = ops.take(ordered, position + (half - 1))
        passes = (probe < values) | (passes_equals & (probe == values))
        return remaining - half, ops.where(passes, position + half, position)

    return ops.while_loop(lambda remaining, _: remaining > 1, halve, (count, row * count))[1]


def _shares_of_equals(ordered: Tensor, chosen: Tensor, amounts: Tensor, count: Tensor) -> Tensor:
    """(N, N) the amounts at their chosen positions, shared out among the equals of a row."""
    starts = ops.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    run = ops.reshape(ops.cumsum(ops.cast(ops.reshape(starts, (-1,)), "int32")), (count, count)) - 1
    amount = _add_up(amounts, ops.take(run, chosen), count)
    members = _add_up(ops.ones_like(ordered), run, count)
    return ops.take(amount / ops.maximum(members, 1.0), run)


def _add_up(values: Tensor, positions: Tensor, count: Tensor) -> Tensor:
    """(N, N) with each value added at its position in the flattened rows."""
    total = ops.segment_sum(
        ops.reshape(values, (-1,)), ops.reshape(positions, (-1,)), num_segments=count * count
    )
    return ops.reshape(total, (count, count))
