"""Search a run's feature store by image, path, id or vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.config import Search
from cbir_tf.data.decode import decode_image
from cbir_tf.errors import UserError, nearest
from cbir_tf.features.runtime import DESCRIPTORS, Encoder, check_model, open_encoder, predict
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.files import sha256
from cbir_tf.progress import logger
from cbir_tf.search import Index, check_k, load_index, make_index
from cbir_tf.search.index import positions_of
from cbir_tf.search.manifest import Manifest
from cbir_tf.search.no_match import NoMatch
from cbir_tf.search.re_ranking import k_reciprocal, query_expansion
from cbir_tf.types import Embeddings, Neighbours, Run

if TYPE_CHECKING:
    import keras


EXPANSION = 10  # neighbours that take part in query expansion


class Retriever:
    """A run opened for searching: model, features and index, each loaded once.

    Args:
        run: the run; its features must have been extracted.
        search: how to search; the run's own configuration when not given.

    Raises:
        UserError: nothing extracted, or features of another model.
    """

    def __init__(self, run: Run, search: Search | None = None) -> None:
        self.run = run
        self.search_config = search or run.config.search
        self.store = FeatureStore.open(run.features)
        if self.store.model_digest != sha256(run.model):
            self.store.close()
            check_model(run.model)  # says so if it is damaged
            raise UserError(
                f"{run.features}: made by another model than {run.model}; delete it and run "
                f"extract.py --run {run.folder}"
            )
        self.class_names = self.store.class_names
        self.embeddings: Embeddings = self.store.embeddings()
        if not len(self.embeddings):
            self.store.close()
            raise UserError(f"{run.features}: empty; run extract.py --run {run.folder}")
        self.index: Index = self._index()

    @classmethod
    def open(cls, folder: str | Path) -> Retriever:
        """The retriever of a run's folder.

        Raises:
            UserError: no run, nothing extracted, or features of another model.
        """
        return cls(Run.open(folder))

    @cached_property
    def model(self) -> keras.Model:
        """The embedder in Keras: uint8 RGB (B, H, W, 3) of any size to float32 (B, D).

        Raises:
            UserError: the run has descriptors in its place; use `encoder`.
        """
        if self.run.model.suffix == DESCRIPTORS:
            raise UserError(f"{self.run.model}: descriptors are no Keras model; use .encoder")
        from cbir_tf.models import load_embedder

        return load_embedder(self.run.model)

    @cached_property
    def encoder(self) -> Encoder:
        """What embeds images of the configuration's size, fastest."""
        return open_encoder(self.run.model, self.run.config.data.image_size)

    def search(
        self,
        query: str | Path | bytes | np.ndarray,
        k: int | None = None,
        where: Sequence[str] = (),
    ) -> Neighbours:
        """The k nearest images of one query.

        Args:
            query: path or encoded bytes of an image, id of a stored one (left out of its own
                neighbours), uint8 (H, W, 3) RGB pixels, or a float (D,) vector.
            k: how many; the configuration's when not given.
            where: conditions on what is found, as `label=rose,tulip` (`cbir_tf.features.filters`);
                fewer than k are found where fewer meet them.

        Raises:
            UserError: no such image or id, unreadable image, k beyond the gallery, or conditions
                that no image meets.
        """
        among = self.select(where) if where else None
        vector, query_id = self._vector(query)
        exclude = None if query_id is None else np.array([query_id])
        k = self.search_config.k if k is None else k
        search = partial(self.index.search, query_ids=exclude, where=among)
        match self.search_config.re_ranking:
            case "query_expansion":
                first = search(vector[np.newaxis], min(EXPANSION, self._available(exclude)))
                expanded = query_expansion(vector[np.newaxis], first, self.embeddings, EXPANSION)
                return search(expanded, k)
            case "k_reciprocal":
                wanted = max(k, self.search_config.candidates)
                first = search(vector[np.newaxis], min(wanted, self._available(exclude)))
                check_k(k, self._available(exclude))
                positions = positions_of(first.ids[0], self.embeddings.ids)
                candidates = self.embeddings.take(positions[positions >= 0])
                return k_reciprocal(vector, candidates, self.search_config.metric).first(k)
        return search(vector[np.newaxis], k)

    def _available(self, exclude: np.ndarray | None) -> int:
        """Images that a query can find."""
        return len(self.embeddings) - (exclude is not None)

    def select(self, where: Sequence[str]) -> np.ndarray:
        """Ids of the stored images that meet all conditions.

        Raises:
            UserError: a condition that is none, or none of the images meets them.
        """
        ids = self.store.select(where)
        if not len(ids):
            raise UserError(f"--where {' '.join(map(repr, where))}: no image meets it")
        return ids

    @cached_property
    def no_match(self) -> NoMatch | None:
        """The calibrated threshold; None where there is none for how this retriever searches."""
        if not self.run.no_match.is_file() or self.search_config.re_ranking != "none":
            return None
        calibrated = NoMatch.load(self.run.no_match)
        if calibrated.model != self.store.model_digest:
            raise UserError(f"{self.run.no_match}: of another model; run calibrate again")
        return calibrated if calibrated.metric == self.search_config.metric else None

    def save_index(self) -> None:
        """Write the index into the run's folder.

        Raises:
            UserError: it cannot be written.
        """
        self.index.save(self.run.index)

    def close(self) -> None:
        """Close the feature store; safe to call twice."""
        self.store.close()

    def stored_id(self, query: str | Path) -> str | None:
        """The id under which an image is in the store, given as id or as path."""
        if self.store.record(str(query)) is not None:
            return str(query)
        # A bare word is an id, or the name of a file; only what is there can be stored by path.
        record = self.store.record_at(Path(query).resolve())
        return None if record is None else record.id

    def record(self, id_: str) -> Record:
        """What the store knows of an image, which has to be there."""
        record = self.store.record(id_)
        assert record is not None, id_
        return record

    def label(self, id_: str) -> str | None:
        """Class name of a stored image, None for an unlabelled one."""
        label = self.record(id_).label
        return None if label < 0 else self.class_names[label]

    def source(self, id_: str) -> Path | bytes:
        """The picture of a stored image, as file or encoded bytes."""
        path = self.record(id_).path
        return self._encoded[id_] if path is None else path

    def _index(self) -> Index:
        """The saved index where it is of these vectors and settings, else one fitted anew."""
        config = self.search_config
        if config.index == "nearest_neighbors":  # fitting is all there is to loading
            return make_index(config.index, config.metric).fit(self.embeddings)
        try:
            manifest = Manifest.read(self.run.index)
            saved = (manifest.index, manifest.metric, manifest.settings.get("recall"))
            if saved == (config.index, config.metric, config.recall):
                return load_index(self.run.index, self.embeddings)
        except UserError as error:
            logger.info("%s: fitting the index anew", error)
        index = make_index(config.index, config.metric, recall=config.recall)
        return index.fit(self.embeddings)

    @cached_property
    def _encoded(self) -> dict[str, Path | bytes]:
        from cbir_tf.data.sources import all_images

        images = all_images(self.run.config.data)
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
                    + nearest(str(query), self.embeddings.ids[:10_000].tolist())
                )
        data = self.run.config.data
        if isinstance(query, np.ndarray):
            if query.shape[:2] != data.image_size and self.run.model.suffix != DESCRIPTORS:
                return predict(self.model, query[np.newaxis])[0], None
            return self.encoder(query[np.newaxis])[0], None
        source = query if isinstance(query, bytes) else Path(query)
        pixels = decode_image(source, data.image_size, data.resize)
        return self.encoder(pixels[np.newaxis])[0], None
