"""Classifiers of embeddings that predict probabilities, for the class router.

Both are fitted to labelled embeddings, deterministically, each time a run with a class router is
opened; they are not saved.

- `NearestVote`: the share of a class among the nearest images.
- `LinearMachine`: one-versus-rest linear support vector machines. Probabilities are the softmax of
  their decision values divided by a temperature, which maximises the likelihood of held-out images
  (Guo et al. 2017, On Calibration of Modern Neural Networks); targets are smoothed by 1 / (n + 2)
  for n images of the class (Platt 1999, Probabilistic Outputs for Support Vector Machines).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.svm import LinearSVC

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.search.distances import find_metric
from cbir_tf.search.index import check_search, check_vectors
from cbir_tf.search.nearest_neighbors import NearestNeighborsBackEnd
from cbir_tf.search.vector_index import GalleryIndex
from cbir_tf.types import UNLABELLED, Embeddings

FOLDS = 5
LOG_TEMPERATURES = (-7.0, 7.0)
MOST_ITERATIONS = 10_000
MOST_DECISIONS = 2**27
"""Most numbers of a decision value for each image and class, of which svm holds a few."""


class Classifier(Protocol):
    """Predicts the probability of each class for a vector.

    Attributes:
        labels: (C,) known labels, ascending.
    """

    labels: np.ndarray

    def probabilities(
        self, vectors: np.ndarray, ids: Sequence[str] | np.ndarray | None = None
    ) -> np.ndarray:
        """Probability of each class.

        Args:
            vectors: (Q, D).
            ids: Q ids; a classifier that can do so leaves a training image out of its own
                prediction.

        Returns:
            (Q, C) float64, each row of sum 1.

        Raises:
            UserError: vectors of another dimension, or not finite.
        """
        ...


class NearestVote:
    """A vote of the nearest training images (see `Classifier`).

    A class with v of n votes has the probability (v + 1 / C) / (n + 1), with C the number of
    classes, so that a class without votes is not impossible. The image itself, found by its id,
    does not vote.

    Args:
        training: at least two labelled embeddings.
        metric: distance between embeddings.
        neighbours: number of neighbours that vote; all others, if there are fewer.
    """

    def __init__(self, training: Embeddings, metric: str, neighbours: int = 10) -> None:
        self._training = training = training.take(np.argsort(training.ids))
        self.labels, self._class_of = np.unique(training.labels, return_inverse=True)
        self._index = GalleryIndex(NearestNeighborsBackEnd(), metric).fit(training)
        self._votes = min(neighbours, len(training) - 1)

    def probabilities(
        self, vectors: np.ndarray, ids: Sequence[str] | np.ndarray | None = None
    ) -> np.ndarray:
        """See `Classifier`."""
        found, _ = self._index.find(*check_search(self._training, vectors, self._votes, ids, None))
        classes = len(self.labels)
        cells = self._class_of[found] + classes * np.arange(len(found))[:, None]
        votes = np.bincount(cells.ravel(), minlength=classes * len(found))
        return (votes.reshape(-1, classes) + 1 / classes) / (self._votes + 1)


class LinearMachine:
    """One-versus-rest linear support vector machines (see `Classifier`).

    Vectors are prepared for the metric (scaled to length 1 for cosine), then divided by their root
    mean square length. The temperature is fitted by cross-validation in five folds, each a
    consecutive part of every class in order of id, as photos with similar names often show the same
    object. A class with a single image takes no part in it.

    Args:
        training: labelled embeddings of at least two classes.
        metric: of the search.
    """

    def __init__(self, training: Embeddings, metric: str) -> None:
        training = training.take(np.argsort(training.ids))
        self.labels, class_of = np.unique(training.labels, return_inverse=True)
        self._prepare = find_metric(metric).prepare
        self._dimension = training.vectors.shape[1]
        points = self._prepare(training.vectors)
        self._scale = float(np.sqrt(np.square(points).sum(axis=1).mean())) or 1.0
        points = points / self._scale
        self._temperature = _temperature(points, class_of)
        self._decide = _fit(points, class_of)

    def probabilities(
        self, vectors: np.ndarray, ids: Sequence[str] | np.ndarray | None = None
    ) -> np.ndarray:
        """See `Classifier`."""
        points = self._prepare(check_vectors(vectors, self._dimension)) / self._scale
        return np.asarray(softmax(self._decide(points) / self._temperature, axis=1))


def _fit(points: np.ndarray, class_of: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From (Q, P) points to (Q, C) decision values."""
    machine = LinearSVC(random_state=0, max_iter=MOST_ITERATIONS).fit(points, class_of)

    def decide(points: np.ndarray) -> np.ndarray:
        values = machine.decision_function(points)
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values

    return decide


def _temperature(points: np.ndarray, class_of: np.ndarray) -> float:
    """The divisor of the decision values; 1 if there are too few images to hold out."""
    members = np.bincount(class_of)
    known = np.flatnonzero(members[class_of] > 1)
    if len(np.unique(class_of[known])) < 2:
        return 1.0
    points, class_of = points[known], np.unique(class_of[known], return_inverse=True)[1]
    order = np.argsort(class_of, kind="stable")
    members = np.bincount(class_of)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - (np.cumsum(members) - members)[class_of[order]]
    fold_of = FOLDS * place // members[class_of]
    values = np.empty((len(points), len(members)))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        values[held_out] = _fit(points[~held_out], class_of[~held_out])(points[held_out])

    # Platt's targets: a few correct predictions do not prove that the next is correct.
    doubt = 1 / (members[class_of] + 2)
    targets = np.tile(doubt[:, None] / (len(members) - 1), (1, len(members)))
    targets[np.arange(len(points)), class_of] = 1 - doubt

    def loss(logarithm: float) -> float:
        return float(-(targets * log_softmax(values / np.exp(logarithm), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def fit_classifier(
    name: str, training: Embeddings, metric: str, neighbours: int = 10
) -> Classifier:
    """A classifier fitted to embeddings; unlabelled ones are ignored.

    knn needs little time. svm took 2.4 s for 3,000 images of 128 dimensions in 10 classes, 16 s in
    100 classes, and 126 s for 50,000 images in 10 classes, on two busy cores: it is fitted six
    times, five of them for the temperature.

    Args:
        name: knn or svm.
        training: labelled embeddings.
        metric: of the search.
        neighbours: of knn.

    Raises:
        UserError: fewer than two classes, or too many for svm.
    """
    training = training.take(training.labels != UNLABELLED)
    classes = len(np.unique(training.labels))
    if classes < 2:
        raise UserError(
            f"search.two_step: needs training images of two or more classes, there are {classes}; "
            "set search.two_step=none"
        )
    if name == "svm" and len(training) * classes > MOST_DECISIONS:
        raise UserError(
            f"search.two_step: svm is too large for {len(training):,} training images of "
            f"{classes:,} classes; set search.two_step=knn"
        )
    started = time.monotonic()
    if name == "knn":
        classifier: Classifier = NearestVote(training, metric, neighbours)
    else:
        classifier = LinearMachine(training, metric)
    seconds = time.monotonic() - started
    logger.info(
        "%s fitted to %d training images of %d classes in %.1f s",
        name,
        len(training),
        classes,
        seconds,
    )
    return classifier
