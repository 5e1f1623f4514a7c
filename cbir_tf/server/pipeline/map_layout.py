"""The embedding map of a service: laid out once, kept in the run, extended by added images."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cbir_tf.plots.layout import Method, project, spread
from cbir_tf.progress import logger
from cbir_tf.search.distances import find_metric, pairwise
from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker
from cbir_tf.storage.files import replacing
from cbir_tf.types import Embeddings

FILE_NAME = "map.npz"
NEIGHBOURS = 5
ENOUGH = 0.9  # share of the images that a kept map must hold


@dataclass(frozen=True, eq=False)
class Layout:
    """The points of some images.

    Attributes:
        images: N of them.
        points: (N, 2) float32.
    """

    images: Embeddings
    points: np.ndarray

    def place(self, vectors: np.ndarray, metric: str) -> np.ndarray:
        """Points for other images, between those of their nearest neighbours.

        Args:
            vectors: (Q, D).
            metric: of the neighbours' distances.

        Returns:
            (Q, 2) float32: means of the points of the 5 nearest, weighted by one over the distance;
            an image at distance 0 of one on the map gets its point.
        """
        arithmetic = find_metric(metric)
        prepared = arithmetic.prepare(self.images.vectors)
        distances = pairwise(arithmetic, arithmetic.prepare(vectors), prepared)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        near = np.take_along_axis(distances, nearest, axis=1).astype(np.float64)
        weights = 1 / np.maximum(near, 1e-9)
        weights /= weights.sum(axis=1, keepdims=True)
        placed: np.ndarray = np.einsum("qn,qnd->qd", weights, self.points[nearest])
        return placed.astype(np.float32)


class EmbeddingMap:
    """Lays a gallery out at the first request for the map, in a process of its own.

    Args:
        folder: where the map is kept.
        method: umap, tsne or pca.
        max_images: laid out; added images are placed among them.
        seed: of the layout, and of the choice of images.
        metric: for placing added images.
    """

    def __init__(
        self, folder: Path, method: Method, max_images: int, seed: int, metric: str
    ) -> None:
        self.method: Method = method
        self.metric = metric
        self.layout: Layout | None = None
        self._path, self._max_images, self._seed = folder / FILE_NAME, max_images, seed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._worker, self._closed = SubprocessWorker(), False

    def of(self, gallery: Callable[[], Embeddings]) -> tuple[Embeddings, np.ndarray] | None:
        """The images of a gallery that are on the map, and their (N, 2) points.

        None until the layout is done; the first call starts it.
        """
        if self.layout is None:
            self.begin(gallery)
            return None
        now = gallery()
        there = np.isin(self.layout.images.ids, now.ids)
        known, points = self.layout.images.take(there), self.layout.points[there]
        labels = now.labels[np.searchsorted(now.ids, known.ids)]  # may have changed since
        known = Embeddings(known.ids, known.vectors, labels)
        new = now.take(np.char.startswith(now.ids, "added/") & ~np.isin(now.ids, known.ids))
        new = new.take(np.arange(min(len(new), self._max_images)))
        if not len(new) or not len(self.layout.images):
            return known, points
        placed = self.layout.place(new.vectors, self.metric)
        ids = np.concatenate([known.ids, new.ids])
        labels = np.concatenate([known.labels, new.labels])
        vectors = np.concatenate([known.vectors, new.vectors])
        return Embeddings(ids, vectors, labels), np.concatenate([points, placed])

    def begin(self, gallery: Callable[[], Embeddings]) -> None:
        """Start the layout, unless it is running or done."""
        with self._lock:
            if self.layout is None and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._make, args=(gallery(),), daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the layout."""
        self._closed = True
        self._worker.close()

    def _make(self, gallery: Embeddings) -> None:
        chosen = gallery.take(np.sort(spread(gallery.labels, self._max_images, self._seed)))
        layout = self._kept(gallery, len(chosen))
        if layout is None:
            try:
                points = np.zeros((0, 2), np.float32)
                if len(chosen):
                    points = self._worker.run(_lay_out, chosen.vectors, self.method, self._seed)
                layout = Layout(chosen, points)
                self._keep(layout)
            except Exception as error:  # the process was killed, or the disk is full
                if not self._closed:
                    logger.error("no embedding map: %s", error)
                return
            finally:
                self._worker.close()
        self.layout = layout

    def _keep(self, layout: Layout) -> None:
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            images = layout.images
            np.savez(
                file,
                ids=images.ids,
                vectors=images.vectors,
                points=layout.points,
                method=self.method,
            )

    def _kept(self, gallery: Embeddings, wanted: int) -> Layout | None:
        """The kept map, of those images that are still there with the same vectors."""
        try:
            with np.load(self._path, allow_pickle=False) as file:
                method, ids = str(file["method"]), file["ids"]
                vectors, points = file["vectors"], file["points"]
        except (OSError, EOFError, KeyError, ValueError, BadZipFile):
            return None
        rows = np.searchsorted(gallery.ids, ids)
        rows[rows == len(gallery)] = 0
        if (
            method != self.method
            or not len(gallery)
            or vectors.shape[1:] != (gallery.vectors.shape[1],)
        ):
            return None
        same = (gallery.ids[rows] == ids) & (gallery.vectors[rows] == vectors).all(axis=1)
        if same.sum() < ENOUGH * wanted:
            return None
        return Layout(gallery.take(rows[same]), points[same])


def _lay_out(vectors: np.ndarray, method: Method, seed: int) -> np.ndarray:
    """`project`, in a process of its own."""
    # UMAP imports TensorFlow, for seconds, only for a variant that is not used here.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    return project(vectors, method, seed)
