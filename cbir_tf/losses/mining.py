"""Mining: which pairs and triplets of a batch a loss counts, and with which weights."""

from __future__ import annotations

import numpy as np
from keras import backend, ops

from cbir_tf.errors import UserError
from cbir_tf.losses.distances import DistanceMetric, Tensor, distance_function, precise

INFINITY = float("inf")


def flat_labels(y_true: Tensor) -> Tensor:
    """Labels of shape (N,) or (N, 1) as (N,), in their own dtype.

    Raises:
        UserError: they have another shape.
    """
    labels = ops.convert_to_tensor(y_true)
    if len(labels.shape) == 0 or tuple(labels.shape[1:]) not in ((), (1,)):
        raise UserError(
            f"y_true: labels must be (N,) or (N, 1), got {tuple(labels.shape)}; "
            "triplet losses take class numbers, not one-hot vectors"
        )
    return ops.reshape(labels, (-1,))


def comparable_labels(y_true: Tensor) -> Tensor:
    """Labels as (N,), equal where they were: tensors unchanged, others numbered from 0.

    Numbered, as a back end may have no 64-bit integers: JAX cuts them to 32 bits.

    Raises:
        UserError: as `flat_labels`.
    """
    if isinstance(y_true, (np.ndarray, list, tuple)):
        given = np.asarray(y_true)
        y_true = np.unique(given, return_inverse=True)[1].astype(np.int32).reshape(given.shape)
    return flat_labels(y_true)


def labelled_pairs(
    y_true: Tensor, y_pred: Tensor, distance_metric: DistanceMetric
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances of all pairs, and which pairs are positive and which negative.

    Returns:
        Three (N, N), anchors in rows: float distances; bool: the same label, another sample; bool:
        another label.

    Raises:
        UserError: the distance is unknown or the shapes do not fit.
    """
    labels = comparable_labels(y_true)
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


def equal_shares(chosen: Tensor, dtype: str) -> Tensor:
    """(N, N) weights of this dtype: in each row 1, in equal shares among the chosen ones."""
    chosen = ops.cast(chosen, dtype)
    return chosen / ops.maximum(ops.sum(chosen, axis=1, keepdims=True), 1.0)


def semihard_weights(
    distances: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Weight of each distance in the sum over all semi-hard triplets, and the number of triplets.

    Once the triplets are chosen, the sum of margin + d(a, p) - d(a, n) over the active ones (those
    above zero) is linear in the distances: each adds 1 to the weight of its positive and takes 1
    from the weight of its negative, in equal shares where several negatives are equally far.

    Args:
        distances: (N, N), anchors in rows.
        positive: (N, N) bool.
        negative: (N, N) bool.
        margin: of the loss.

    Returns:
        (N, N) weights, and the number of active triplets as a scalar, both in the dtype of the
        distances.
    """
    count = ops.shape(distances)[0]
    # A comparison with NaN is false, so NaN does not enter the sort, which it could break.
    sortable = negative & (distances < INFINITY)
    ordered, columns = ops.top_k(ops.where(sortable, -distances, -INFINITY), count)
    ordered = -ordered
    farthest = ops.max(ops.where(sortable, distances, -INFINITY), axis=1, initial=-INFINITY)

    anchor, partner, is_positive = _pairs(positive, count)
    reach = ops.take(distances, anchor * count + partner)
    limit = ops.take(farthest, anchor)
    # The nearest negative strictly farther than the positive, else the first of the farthest.
    chosen = _positions(
        ordered, anchor, ops.minimum(reach, limit), passes_equals=reach < limit, count=count
    )
    # Without any negative the chosen distance is infinite and the pair inactive.
    active = ops.cast(
        is_positive & (margin + (reach - ops.take(ordered, chosen)) >= 0), distances.dtype
    )
    shares = _shares_of_equals(ordered, chosen, active, count)

    rows = ops.arange(count, dtype="int32")[:, None] * count
    weights = _add_up(active, anchor * count + partner, count) - _add_up(
        shares, rows + columns, count
    )
    return weights, ops.sum(active)


def _pairs(positive: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor and partner of each pair to look at, and whether it is a positive one; (P,) each.

    JAX compiles for shapes that do not depend on the labels, so there these are all N^2 pairs.
    """
    if backend.backend() == "jax":
        number = ops.arange(count * count, dtype="int32")
        return number // count, number % count, ops.reshape(positive, (-1,))
    anchor, partner = (ops.cast(each, "int32") for each in ops.nonzero(positive))
    return anchor, partner, ops.ones_like(anchor, dtype="bool")


def _positions(
    ordered: Tensor, row: Tensor, values: Tensor, passes_equals: Tensor, count: Tensor
) -> Tensor:
    """Position of each value in its sorted row, by binary search.

    Args:
        ordered: (N, N), each row ascending.
        row: (P,) int32, the row of each value.
        values: (P,), none of them larger than the last of its row.
        passes_equals: (P,) bool: the position after equal ones, in place of before them.
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
    """(N, N) amounts at their chosen positions, in equal shares among equal values of a row."""
    starts = ops.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    run = ops.reshape(ops.cumsum(ops.cast(ops.reshape(starts, (-1,)), "int32")), (count, count)) - 1
    amount = _add_up(amounts, ops.take(run, chosen), count)
    members = _add_up(ops.ones_like(ordered), run, count)
    return ops.take(amount / ops.maximum(members, 1.0), run)


def _add_up(values: Tensor, positions: Tensor, count: Tensor) -> Tensor:
    """(N, N) sums of the values at their positions in the flattened rows."""
    total = ops.segment_sum(
        ops.reshape(values, (-1,)), ops.reshape(positions, (-1,)), num_segments=count * count
    )
    return ops.reshape(total, (count, count))
