"""Exact candidates by scikit-learn's NearestNeighbors, brute force: the default for small sets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cbir_tf.search.distances import Metric, p_norms

# scikit-learn computes euclidean norms from dot products. Their error is below this share of the
# two vectors' lengths: its square, 1e-12, is above float64's epsilon times 4,500 dimensions.
NORM_ERROR = 1e-6
# Sums of powers up to this one stay within float64, whatever the float32 vectors.
SAFE_ORDER = 7


class NearestNeighborsBackEnd:
    """Every query against every vector of the gallery (see `cbir_tf.search.back_end`)."""

    name = "nearest_neighbors"
    is_exact = True
    files: tuple[str, ...] = ()

    def fit(self, vectors: np.ndarray, metric: Metric) -> None:
        self._metric = metric
        self._take(metric.prepare(vectors))

    def with_inserted(self, vectors: np.ndarray, positions: np.ndarray) -> NearestNeighborsBackEnd:
        new = self._metric.prepare(vectors[positions])
        before = positions - np.arange(len(positions))
        return self._with(np.insert(self._prepared, before, new, axis=0))

    def with_deleted(self, vectors: np.ndarray, positions: np.ndarray) -> NearestNeighborsBackEnd:
        return self._with(np.delete(self._prepared, positions, axis=0))

    def propose(
        self, queries: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        prepared = self._metric.prepare(queries)
        scale = self._scale(max(self._largest, np.abs(prepared).max(initial=0)))
        model = self._model(candidate_positions, scale)
        norms, candidates = model.kneighbors(prepared / scale, wanted)
        if candidate_positions is not None:
            candidates = candidate_positions[candidates]
        error = NORM_ERROR * (self._lengths(prepared) + self._longest)
        return candidates, norms[:, -1] * scale - error

    def settings(self) -> dict[str, Any]:
        return {}

    def save(self, folder: Path) -> None:
        """Nothing: fitting to the stored vectors is as fast as reading a file."""

    def load(
        self, folder: Path, vectors: np.ndarray, metric: Metric, settings: dict[str, Any]
    ) -> None:
        self.fit(vectors, metric)

    def _with(self, prepared: np.ndarray) -> NearestNeighborsBackEnd:
        other = copy.copy(self)
        other._take(prepared)
        return other

    def _take(self, prepared: np.ndarray) -> None:
        self._prepared = prepared
        self._largest = float(np.abs(prepared).max(initial=0))
        self._longest = self._lengths(prepared).max(initial=0)
        self._everything = self._fitted(prepared, self._scale(self._largest))

    def _model(self, candidate_positions: np.ndarray | None, scale: float) -> NearestNeighbors:
        if candidate_positions is not None:
            return self._fitted(self._prepared[candidate_positions], scale)
        if scale == self._scale(self._largest):
            return self._everything
        return self._fitted(self._prepared, scale)

    def _fitted(self, prepared: np.ndarray, scale: float) -> NearestNeighbors:
        model = NearestNeighbors(algorithm="brute", metric="minkowski", p=self._metric.order)
        return model.fit(prepared / scale)

    def _scale(self, largest: float) -> float:
        """What values up to this are divided by, so that powers of differences do not overflow."""
        return 1.0 if self._metric.order <= SAFE_ORDER or largest == 0 else 2 * largest

    def _lengths(self, prepared: np.ndarray) -> np.ndarray:
        return p_norms(prepared, self._metric.order)
