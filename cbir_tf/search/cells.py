"""Exact search among many vectors by looking only where something near enough can be.

The vectors are gathered in cells, each a ball around a centre. By the triangle inequality nothing
in a cell is nearer to a query than the centre is, less the cell's radius. A first look into the
nearest cells tells how far the k-th neighbour is at most; cells that begin farther away than that
are left out (Fukunaga & Narendra 1975, A Branch and Bound Algorithm for Computing k-Nearest
Neighbors). The rounding of float32 is on the safe side of every bound. Where vectors lie in
clusters, as embeddings do, few cells are left; where they do not, `search` says so and comparing
with everything is the faster way.
"""

from __future__ import annotations

import threading
from types import ModuleType

import numpy as np

FEWEST_PER_CELL = 39  # below which FAISS warns
VECTORS_PER_CELL, ROUNDS = 40, 5  # to find the centres with
FIRST_CELLS = 2  # looked into first, or as many as hold FIRST_VECTORS for each one wanted
FIRST_VECTORS = 4
# Cells are searched vector by vector. A matrix product with all vectors does about eight times as
# much in the time.
WORTHWHILE = 1 / 8


class Cells:
    """Vectors by number, in cells.

    Args:
        faiss: the module.
        vectors: (N, P) float32, numbered from 0.
        seed: of clustering.
    """

    def __init__(self, faiss: ModuleType, vectors: np.ndarray, seed: int) -> None:
        count, dimension = vectors.shape
        number = max(1, min(2 ** round(np.log2(4 * np.sqrt(count))), count // FEWEST_PER_CELL))
        quantizer = faiss.IndexFlatL2(dimension)
        self._faiss = faiss
        self._index = faiss.IndexIVFFlat(quantizer, dimension, number)
        self._index.cp.seed = seed + 1
        self._index.cp.niter = ROUNDS
        random = np.random.default_rng(seed)
        training = random.choice(count, min(count, VECTORS_PER_CELL * number), replace=False)
        self._index.train(vectors[np.sort(training)])
        # The quantizer has to live as long as the index that points to it.
        self._index.own_fields = True
        quantizer.this.disown()
        self._centres = quantizer.reconstruct_n(0, number)
        self._radii = np.zeros(number, dtype=np.float32)
        self._lock = threading.Lock()  # the number of cells to look into is the index's own
        self.add(vectors, np.arange(count))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        """Put more (N, P) vectors into their cells, under these numbers."""
        squared, cell = self._index.quantizer.search(vectors, 1)
        far = np.sqrt(squared[:, 0] + self._error(vectors))
        np.maximum.at(self._radii, cell[:, 0], far)
        self._index.add_with_ids(vectors, numbers.astype(np.int64))

    def remove(self, numbers: np.ndarray) -> None:
        """Take vectors out."""
        self._index.remove_ids(numbers.astype(np.int64))

    def search(self, queries: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest vectors of those queries for which few cells have to be looked into.

        Args:
            queries: (Q, P) float32.
            wanted: neighbours of each, at most N.

        Returns:
            (Q,) bool, which queries have been answered; and for those A queries (A, wanted) squared
            distances, ascending, and (A, wanted) numbers.
        """
        squared = (
            np.square(queries).sum(axis=1)[:, None]
            - 2 * queries @ self._centres.T
            + np.square(self._centres).sum(axis=1)
        )
        first = max(FIRST_CELLS, -(-FIRST_VECTORS * wanted * len(self._radii) // len(self)))
        farthest = self._look(queries, wanted, _least(squared, first))[0][:, -1]
        error = self._error(queries)
        farthest = np.sqrt(farthest + error)[:, None]
        begin = np.sqrt(np.maximum(squared - error[:, None], 0)) - self._radii
        begin[begin > farthest] = np.inf
        number = (begin < np.inf).sum(axis=1)
        answered = number <= max(first, WORTHWHILE * len(self._radii))
        begin = begin[answered]
        cells = _least(begin, int(number[answered].max(initial=1)))
        cells[np.take_along_axis(begin, cells, axis=1) == np.inf] = -1
        return answered, *self._look(queries[answered], wanted, cells)

    def _look(
        self, queries: np.ndarray, wanted: int, cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            self._index.nprobe = cells.shape[1]
            return self._index.search_preassigned(queries, wanted, cells, None)

    def _error(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) most that rounding can do to a squared distance between these and a centre."""
        sizes = np.square(vectors).sum(axis=1) + np.square(self._centres).sum(axis=1).max()
        return vectors.shape[1] * np.finfo(np.float32).eps * sizes


def _least(values: np.ndarray, number: int) -> np.ndarray:
    """(Q, number) columns of the least of (Q, C) values, or all C columns, in no order."""
    if number >= values.shape[1]:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.argpartition(values, number, axis=1)[:, :number]
