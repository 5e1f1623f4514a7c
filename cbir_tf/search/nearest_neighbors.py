"""Exact candidates by scikit-learn's NearestNeighbors, brute force: the default for small sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cbir_tf.search.distances import Metric

# scikit-learn computes euclidean norms from dot products. Their error is below this share of the
# two vectors' lengths: its square, 1e-12, is above float64's epsilon times 4,500 dimensions.
NORM_ERROR = 1e-6


class NearestNeighborsBackEnd:
    """Every query against every vector of the gallery (see `cbir_tf.search.gallery.BackEnd`)."""

    name = "nearest_neighbors"
    is_exact = True
    files: tuple[str, ...] = ()

    def fit(self, vectors: np.ndarray, metric: Metric) -> None:
        self._metric = metric
        self._take(metric.prepare(vectors))

    def insert(self, vectors: np.ndarray, positions: np.ndarray) -> None:
        new = self._metric.prepare(vectors[positions])
        self._take(np.insert(self._prepared, positions - np.arange(len(positions)), new, axis=0))

    def delete(self, vectors: np.ndarray, positions: np.ndarray) -> None:
        self._take(np.delete(self._prepared, positions, axis=0))

    def propose(
        self, queries: np.ndarray, wanted: int, among: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        prepared = self._metric.prepare(queries)
        norms, candidates = self._model(among).kneighbors(prepared, wanted)
        if among is not None:
            candidates = among[candidates]
        error = NORM_ERROR * (self._lengths(prepared) + self._longest)
        return candidates, norms[:, -1] - error

    def settings(self) -> dict[str, Any]:
        return {}

    def save(self, folder: Path) -> None:
        """Nothing: fitting to the stored vectors is as fast as reading a file."""

    def load(
        self, folder: Path, vectors: np.ndarray, metric: Metric, settings: dict[str, Any]
    ) -> None:
        self.fit(vectors, metric)

    def _take(self, prepared: np.ndarray) -> None:
        self._prepared = prepared
        self._everything = self._model_of(prepared)
        self._longest = self._lengths(prepared).max(initial=0)

    def _model(self, among: np.ndarray | None) -> NearestNeighbors:
        return self._everything if among is None else self._model_of(self._prepared[among])

    def _model_of(self, prepared: np.ndarray) -> NearestNeighbors:
        return NearestNeighbors(algorithm="brute", metric=self._metric.norm).fit(prepared)

    def _lengths(self, prepared: np.ndarray) -> np.ndarray:
        order = 2 if self._metric.norm == "euclidean" else 1
        return np.linalg.norm(prepared, ord=order, axis=1)
