"""Statistics of the triplets of a set of embeddings, which tell learning from collapse."""

from __future__ import annotations

import numpy as np
from keras import ops

from cbir_tf.losses.distances import DistanceMetric, distance_function


def triplet_statistics(
    labels: np.ndarray,
    embeddings: np.ndarray,
    margin: float,
    distance_metric: DistanceMetric = "L2",
) -> dict[str, float]:
    """Mean distances, share of active triplets and spread of embeddings.

    Takes N^2 log N time and a few (N, N) arrays: about 300 MB for 4,000 embeddings.

    Args:
        labels: (N,) integers.
        embeddings: (N, D) floats.
        margin: margin of the loss.
        distance_metric: distance of the loss: "L2", "squared-L2", "angular" or a function.

    Returns:
        positive_distance: mean of d over all pairs of equal label.
        negative_distance: mean of d over all pairs of different labels.
        active_fraction: share of all triplets (a, p, n) with d(a, p) + margin > d(a, n), from
            which a loss without mining would learn.
        spread: root mean square Euclidean distance to the mean embedding; 0 if all embeddings are
            equal, at most 1 if they have unit length.
        Each is NaN where there is no such pair or triplet, or no embedding.

    Raises:
        UserError: the distance is unknown.

    Example:
        >>> embeddings = np.array([[0.0], [1.0], [3.0]])
        >>> statistics = triplet_statistics(np.array([0, 0, 1]), embeddings, margin=2.0)
        >>> statistics["positive_distance"], statistics["negative_distance"]
        (1.0, 2.5)
        >>> statistics["active_fraction"]
        0.5
    """
    labels = np.asarray(labels)
    embeddings = np.asarray(embeddings, dtype=np.float32)
    distances = ops.convert_to_numpy(distance_function(distance_metric)(embeddings))
    same = labels[:, None] == labels
    positive = same & ~np.eye(len(labels), dtype=bool)

    active = triplets = 0
    for row, is_positive, is_same in zip(distances, positive, same, strict=True):
        negatives = np.sort(row[~is_same])
        reach = row[is_positive] + np.float32(margin)
        active += int(np.searchsorted(negatives, reach, side="left").sum())
        triplets += len(reach) * len(negatives)

    variances = embeddings.var(axis=0, dtype=np.float64) if len(embeddings) else np.array(np.nan)
    return {
        "positive_distance": _mean(distances, positive),
        "negative_distance": _mean(distances, ~same),
        "active_fraction": active / triplets if triplets else float("nan"),
        "spread": float(np.sqrt(variances.sum())),
    }


def _mean(distances: np.ndarray, chosen: np.ndarray) -> float:
    """The mean of the chosen distances, NaN if none is chosen."""
    return float(distances.mean(where=chosen, dtype=np.float64)) if chosen.any() else float("nan")
