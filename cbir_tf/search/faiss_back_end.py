"""Candidates by FAISS: exact for small galleries, approximate to a wanted recall for large ones."""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cbir_tf.errors import UserError, nearest
from cbir_tf.parallel import blocks
from cbir_tf.progress import logger
from cbir_tf.search.cells import Cells
from cbir_tf.search.distances import Metric
from cbir_tf.search.recall import SAMPLE_K, RecallSample, check_recall, efforts, log_recall
from cbir_tf.storage.files import replacing

FILE_NAME = "faiss.index"
SLOTS_FILE_NAME = "faiss.slots.npy"
CELLS_FILE_NAME = "faiss.cells.npz"
KINDS = ("auto", "flat", "cells", "hnsw", "ivf", "ivf_pq")

# Below this number comparing with every vector takes about a millisecond.
SMALL = 20_000
# Scanning codes is cheap: with twice as many clusters finding the nearest of them takes longest.
CLUSTERS_PER_ROOT = 1  # of the number of vectors
# FAISS trains its clusters on at most 256 vectors each; 64 give as good ones in a quarter of the
# time. Below 39 it warns.
VECTORS_PER_CLUSTER, FEWEST_PER_CLUSTER = 64, 39
LINKS, BUILD_EFFORT = 32, 120  # of HNSW
MOST_EFFORT = 4096
RESCORED = (3, 4, 6, 8, 12, 16, 32)  # candidates fetched by their codes for each one wanted
SCANNED = 75  # codes compared in the time that rescoring one candidate takes
# An index is fitted again when its vectors grow by this factor, or shrink to this share.
GROWN, KEPT = 2.0, 0.8
FEW = 20  # a filter that leaves fewer than one vector in 20 is searched in a copy
ALIGNMENT = 4  # product quantisers need a dimension that divides


class FaissBackEnd:
    """FAISS's indexes (see `cbir_tf.search.vector_index.BackEnd`).

    An exact flat index holds every vector as float32; beside it large galleries get an approximate
    one, whose candidates the flat vectors rescore, or for a recall of 1 cells, which leave out
    what cannot be near enough (`cbir_tf.search.cells`). The search effort of an approximate index
    is chosen when it is fitted: the least with the target recall@10, measured on stored vectors as
    queries against the others. Filtered searches are exact and go to the flat index.

    Args:
        kind: flat; cells; hnsw (graph); ivf (clusters); ivf_pq (clusters of 4-bit codes); auto:
            flat up to 20,000 vectors and for distances that only it knows, else cells for a recall
            of 1, and ivf_pq for less.
        recall: target, the share of the true 10 nearest that is found, in (0, 1].
        seed: of clustering and sampling.

    Attributes:
        reached: the recall@10 measured, 1 for an exact index.

    Raises:
        UserError: faiss is not installed, no such kind, or an impossible recall.
    """

    name = "faiss"

    def __init__(self, kind: str = "auto", recall: float = 0.99, seed: int = 0) -> None:
        self._faiss = _import_faiss()
        if kind not in KINDS:
            raise UserError(f"faiss: no kind {kind!r}; {nearest(kind, KINDS)}")
        check_recall(recall)
        self.kind, self.recall, self.seed = kind, recall, seed
        self.reached = 1.0
        self._approximate: Any = None
        self._cells: Cells | None = None
        self._effort, self._rescored = 0, RESCORED[0]
        self._fitted, self._fitted_kind = 0, "flat"
        self._slots = np.empty(0, dtype=np.int64)

    @property
    def is_exact(self) -> bool:
        """Whether there is no approximate index."""
        return self._approximate is None

    @property
    def files(self) -> tuple[str, ...]:
        """What `save` writes."""
        if self._cells is not None:
            return (CELLS_FILE_NAME,)
        return () if self.is_exact else (FILE_NAME, SLOTS_FILE_NAME)

    def fit(self, vectors: np.ndarray, metric: Metric) -> None:
        start = time.monotonic()
        if metric.order not in (1, 2):
            # Its sums of powers are float32, which large ones overflow and small ones vanish from.
            raise UserError(
                f"faiss: knows no {metric.norm} distance; use search.index nearest_neighbors, or "
                "another metric"
            )
        self._fill(vectors, metric)
        kind = self._kind_for(len(vectors))
        self._fitted, self._fitted_kind = len(vectors), kind
        self._approximate, self._cells, self.reached = None, None, 1.0
        if kind == "flat":
            return
        if metric.order != 2:
            raise UserError(
                f"faiss: {kind} knows no {metric.norm} distance; use kind flat, or another metric"
            )
        if kind == "cells":
            self._cells = Cells.fit(self._faiss, self._stored, self.seed)
            return
        self._approximate = self._build(kind, self._stored)
        self._tune(self._stored)
        log_recall(f"faiss {'flat' if self.is_exact else kind}", len(vectors), start, self.reached)

    def with_inserted(self, vectors: np.ndarray, positions: np.ndarray) -> FaissBackEnd:
        other = copy.copy(self)
        if len(vectors) > GROWN * self._fitted or self._kind_for(len(vectors)) != self._fitted_kind:
            other.fit(vectors, self._metric)
            return other
        # FAISS adds to an index in place, and its memory may move while another thread searches it.
        other._flat = self._faiss.clone_index(self._flat)
        prepared = self._prepare(vectors[positions])
        slots = self._flat.ntotal + np.arange(len(positions))
        other._flat.add(prepared)
        if self._approximate is not None:
            other._approximate = self._faiss.clone_index(self._approximate)
            other._approximate.add(prepared)
        if self._cells is not None:
            other._cells = self._cells.with_added(prepared)
        other._slots = np.insert(self._slots, positions - np.arange(len(positions)), slots)
        other._renumber()
        return other

    def with_deleted(self, vectors: np.ndarray, positions: np.ndarray) -> FaissBackEnd:
        other = copy.copy(self)
        if len(vectors) < KEPT * self._flat.ntotal:
            other.fit(vectors, self._metric)
            return other
        # The slots stay, so both share the indexes: not every kind can remove vectors.
        if self._cells is not None:
            other._cells = self._cells.without(self._slots[positions])
        other._slots = np.delete(self._slots, positions)
        other._renumber()
        return other

    def propose(
        self, queries: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        prepared = self._prepare(queries)
        if self._cells is not None and candidate_positions is None:
            return self._propose_by_cells(self._cells, prepared, wanted)
        if self._approximate is None or candidate_positions is not None:
            return self._propose_exactly(prepared, wanted, candidate_positions)
        passed_over = min(self._flat.ntotal - len(self._slots), wanted)
        candidates = self._position[self._propose_nearly(prepared, wanted + passed_over)]
        # The clusters searched may hold too few: then all of them have to be looked at.
        short = np.flatnonzero((candidates >= 0).sum(axis=1) < wanted)
        if len(short):
            candidates[short] = -1
            candidates[short, :wanted] = self._propose_exactly(prepared[short], wanted, None)[0]
        return candidates, np.full(len(queries), np.inf)

    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "recall": self.recall,
            "seed": self.seed,
            "reached": self.reached,
            "approximate": not self.is_exact,
            "effort": self._effort,
            "rescored": self._rescored,
            "fitted": self._fitted,
            "fitted_kind": self._fitted_kind,
        }

    def save(self, folder: Path) -> None:
        if self._cells is not None:
            self._cells.save(folder / CELLS_FILE_NAME, self._slots)
        if self._approximate is None:
            return
        with replacing(folder / FILE_NAME) as temporary:
            self._faiss.write_index(self._approximate, str(temporary))
        with replacing(folder / SLOTS_FILE_NAME) as temporary, temporary.open("wb") as file:
            np.save(file, self._slots, allow_pickle=False)

    def load(
        self, folder: Path, vectors: np.ndarray, metric: Metric, settings: dict[str, Any]
    ) -> None:
        self.kind, self.recall, self.seed = (settings[name] for name in ("kind", "recall", "seed"))
        self.reached = settings["reached"]
        self._effort, self._rescored = settings["effort"], settings["rescored"]
        self._fitted, self._fitted_kind = settings["fitted"], settings["fitted_kind"]
        if not settings["approximate"]:
            self._fill(vectors, metric)
            if self._fitted_kind == "cells":
                self._cells = Cells.load(folder / CELLS_FILE_NAME, self._faiss, self._stored)
            return
        self._approximate = self._faiss.read_index(str(folder / FILE_NAME))
        slots = np.load(folder / SLOTS_FILE_NAME, allow_pickle=False)
        # The flat index has to be filled by slot too, with anything for those passed over.
        order = np.zeros(self._approximate.ntotal, dtype=np.int64)
        order[slots] = np.arange(len(slots))
        self._fill(vectors, metric, order)
        self._slots = slots
        self._renumber()

    def _kind_for(self, count: int) -> str:
        if count < FEWEST_PER_CLUSTER:
            return "flat"
        if self.kind != "auto":
            return self.kind
        if count <= SMALL or self._metric.order != 2:
            return "flat"
        return "cells" if self.recall == 1 else "ivf_pq"

    def _build(self, kind: str, stored: np.ndarray) -> Any:
        """The approximate index of (slots, P) vectors."""
        faiss, (count, dimension) = self._faiss, stored.shape
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(dimension, LINKS)
            index.hnsw.efConstruction = BUILD_EFFORT
            # With more threads the graph would depend on their timing.
            with _threads(faiss, 1):
                index.add(stored)
            return index
        wanted = 2 ** round(np.log2(CLUSTERS_PER_ROOT * np.sqrt(count)))
        clusters = max(1, min(wanted, count // FEWEST_PER_CLUSTER))
        quantizer = faiss.IndexFlatL2(dimension)
        if kind == "ivf":
            index = faiss.IndexIVFFlat(quantizer, dimension, clusters)
        else:
            index = faiss.IndexIVFPQFastScan(quantizer, dimension, clusters, dimension // 2, 4)
            index.pq.cp.seed, index.by_residual = self.seed + 1, True
        index.cp.seed = self.seed + 1
        training = min(count, VECTORS_PER_CLUSTER * clusters)
        random = np.random.default_rng(self.seed)
        index.train(stored[np.sort(random.choice(count, training, replace=False))])
        index.add(stored)
        # The quantizer has to live as long as the index that points to it.
        index.own_fields = True
        quantizer.this.disown()
        return index

    def _tune(self, stored: np.ndarray) -> None:
        """Choose the least effort with the target recall, and measure its recall."""

        def exactly(rows: np.ndarray, wanted: int) -> np.ndarray:
            _, slots = self._flat.search(stored[rows], wanted)
            return np.asarray(slots)

        def nearly(rows: np.ndarray, wanted: int, attempt: tuple[int, int]) -> np.ndarray:
            self._effort, self._rescored = attempt
            return self._propose_nearly(stored[rows], wanted)

        sample = RecallSample(stored, self._metric.order, exactly, self.recall, self.seed)
        self.reached, enough = sample.least(self._attempts(), nearly)
        if enough:
            return
        if self.kind == "auto":
            self._approximate, self.reached = None, 1.0
        elif self.reached < self.recall:
            logger.warning(
                "faiss %s: the highest recall is %.3f, below search.recall %.3f; "
                "choose kind flat, or ivf",
                self.kind,
                self.reached,
                self.recall,
            )

    def _attempts(self) -> list[tuple[int, int]]:
        """Efforts, and candidates fetched by their codes for each one wanted, quickest first."""
        # More than there are clusters changes nothing.
        clusters = getattr(self._approximate, "nlist", MOST_EFFORT)
        tried = [*(effort for effort in efforts(MOST_EFFORT) if effort < clusters), clusters]
        if not self._rescores:
            return [(effort, RESCORED[0]) for effort in tried]
        scanned, rescored = self._approximate.ntotal / clusters, SCANNED * (SAMPLE_K + 1)
        return sorted(
            itertools.product(tried, RESCORED),
            key=lambda attempt: scanned * attempt[0] + rescored * attempt[1],
        )

    @property
    def _rescores(self) -> bool:
        return isinstance(self._approximate, self._faiss.IndexIVFPQFastScan)

    def _propose_nearly(self, prepared: np.ndarray, wanted: int) -> np.ndarray:
        """(Q, wanted) slots, -1 for none."""
        faiss, index = self._faiss, self._approximate
        if isinstance(index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(efSearch=max(self._effort, wanted))
        else:
            parameters = faiss.SearchParametersIVF(nprobe=min(self._effort, index.nlist))
        if self._rescores:
            index = faiss.IndexRefine(index, self._flat)
            parameters = faiss.IndexRefineSearchParameters(
                k_factor=self._rescored, base_index_params=parameters
            )
        _, slots = index.search(prepared, wanted, params=parameters)
        return np.asarray(slots)

    def _propose_by_cells(
        self, cells: Cells, prepared: np.ndarray, wanted: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_propose_exactly`, which does it for queries that would need too many cells."""
        positions, bounds = np.empty((len(prepared), wanted), int), np.empty(len(prepared))
        answered, distances, found = cells.search(prepared, wanted)
        positions[answered] = self._position[found]
        bounds[answered] = self._bound(prepared[answered], distances[:, -1])
        others = ~answered
        if others.any():
            positions[others], bounds[others] = self._propose_exactly(
                prepared[others], wanted, None
            )
        return positions, bounds

    def _propose_exactly(
        self, prepared: np.ndarray, wanted: int, candidate_positions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(Q, wanted) positions in the gallery, and the bound of `propose`."""
        faiss, flat, slots = self._faiss, self._flat, self._slots
        if candidate_positions is not None and FEW * len(candidate_positions) < len(slots):
            few = faiss.IndexFlat(flat.d, flat.metric_type)
            few.add(self._stored[slots[candidate_positions]])
            distances, found = few.search(prepared, wanted)
            positions = candidate_positions[found]
        else:
            parameters = None
            if candidate_positions is not None or len(slots) < flat.ntotal:
                chosen = np.zeros(flat.ntotal, dtype=bool)
                chosen[slots if candidate_positions is None else slots[candidate_positions]] = True
                bits = np.packbits(chosen, bitorder="little")
                parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            distances, found = flat.search(prepared, wanted, params=parameters)
            positions = self._position[found]
        return positions, self._bound(prepared, distances[:, -1])

    def _bound(self, prepared: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Least norm to what lies beyond these distances, in spite of float32's rounding."""
        error = prepared.shape[1] * np.finfo(np.float32).eps
        if self._metric.order == 1:
            return np.asarray(distances * (1 - error))
        sizes = np.square(prepared).sum(axis=1) + self._longest**2
        return np.asarray(np.sqrt(np.maximum(distances - error * sizes, 0).astype(np.float64)))

    def _fill(self, vectors: np.ndarray, metric: Metric, order: np.ndarray | None = None) -> None:
        """A flat index of the vectors, in this order of slots."""
        self._metric = metric
        kind = self._faiss.METRIC_L2 if metric.order == 2 else self._faiss.METRIC_L1
        slots = np.arange(len(vectors)) if order is None else order
        self._flat = self._faiss.IndexFlat(self._prepare(vectors[:1]).shape[1], kind)
        for some in blocks(len(slots), 1, 2**16):
            self._flat.add(self._prepare(vectors[slots[some]]))
        self._longest = float(np.sqrt(np.square(self._stored).sum(axis=1).max(initial=0)))
        self._slots = np.arange(len(vectors))
        self._renumber()

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """(N, P) float32, P a multiple of ALIGNMENT."""
        prepared = self._metric.prepare(vectors).astype(np.float32)
        missing = -prepared.shape[1] % ALIGNMENT
        return np.ascontiguousarray(np.pad(prepared, ((0, 0), (0, missing))))

    def _renumber(self) -> None:
        """Where each slot is in the gallery, -1 for deleted ones and, at the end, for none."""
        self._position = np.full(self._flat.ntotal + 1, -1)
        self._position[self._slots] = np.arange(len(self._slots))

    @property
    def _stored(self) -> np.ndarray:
        """(slots, P) float32 view of the flat index's own memory."""
        flat = self._flat
        values: np.ndarray = self._faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
        return values.reshape(flat.ntotal, flat.d)


@contextlib.contextmanager
def _threads(faiss: ModuleType, number: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise UserError("faiss is not installed; pip install 'cbir-tf[faiss]'") from None
    return faiss
