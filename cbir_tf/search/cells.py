"""Exact search among many vectors by looking only where something near enough can be.

The vectors are gathered in cells, each a ball around a centre. By the triangle inequality nothing
in a cell is nearer to a query than the centre is, less the cell's radius. A first look into the
nearest cells tells how far the k-th neighbour is at most; cells that begin farther away than that
are left out (Fukunaga & Narendra 1975, A Branch and Bound Algorithm for Computing k-Nearest
Neighbors). Every bound allows for the rounding of float32. Where vectors lie in clusters, as
embeddings do, few cells are left. Queries for which many cells remain are not answered: a
comparison with all vectors is faster for them.
"""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from types import ModuleType

import numpy as np

from cbir_tf.parallel import blocks
from cbir_tf.storage.files import replacing

FEWEST_PER_CELL = 39  # also what centres are found with
ROUNDS = 5  # of clustering; better centres hardly leave out more
FIRST_CELLS = 2  # looked into first, or as many as hold FIRST_VECTORS for each one wanted
FIRST_VECTORS = 4
# Cells are searched vector by vector. A matrix product with all vectors does about eight times as
# much in the time.
WORTHWHILE = 1 / 8
BLOCK_VALUES = 2**22


class Cells:
    """Vectors by number, in cells; `fit` finds centres for them.

    Args:
        faiss: the module.
        centres: (C, P) float32.
    """

    def __init__(self, faiss: ModuleType, centres: np.ndarray) -> None:
        quantizer = faiss.IndexFlatL2(centres.shape[1])
        quantizer.add(centres)
        self._faiss, self._centres = faiss, centres
        self._index = faiss.IndexIVFFlat(quantizer, *reversed(centres.shape))
        # The quantizer has to live as long as the index that points to it.
        self._index.own_fields = True
        quantizer.this.disown()
        self._radii = np.zeros(len(centres), dtype=np.float32)
        self._cells = np.empty(0, dtype=np.int64)  # by number
        self._lock = threading.Lock()  # how many cells to look into is kept in the index

    @classmethod
    def fit(cls, faiss: ModuleType, vectors: np.ndarray, seed: int) -> Cells:
        """Put (N, P) float32 vectors, numbered from 0, into cells made for them."""
        count, dimension = vectors.shape
        number = max(1, min(2 ** round(np.log2(4 * np.sqrt(count))), count // FEWEST_PER_CELL))
        clustering = faiss.Kmeans(
            dimension,
            number,
            niter=ROUNDS,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=FEWEST_PER_CELL,
        )
        clustering.train(vectors)
        cells = cls(faiss, clustering.centroids)
        cells._add(vectors)
        return cells

    def with_added(self, vectors: np.ndarray) -> Cells:
        """Cells with (N, P) more vectors, numbered after those already here; these stay."""
        other = self._clone()
        other._add(vectors)
        return other

    def without(self, numbers: np.ndarray) -> Cells:
        """Cells without the vectors of these numbers; these stay, and all radii with them."""
        other = self._clone()
        other._index.remove_ids(numbers)
        return other

    def _clone(self) -> Cells:
        other = copy.copy(self)
        other._index = self._faiss.clone_index(self._index)
        other._radii, other._lock = self._radii.copy(), threading.Lock()
        return other

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _add(self, vectors: np.ndarray) -> None:
        squared, cells = self._index.quantizer.search(vectors, 1)
        far = np.sqrt(squared[:, 0] + self._error(vectors))
        np.maximum.at(self._radii, cells[:, 0], far)
        self._put(vectors, cells[:, 0])

    def _put(self, vectors: np.ndarray, cells: np.ndarray) -> None:
        numbers = len(self._cells) + np.arange(len(cells))
        pointers = (self._faiss.swig_ptr(each) for each in (vectors, numbers, cells))
        self._index.add_core(len(vectors), *pointers)
        self._cells = np.append(self._cells, cells)

    def save(self, path: Path, numbers: np.ndarray) -> None:
        """Write the cells of these (N,) numbers, all there are, which `load` counts from 0.

        The vectors themselves are not written.
        """
        with replacing(path) as temporary:
            cells = self._cells[numbers]
            np.savez(temporary, centres=self._centres, radii=self._radii, cells=cells)

    @classmethod
    def load(cls, path: Path, faiss: ModuleType, vectors: np.ndarray) -> Cells:
        """Put (N, P) float32 vectors back into the cells that `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            cells = cls(faiss, saved["centres"])
            cells._radii = saved["radii"]
            cells._put(vectors, saved["cells"])
        return cells

    def search(self, queries: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest vectors of those queries for which few cells have to be looked into.

        Args:
            queries: (Q, P) float32.
            wanted: neighbours of each, at most N.

        Returns:
            (Q,) bool, which queries have been answered; and for those A queries (A, wanted) squared
            distances, ascending, and (A, wanted) numbers.
        """
        # A block even of no queries, which says what the arrays look like.
        parts = blocks(max(1, len(queries)), len(self._radii), BLOCK_VALUES)
        found = [self._search(queries[some], wanted) for some in parts]
        answered, distances, numbers = map(np.concatenate, zip(*found, strict=True))
        return answered, distances, numbers

    def _search(
        self, queries: np.ndarray, wanted: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
            squared, numbers = self._index.search_preassigned(queries, wanted, cells, None)
        return squared, numbers

    def _error(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) most that rounding can do to a squared distance between these and a centre."""
        sizes = np.square(vectors).sum(axis=1) + np.square(self._centres).sum(axis=1).max()
        errors: np.ndarray = vectors.shape[1] * np.finfo(np.float32).eps * sizes
        return errors


def _least(values: np.ndarray, number: int) -> np.ndarray:
    """(Q, number) columns of the least of (Q, C) values, or all C columns, in no order."""
    if number >= values.shape[1]:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.argpartition(values, number, axis=1)[:, :number]
