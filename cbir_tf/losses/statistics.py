"""What a triplet loss sees in a set of embeddings, to tell learning from collapse."""

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
    """Distances, active triplets and spread of embeddings.

    Takes N^2 log N time and a few (N, N) arrays: about 300 MB for 4,000 embeddings.

    Args:
        labels: (N,) integers.
        embeddings: (N, D) floats.
        margin: the loss's.
        distance_metric: the loss's: "L2", "squared-L2", "angular" or a function.

    Returns:
        positive_distance: mean over all pairs of equal label.
        negative_distance: mean over all pairs of different label.
        active_fraction: share of all triplets with d(anchor, positive) + margin > d(anchor,
            negative), those that a loss without mining would learn from.
        spread: root mean square distance to the mean embedding, Euclidean; 0 when all embeddings
            are one point, at most 1 when they have unit length.
        Each is NaN where there is no such pair or triplet, or no embedding.

    Raises:
        UserError: the distance is unknown.
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
    """The mean of the chosen distances, NaN without any."""
    return float(distances.mean(where=chosen, dtype=np.float64)) if chosen.any() else float("nan")
