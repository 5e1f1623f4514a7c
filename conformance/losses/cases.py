"""Random batches for the triplet losses, ties, duplicates and degenerate batches among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LOSSES = ("semihard", "hard", "soft")
METRICS = ("L2", "squared-L2", "angular", "manhattan", "asymmetric")
KINDS = ("random", "normalised", "duplicates", "grid", "collapsed")
MARGINS = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)
SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48)
DIMENSIONS = (1, 2, 3, 8, 16)


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a loss: embeddings (N, D) float32, labels (N,) int64."""

    loss: str
    metric: str
    kind: str
    margin: float
    embeddings: np.ndarray
    labels: np.ndarray


def random_cases(repeats: int, seed: int) -> Iterator[Case]:
    """Every loss with every metric on every kind of batch, so many times each."""
    random = np.random.default_rng(seed)
    for _ in range(repeats):
        for loss in LOSSES:
            for metric in METRICS:
                for kind in KINDS:
                    shape = (int(random.choice(SIZES)), int(random.choice(DIMENSIONS)))
                    yield Case(
                        loss,
                        metric,
                        kind,
                        float(random.choice(MARGINS)),
                        _embeddings(random, kind, shape),
                        _labels(random, shape[0]),
                    )


def _labels(random: np.random.Generator, count: int) -> np.ndarray:
    """(N,) with at least two of every class as a rule, else any: one class, classes of one."""
    if count >= 4 and random.random() < 0.8:
        return random.permutation(np.arange(count) % random.integers(2, count // 2 + 1))
    return random.integers(0, random.integers(1, count + 1), count)


def _embeddings(random: np.random.Generator, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """(N, D) float32. Numbers that have to tie are short, so that sums of squares are exact."""
    normal = random.normal(size=shape)
    if kind == "normalised":
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    elif kind == "duplicates":
        short = np.round(normal * 64) / 64
        normal = short[random.integers(0, (shape[0] + 1) // 2, shape[0])]
    elif kind == "grid":
        normal = random.integers(-2, 3, shape)
    elif kind == "collapsed":
        normal = np.round(normal[:1] * 64) / 64 + np.zeros(shape)
    return normal.astype(np.float32)
