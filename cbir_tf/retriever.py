"""Search a run's feature store by image, path, id or vector."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from cbir_tf.config import Search
from cbir_tf.data.decode import decode_image
from cbir_tf.data.sources import load_images
from cbir_tf.errors import UserError, nearest
from cbir_tf.features.encode import predict
from cbir_tf.features.store import FeatureStore
from cbir_tf.files import sha256
from cbir_tf.models import load_embedder
from cbir_tf.search import Index, make_index
from cbir_tf.types import Embeddings, Neighbours, Run


class Retriever:
    """A run opened for searching: model, features and index, each loaded once.

    Args:
        run: the run; its features must have been extracted.
        search: how to search; the run's own configuration when not given.
        split: search only these images; everything in the store when not given.
    """

    def __init__(self, run: Run, search: Search | None = None, split: str | None = None) -> None:
        self.run = run
        self.search_config = search or run.config.search
        with FeatureStore.open(run.features) as store:
            if store.model_digest != sha256(run.model):
                raise UserError(
                    f"{run.features}: made by another model than {run.model}; delete it and run "
                    f"extract.py --run {run.folder}"
                )
            self.class_names = store.class_names
            self.records = {record.id: record for record in store.records(split)}
            self.embeddings: Embeddings = store.embeddings(split)
        if not self.records:
            raise UserError(f"{run.features}: empty; run extract.py --run {run.folder}")
        self.index: Index = make_index(self.search_config.index, metric=self.search_config.metric)
        self.index.fit(self.embeddings)

    @classmethod
    def open(cls, folder: str | Path) -> Retriever:
        """The retriever of a run's folder.

        Raises:
            UserError: no run, nothing extracted, or features of another model.
        """
        return cls(Run.open(folder))

    @cached_property
    def model(self) -> keras.Model:
        """The embedder: uint8 RGB (B, H, W, 3) to float32 (B, D)."""
        return load_embedder(self.run.model)

    def search(self, query: str | Path | bytes | np.ndarray, k: int | None = None) -> Neighbours:
        """The k nearest images of one query.

        Args:
            query: path or encoded bytes of an image, id of a stored one (left out of its own
                neighbours), uint8 (H, W, 3) RGB pixels, or a float (D,) vector.
            k: how many; the configuration's when not given.

        Raises:
            UserError: no such image or id, unreadable image, or k beyond the gallery.
        """
        vector, query_id = self._vector(query)
        exclude = None if query_id is None else np.array([query_id])
        k = self.search_config.k if k is None else k
        return self.index.search(vector[np.newaxis], k, query_ids=exclude)

    def stored_id(self, query: str | Path) -> str | None:
        """The id under which an image is in the store, given as id or as path."""
        if str(query) in self.records:
            return str(query)
        return self._id_by_path.get(Path(query).resolve())

    def label(self, id_: str) -> str | None:
        """Class name of a stored image, None for an unlabelled one."""
        label = self.records[id_].label
        return None if label < 0 else self.class_names[label]

    def source(self, id_: str) -> Path | bytes:
        """The picture of a stored image, as file or encoded bytes."""
        path = self.records[id_].path
        return self._encoded[id_] if path is None else path

    @cached_property
    def _id_by_path(self) -> dict[Path, str]:
        return {record.path: record.id for record in self.records.values() if record.path}

    @cached_property
    def _encoded(self) -> dict[str, Path | bytes]:
        images = load_images(self.run.config.data, self.run.config.seed)
        return dict(zip(map(str, images.ids), images.sources, strict=True))

    def _vector(self, query: str | Path | bytes | np.ndarray) -> tuple[np.ndarray, str | None]:
        if isinstance(query, np.ndarray) and query.ndim == 1:
            return query.astype(np.float32), None
        if isinstance(query, (str, Path)):
            id_ = self.stored_id(query)
            if id_ is not None:
                return self.embeddings.vectors[np.searchsorted(self.embeddings.ids, id_)], id_
            if not Path(query).exists():
                raise UserError(
                    f"{query}: neither an image file nor an id in {self.run.features}; "
                    + nearest(str(query), list(self.records)[:10_000])
                )
        data = self.run.config.data
        if isinstance(query, np.ndarray):
            pixels = query
        else:
            source = query if isinstance(query, bytes) else Path(query)
            pixels = decode_image(source, data.image_size, data.resize)
        return predict(self.model, pixels[np.newaxis])[0], None
