"""Candidates by Annoy: a forest of random trees, searched as far as a wanted recall takes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.distances import METRICS, Metric
from cbir_tf.search.nearest_neighbors import NearestNeighborsBackEnd
from cbir_tf.search.recall import SAMPLE_K, RecallSample, check_recall, efforts, log_recall
from cbir_tf.storage.files import replacing

FILE_NAME = "annoy.index"
TREES = 10
# Up to this number comparing with every vector takes about a millisecond.
SMALL = 1000


class AnnoyBackEnd:
    """Annoy's trees (see `cbir_tf.search.vector_index.BackEnd`), angular for the cosine distance.

    The search effort, the number of vectors compared in the trees' leaves, is chosen when the trees
    are built: the least with the target recall@10, measured on stored vectors as queries against
    the others. So more trees do not raise the recall, and hardly the speed. Filtered searches are
    exact and compare with every vector. Annoy cannot change trees once they are built: every change
    to the gallery builds them again, in some seconds for 100,000 vectors.

    Args:
        trees: number of trees; None: 10, or none, which is exact, for up to 1,000 vectors, for a
            recall of 1, and where the trees would need longer for that recall.
        recall: target, the share of the true 10 nearest that is found, in (0, 1].
        seed: of trees and sampling.

    Attributes:
        reached: the recall@10 measured, 1 without trees.

    Raises:
        UserError: annoy is not installed, no trees, or an impossible recall.
    """

    name = "annoy"

    def __init__(self, trees: int | None = None, recall: float = 0.99, seed: int = 0) -> None:
        _import_annoy()
        if trees is not None and trees < 1:
            raise UserError(f"annoy: trees={trees}: must be 1 or more; correct it")
        check_recall(recall)
        self.trees, self.recall, self.seed = trees, recall, seed
        self.reached = 1.0
        self._forest: Any = None
        self._effort = 0
        self._every: NearestNeighborsBackEnd | None = None

    @property
    def is_exact(self) -> bool:
        """Whether there are no trees."""
        return self._forest is None

    @property
    def files(self) -> tuple[str, ...]:
        """What `save` writes."""
        return () if self.is_exact else (FILE_NAME,)

    def fit(self, vectors: np.ndarray, metric: Metric) -> None:
        start = time.monotonic()
        self._take(vectors, metric)
        self.reached = 1.0
        if self.trees is None and (len(vectors) <= SMALL or self.recall == 1):
            return
        prepared = metric.prepare(vectors)
        self._forest = self._new_forest(prepared.shape[1])
        self._forest.set_seed(self.seed + 1)
        for position, vector in enumerate(prepared):
            self._forest.add_item(position, vector)
        # With more threads the trees would depend on their timing.
        self._effort = self.trees or TREES
        self._forest.build(self._effort, n_jobs=1)
        if len(vectors) > 1:
            self._tune(prepared)
        trees = 0 if self.is_exact else self._forest.get_n_trees()
        log_recall(f"annoy, {trees} trees,", len(vectors), start, self.reached)

    def with_inserted(self, vectors: np.ndarray, positions: np.ndarray) -> AnnoyBackEnd:
        return self._refitted(vectors)

    def with_deleted(self, vectors: np.ndarray, positions: np.ndarray) -> AnnoyBackEnd:
        return self._refitted(vectors)

    def propose(
        self, queries: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._forest is None or candidate_positions is not None:
            return self._propose_exactly(queries, wanted, candidate_positions)
        candidates = self._propose_nearly(self._metric.prepare(queries), wanted)
        return candidates, np.full(len(queries), np.inf)

    def settings(self) -> dict[str, Any]:
        return {
            "trees": self.trees,
            "recall": self.recall,
            "seed": self.seed,
            "reached": self.reached,
            "approximate": not self.is_exact,
            "effort": self._effort,
        }

    def save(self, folder: Path) -> None:
        if self._forest is None:
            return
        # Annoy reads from that file from here on, also after it was renamed.
        with replacing(folder / FILE_NAME) as temporary:
            self._forest.save(str(temporary))

    def load(
        self, folder: Path, vectors: np.ndarray, metric: Metric, settings: dict[str, Any]
    ) -> None:
        self._take(vectors, metric)
        self.trees, self.recall, self.seed = (
            settings[name] for name in ("trees", "recall", "seed")
        )
        self.reached, self._effort = settings["reached"], settings["effort"]
        if settings["approximate"]:
            self._forest = self._new_forest(metric.prepare(vectors[:1]).shape[1])
            self._forest.load(str(folder / FILE_NAME))

    def _refitted(self, vectors: np.ndarray) -> AnnoyBackEnd:
        other = copy.copy(self)
        other.fit(vectors, self._metric)
        return other

    def _new_forest(self, dimension: int) -> Any:
        """An empty index of Annoy's for prepared vectors.

        Raises:
            UserError: Annoy does not know the metric.
        """
        if self._metric.order not in (1, 2):
            raise UserError(
                f"annoy: knows no {self._metric.norm} distance; use search.index "
                "nearest_neighbors, or another metric"
            )
        name = "angular" if self._metric == METRICS["cosine"] else self._metric.norm
        return _import_annoy().AnnoyIndex(dimension, name)

    def _tune(self, prepared: np.ndarray) -> None:
        """Choose the least effort with the target recall, and measure its recall."""

        def exactly(rows: np.ndarray, wanted: int) -> np.ndarray:
            return self._propose_exactly(self._vectors[rows], wanted, None)[0]

        def nearly(rows: np.ndarray, wanted: int, effort: int) -> np.ndarray:
            self._effort = effort
            return self._propose_nearly(prepared[rows], wanted)

        sample = RecallSample(prepared, self._metric.order, exactly, self.recall, self.seed)
        self.reached, _ = sample.least(self._efforts(), nearly)
        if self.reached < self.recall:
            self._forest, self.reached = None, 1.0

    def _efforts(self) -> Iterator[int]:
        """Vectors compared for each candidate, from one per tree upwards.

        The last effort compares about as many vectors as the gallery has, which takes as long as an
        exact search; with a configured number of trees, all vectors of all trees.
        """
        trees = self._forest.get_n_trees()
        most = 2 * len(self._vectors) // SAMPLE_K
        if self.trees is None:
            most //= trees
        return (trees * each for each in efforts(max(1, most)))

    def _propose_nearly(self, prepared: np.ndarray, wanted: int) -> np.ndarray:
        """(Q, wanted) positions.

        No tree holds a vector twice: with an effort of one a tree, as many different ones as are
        wanted are looked at.
        """
        found = np.empty((len(prepared), wanted), dtype=np.int64)
        looked_at = min(self._effort * wanted, 2**31 - 1)
        # Annoy takes one query at a time.
        for row, query in enumerate(prepared):
            found[row] = self._forest.get_nns_by_vector(query, wanted, looked_at)
        return found

    def _propose_exactly(
        self, queries: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._every is None:
            self._every = NearestNeighborsBackEnd()
            self._every.fit(self._vectors, self._metric)
        return self._every.propose(queries, wanted, candidate_positions)

    def _take(self, vectors: np.ndarray, metric: Metric) -> None:
        self._vectors, self._metric = vectors, metric
        self._forest, self._every = None, None


def _import_annoy() -> Any:
    try:
        import annoy
    except ImportError:
        raise UserError(
            "annoy is not installed; pip install 'cbir-tf[annoy]', which needs a C++ compiler"
        ) from None
    return annoy
