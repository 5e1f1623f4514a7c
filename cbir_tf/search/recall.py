"""How much an approximate search finds, measured on stored vectors, and the least effort for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from cbir_tf.config.arguments import real_number
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.search.distances import p_norms

SAMPLE, SAMPLE_K = 1000, 10  # queries on which the recall is measured, and neighbours of each
CERTAINTY = 2.0  # standard errors of the sample's mean by which the recall has to be exceeded
# What float32 arithmetic cannot tell from the true 10th neighbour is as good as it.
TOLERANCE = 1e-4

Attempt = TypeVar("Attempt")


class RecallSample:
    """Some stored vectors, each searched among all the others.

    Args:
        stored: (N, P) prepared vectors (see `cbir_tf.search.distances.Metric`), two or more.
        order: of the norm of their differences.
        exactly: from (S,) rows of `stored` and a number k to (S, k) rows nearest to each of them.
        recall: target, the share of the true 10 nearest.
        seed: of the choice of the sample.
    """

    def __init__(
        self,
        stored: np.ndarray,
        order: float,
        exactly: Callable[[np.ndarray, int], np.ndarray],
        recall: float,
        seed: int,
    ) -> None:
        count = len(stored)
        self._recall = recall
        random = np.random.default_rng(seed)
        self._stored, self._order = stored, order
        self._rows = np.sort(random.choice(count, min(SAMPLE, count), replace=False))
        self._k = min(SAMPLE_K, count - 1)
        # Each query is itself stored: one more is fetched, and the nearest is it.
        self._farthest = self._distances(exactly(self._rows, self._k + 1)).max(axis=1)

    def least(
        self,
        attempts: Iterable[Attempt],
        nearly: Callable[[np.ndarray, int, Attempt], np.ndarray],
    ) -> tuple[float, bool]:
        """Find the first attempt with the target recall.

        Args:
            attempts: one or more, in order of effort.
            nearly: as `exactly`, by an attempt; -1 for none.

        Returns:
            The recall of the last attempt that was made, and whether it is enough: at least the
            target plus two standard errors of the sample's mean.
        """
        for attempt in attempts:
            found = self._found(nearly(self._rows, self._k + 1, attempt))
            reached = float(found.mean())
            error = float(found.std()) / np.sqrt(len(found))
            if enough := reached >= self._recall + CERTAINTY * error:
                break
        return reached, enough

    def _found(self, found: np.ndarray) -> np.ndarray:
        """(S,) float64, the share of each query's true neighbours that was found."""
        distances = self._distances(found)
        hits = (distances <= self._farthest[:, np.newaxis] * (1 + TOLERANCE)).sum(axis=1) - 1
        shares: np.ndarray = np.clip(hits, 0, self._k) / self._k
        return shares

    def _distances(self, found: np.ndarray) -> np.ndarray:
        """(S, k) norms from each of the sample to what was found for it; infinite for none."""
        differences = self._stored[found].astype(np.float64) - self._stored[self._rows, np.newaxis]
        distances = p_norms(differences, self._order, out=differences)
        distances[found < 0] = np.inf
        return distances


def check_recall(recall: float) -> None:
    """Check a target recall.

    Raises:
        UserError: it is not in (0, 1].
    """
    if not 0 < real_number(recall, "recall") <= 1:
        raise UserError(f"recall={recall}: must be above 0 and at most 1; correct it")


def efforts(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, ...: halves between the powers of two."""
    effort = 1
    while effort <= most:
        yield effort
        if effort > 1:
            yield effort * 3 // 2
        effort *= 2


def log_recall(what: str, count: int, start: float, reached: float) -> None:
    """Log an index's name, number of vectors, fitting time since `start` and measured recall.

    Args:
        what: name of the index.
        count: vectors it was fitted to.
        start: of the fitting, by `time.monotonic`.
        reached: recall measured.
    """
    logger.info(
        "%s over %d vectors in %.1f s: recall@%d of %.3f, measured on %d of them",
        what,
        count,
        time.monotonic() - start,
        SAMPLE_K,
        reached,
        min(SAMPLE, count),
    )
