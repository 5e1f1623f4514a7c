"""Labels that the neighbours contradict, and images far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbir_tf.types import UNLABELLED


@dataclass(frozen=True)
class Contradiction:
    """A label that most neighbours contradict.

    Attributes:
        row: of the image.
        label: which it has.
        suggested: the label of most of its neighbours.
        share: of the neighbours that have it, 0..1.
    """

    row: int
    label: int
    suggested: int
    share: float


def contradicted_labels(
    labels: np.ndarray, neighbours: np.ndarray, share: float = 0.8
) -> list[Contradiction]:
    """Images of which most neighbours have one other label, the clearest first.

    A nearest-neighbour form of confident learning (Northcutt et al. 2021, Confident Learning:
    Estimating Uncertainty in Dataset Labels, https://arxiv.org/abs/1911.00068): the neighbours,
    the image itself left out, vote on the label. A class that has too few images to fill the
    neighbourhood would be outvoted by its size alone, and is not judged.

    Args:
        labels: (N,) integers, -1 for unlabelled images, which are not judged.
        neighbours: (N, k) labels of the k nearest other images; -1 does not vote.
        share: smallest share of the k neighbours that has to agree on another label.

    Returns:
        In order of falling share, then of row.

    Example:
        The third image has label 0 among images of label 1:

        >>> labels = np.array([0, 0, 0, 1, 1, 1])
        >>> around = np.array([[0, 0], [0, 0], [1, 1], [1, 1], [1, 1], [1, 1]])
        >>> contradicted_labels(labels, around)
        [Contradiction(row=2, label=0, suggested=1, share=1.0)]
    """
    labelled = labels != UNLABELLED
    sizes = np.bincount(labels[labelled], minlength=1)
    k = neighbours.shape[1]
    judged = np.flatnonzero(labelled)
    judged = judged[sizes[labels[judged]] > k]
    found = []
    for row in judged.tolist():
        votes = np.bincount(neighbours[row][neighbours[row] != UNLABELLED], minlength=1)
        winner = int(votes.argmax())
        if winner != labels[row] and votes[winner] >= share * k:
            agreeing = float(votes[winner] / k)
            found.append(Contradiction(row, int(labels[row]), winner, agreeing))
    return sorted(found, key=lambda each: (-each.share, each.row))


def outliers(distances: np.ndarray, fence: float = 3.0) -> np.ndarray:
    """Images that lie far from all others, the farthest first.

    An image's isolation is the mean distance to its k nearest neighbours. Those above Q3 + fence
    (Q3 - Q1) are outliers; with a fence of 3 Tukey calls them far out (Exploratory Data Analysis,
    1977). Where Q1 and Q3 are equal, as among duplicates, none can be told from the others.

    Args:
        distances: (N, k) to the k nearest other images.
        fence: how many interquartile ranges above the third quartile.

    Returns:
        (M,) rows.

    Example:
        >>> outliers(np.array([[0.1], [0.2], [0.1], [0.2], [5.0]])).tolist()
        [4]
    """
    if not distances.size:
        return np.empty(0, np.int64)
    isolation = distances.mean(axis=1)
    first, third = np.percentile(isolation, [25, 75])
    if third == first:
        return np.empty(0, np.int64)
    found = np.flatnonzero(isolation > third + fence * (third - first))
    return found[np.argsort(-isolation[found], kind="stable")]
