"""How much an approximate search finds, measured on stored vectors, and the least effort for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.search.distances import p_norms

SAMPLE, SAMPLE_K = 400, 10  # queries on which the recall is measured, and neighbours of each
RECALL_MARGIN = 0.5  # aimed above the recall asked for, as a share of what it leaves to 1
# What float32 arithmetic cannot tell from the true 10th neighbour is as good as it.
TOLERANCE = 1e-4

Attempt = TypeVar("Attempt")


class RecallSample:
    """Some stored vectors, each searched among all the others.

    Args:
        stored: (N, P) prepared vectors (see `cbir_tf.search.distances.Metric`), two or more.
        order: of the norm of their differences.
        exactly: from (S,) rows of `stored` and a number k to (S, k) rows nearest to each of them.
        recall: share of the true 10 nearest asked for.
        seed: of the choice of the sample.

    Attributes:
        wanted: share aimed at: a little more, as the sample is no more than one.
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
        self.wanted = recall + RECALL_MARGIN * (1 - recall)
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
    ) -> tuple[Attempt, float]:
        """The first attempt that finds what is wanted, else the last.

        Args:
            attempts: one or more, in order of effort.
            nearly: as `exactly`, by an attempt; -1 for none.

        Returns:
            The attempt, and the share that it found.
        """
        for attempt in attempts:
            reached = self._recall(nearly(self._rows, self._k + 1, attempt))
            if reached >= self.wanted:
                break
        return attempt, reached

    def _recall(self, found: np.ndarray) -> float:
        distances = self._distances(found)
        hits = (distances <= self._farthest[:, np.newaxis] * (1 + TOLERANCE)).sum(axis=1) - 1
        return float(np.mean(np.clip(hits, 0, self._k)) / self._k)

    def _distances(self, found: np.ndarray) -> np.ndarray:
        """(S, k) norms from each of the sample to what was found for it; infinite for none."""
        differences = self._stored[found].astype(np.float64) - self._stored[self._rows, np.newaxis]
        distances = p_norms(differences, self._order, out=differences)
        distances[found < 0] = np.inf
        return distances


def check_recall(recall: float) -> None:
    """Refuse an impossible recall.

    Raises:
        UserError: it is not above 0 and at most 1.
    """
    if not 0 < recall <= 1:
        raise UserError(f"recall={recall}: must be above 0 and at most 1")


def efforts(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, ...: halves between the powers of two."""
    effort = 1
    while effort <= most:
        yield effort
        if effort > 1:
            yield effort * 3 // 2
        effort *= 2


def log_recall(what: str, count: int, start: float, reached: float) -> None:
    """Say what was fitted to how many vectors, since when (`time.monotonic`), and how well."""
    logger.info(
        "%s over %d vectors in %.1f s: recall@%d of %.3f, measured on %d of them",
        what,
        count,
        time.monotonic() - start,
        SAMPLE_K,
        reached,
        min(SAMPLE, count),
    )
