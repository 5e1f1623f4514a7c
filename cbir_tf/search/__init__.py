"""Nearest neighbours: index back ends behind one protocol."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from cbir_tf.config.arguments import real_number, whole_number
from cbir_tf.errors import UserError, nearest
from cbir_tf.search.annoy_back_end import AnnoyBackEnd
from cbir_tf.search.back_end import BackEnd
from cbir_tf.search.distances import METRICS
from cbir_tf.search.faiss_back_end import FaissBackEnd
from cbir_tf.search.index import Index, check_k
from cbir_tf.search.index_manifest import Manifest
from cbir_tf.search.nearest_neighbors import NearestNeighborsBackEnd
from cbir_tf.search.vector_index import GalleryIndex
from cbir_tf.storage.addresses import path_of
from cbir_tf.types import Embeddings

__all__ = ["INDEXES", "METRICS", "Index", "check_k", "load_index", "make_index"]

INDEXES: dict[str, Callable[..., BackEnd]] = {
    "nearest_neighbors": NearestNeighborsBackEnd,
    "faiss": FaissBackEnd,
    "annoy": AnnoyBackEnd,
}


def make_index(name: str = "nearest_neighbors", metric: str = "cosine", **options: Any) -> Index:
    """An empty index; `fit` gives it a gallery.

    Args:
        name: back end, one of `INDEXES`.
        metric: distance, one of `METRICS` or minkowski-P, as minkowski-3.
        options: further arguments of that back end.

    Raises:
        UserError: no such back end, metric or option.

    Example:
        >>> import numpy as np
        >>> gallery = Embeddings(["a", "b"], [[1, 0], [0, 1]], [0, 1])
        >>> index = make_index("nearest_neighbors", metric="cosine").fit(gallery)
        >>> index.search(np.float32([[3, 1]]), k=1).ids.tolist()
        [['a']]
    """
    if not isinstance(name, str) or name not in INDEXES:
        raise UserError(f"index: no {name!r}; {nearest(str(name), INDEXES)}")
    known = signature(INDEXES[name]).parameters
    for option in options:
        if option not in known:
            advice = nearest(option, known) if known else "it has none"
            raise UserError(f"index {name!r}: no option {option!r}; {advice}")
    if "recall" in options:
        options["recall"] = real_number(options["recall"], "recall")
    for option in ("seed", "trees"):
        if options.get(option) is not None:
            options[option] = whole_number(options[option], option)
    return GalleryIndex(INDEXES[name](**options), metric)


def load_index(folder: str | Path, embeddings: Embeddings) -> Index:
    """The index that `Index.save` wrote, over the vectors of the feature store.

    Args:
        folder: where it was saved.
        embeddings: the store's vectors; they must be those the index was fitted to.

    Raises:
        UserError: nothing saved there, damaged, or fitted to other vectors.
    """
    folder = path_of(folder)
    manifest = Manifest.read(folder)
    if manifest.index not in INDEXES:
        raise UserError(f"{folder}: an index of another version; run cbir extract")
    index = GalleryIndex(INDEXES[manifest.index](), manifest.metric)
    manifest.check(embeddings, folder)
    index.load(folder, embeddings, manifest.settings)
    return index
