"""The protocol between an index and a nearest-neighbour library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from cbir_tf.search.distances import Metric


class BackEnd(Protocol):
    """Proposes candidates by their positions in the gallery.

    Attributes:
        name: as in the configuration.
    """

    name: str

    @property
    def is_exact(self) -> bool:
        """Whether `propose` returns every vector nearer than its bound."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that `save` writes."""
        ...

    def fit(self, vectors: np.ndarray, metric: Metric) -> None:
        """Index (N, D) float32 vectors in place of any earlier ones."""
        ...

    def with_inserted(self, vectors: np.ndarray, positions: np.ndarray) -> Self:
        """A back end with more vectors; this one stays as it is and can be searched meanwhile.

        Args:
            vectors: (N, D) float32, this back end's vectors and the new ones.
            positions: (M,) int64, where in `vectors` the new ones are, ascending.
        """
        ...

    def with_deleted(self, vectors: np.ndarray, positions: np.ndarray) -> Self:
        """A back end with fewer vectors; this one stays as it is and can be searched meanwhile.

        Args:
            vectors: (N, D) float32, those of this back end that remain.
            positions: (M,) int64, where in this back end's vectors the others were, ascending.
        """
        ...

    def propose(
        self, queries: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates for (Q, D) float32 queries.

        Args:
            queries: (Q, D) float32.
            wanted: number of candidates, at most N (or M).
            candidate_positions: (M,) int64 positions to choose from, ascending; None: all. The
                search within them is always exact.

        Returns:
            (Q, wanted or more) int64 positions, -1 for none, each at most once a row; and (Q,)
            float64 lower bounds, in the metric's norm, of the distance to any other vector.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Options and the values chosen at fitting, ready for JSON."""
        ...

    def save(self, folder: Path) -> None:
        """Write `files` into a folder, if there are any."""
        ...

    def load(
        self, folder: Path, vectors: np.ndarray, metric: Metric, settings: dict[str, Any]
    ) -> None:
        """Read the files of `save`, with the same vectors and its `settings`."""
        ...
