"""The triplet losses by nested loops, straight from their definition; the rule of cbir_tf.

Each returns the loss and its derivative by every distance. Triplets are chosen, and the margin
applied, in the dtype of the distances, as a tie or a kink is a matter of single bits.
"""

from __future__ import annotations

import numpy as np


def semihard(labels: np.ndarray, distances: np.ndarray, margin: float) -> tuple[float, np.ndarray]:
    """Mean over all positive pairs; without a negative a pair counts 0."""
    count = len(labels)
    total, pairs, weights = 0.0, 0, np.zeros((count, count))
    for anchor in range(count):
        row = distances[anchor]
        negatives = [each for each in range(count) if labels[each] != labels[anchor]]
        for positive in range(count):
            if positive == anchor or labels[positive] != labels[anchor]:
                continue
            pairs += 1
            if not negatives:
                continue
            farther = [row[each] for each in negatives if row[each] > row[positive]]
            chosen = min(farther) if farther else max(row[each] for each in negatives)
            difference = row.dtype.type(margin) + (row[positive] - chosen)
            if difference >= 0:
                total += float(difference)
                weights[anchor, positive] += 1
                tied = [each for each in negatives if row[each] == chosen]
                weights[anchor, tied] -= 1 / len(tied)
    return total / max(pairs, 1), weights / max(pairs, 1)


def hard(
    labels: np.ndarray, distances: np.ndarray, margin: float, soft: bool
) -> tuple[float, np.ndarray]:
    """Mean over all anchors; without a positive or without a negative an anchor counts 0."""
    count = len(labels)
    total, weights = 0.0, np.zeros((count, count))
    for anchor in range(count):
        row = distances[anchor]
        same = [each for each in range(count) if labels[each] == labels[anchor] and each != anchor]
        other = [each for each in range(count) if labels[each] != labels[anchor]]
        if not same or not other:
            continue
        farthest, nearest = max(row[same]), min(row[other])
        difference = farthest - nearest
        if soft:
            total += np.logaddexp(0.0, float(difference))
            slope = 1 / (1 + np.exp(-float(difference)))
        else:
            total += max(float(difference + row.dtype.type(margin)), 0.0)
            slope = float(difference + row.dtype.type(margin) >= 0)
        tied_positives = [each for each in same if row[each] == farthest]
        tied_negatives = [each for each in other if row[each] == nearest]
        weights[anchor, tied_positives] += slope / len(tied_positives)
        weights[anchor, tied_negatives] -= slope / len(tied_negatives)
    return total / max(count, 1), weights / max(count, 1)
