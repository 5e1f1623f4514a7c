"""A run opened for searching: by image, path, id or vector, one or many at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cbir_tf.config.arguments import texts
from cbir_tf.config.search import Search, TwoStep
from cbir_tf.data.text import forms
from cbir_tf.errors import UserError, nearest
from cbir_tf.features.runtime import Encoder
from cbir_tf.features.store import Record
from cbir_tf.retrieval.absence import is_missing
from cbir_tf.retrieval.external_classifier import ExternalClassifier
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.image_encoder import ImageEncoder, Query, is_vector, listed
from cbir_tf.retrieval.opening import gallery_of_store, open_store, save_gallery
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.run import Run
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import sha256
from cbir_tf.storage.remote import fetch_missing, local
from cbir_tf.types import Embeddings, QueryBatch, Results


class Retriever:
    """A run opened for searching: model, features and index, each loaded once.

    Safe to use from several threads at once.

    Args:
        run: the run, or its folder; its features must have been extracted.
        search: how to search; the run's own configuration when not given.
        may_be_empty: open a store without images too.
        encoder: the run's encoder of pixels, if it is open already.

    Attributes:
        encoder: from images to vectors.
        gallery: what is searched; adding and removing images puts a new snapshot in its place.

    Raises:
        UserError: nothing extracted, vectors of another encoder, or a whitening that cannot be
            fitted to them.
    """

    def __init__(
        self,
        run: Run | str | Path,
        search: Search | None = None,
        may_be_empty: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        self.run = run = Run.open(run)
        self.search_config = search or run.config.search
        self.store = open_store(run, self.search_config)
        self.other: Retriever | None = None
        self.encoder = ImageEncoder(run, self.search_config, encoder)
        self._changing = threading.Lock()
        try:
            if self.search_config.two_step.run is not None:
                self.other = Retriever.open(self.search_config.two_step.run)
            self.gallery: Gallery = gallery_of_store(self.store, run, self.search_config)
            if self.other is not None:
                self.gallery = replace(self.gallery, external=self._external(self.other))
            if not len(self.gallery) and not may_be_empty:
                raise UserError(f"{run.features}: empty; run cbir extract --run {run.folder}")
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, folder: str | Path | Run) -> Retriever:
        """The retriever of a run's folder.

        Raises:
            UserError: no run, nothing extracted, or vectors of another encoder.
        """
        return cls(Run.open(folder))

    def close(self) -> None:
        """Close the feature stores; safe to call twice."""
        self.store.close()
        if self.other is not None:
            self.other.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- searching ------------------------------------------------------------------------------

    def search(
        self,
        queries: Query | Sequence[Query],
        k: int | None = None,
        where: str | Sequence[str] = (),
    ) -> Results:
        """The k nearest images of one query or of each of many.

        Args:
            queries: one `Query` or several. A stored image, given by id or path, is left out of
                its own neighbours. A path whose file has changed since it was extracted is
                encoded again.
            k: how many; when not given, the configuration's, or all where there are fewer.
            where: one or several conditions on what is found, as `label=rose,tulip`
                (`cbir_tf.features.filters`); fewer than k are found where fewer meet them.

        Returns:
            A row for each query, with label, metadata and path of each image found, and whether its
            file is missing.

        Raises:
            UserError: no such image or id, an unreadable image, k beyond the gallery, or conditions
                that no image meets.
        """
        gallery = self.gallery  # one snapshot from the query to its answer
        where = texts(where, "where")
        candidates = self.select(where, gallery) if where else None
        batch = self._query_batch(listed(queries), gallery, candidates)
        return self.described(QueryEngine(gallery).search(batch, k))

    def search_combined(
        self,
        plus: Query | Sequence[Query],
        minus: Query | Sequence[Query] = (),
        k: int | None = None,
        where: str | Sequence[str] = (),
    ) -> Results:
        """The k nearest images of one query that several pictures make.

        Its vector is the mean of the pictures wanted, less the mean of those not wanted, each of
        unit length (Rocchio 1971, Relevance feedback in information retrieval). Stored images that
        take part are left out of the results.

        Args:
            plus: the pictures wanted, one or several, as for `search`.
            minus: those not wanted.
            k: as for `search`.
            where: as for `search`.

        Returns:
            One row.

        Raises:
            UserError: as `search`, or the pictures cancel each other out.
        """
        gallery = self.gallery
        wanted, unwanted = listed(plus), listed(minus)
        batch = self._query_batch([*wanted, *unwanted], gallery, None)
        lengths = np.linalg.norm(batch.vectors, axis=1, keepdims=True)
        unit = batch.vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        vector = unit[: len(wanted)].mean(axis=0)
        if len(unwanted):
            vector = vector - unit[len(wanted) :].mean(axis=0)
        length = float(np.linalg.norm(vector))
        if length < 1e-6:
            raise UserError("the pictures wanted and not wanted cancel each other out; change them")
        where = texts(where, "where")
        candidates = self.select(where, gallery) if where else gallery.embeddings.ids
        candidates = candidates[~np.isin(candidates, batch.ids[batch.ids != ""])]
        if not len(candidates):
            raise UserError("no image is left to be found; give fewer pictures or conditions")
        combined = QueryBatch((vector / length)[None], candidates=candidates)
        if k is None:
            k = min(self.search_config.k, len(candidates))
        return self.described(QueryEngine(gallery).search(combined, k))

    def engine(self, settings: Search | None = None) -> QueryEngine:
        """The query engine over the present gallery.

        Args:
            settings: with other re-ranking or another two-step search than the run's.

        Raises:
            UserError: as `Gallery.router`.
        """
        return QueryEngine(self.gallery, settings)

    def encode(self, images: Query | Sequence[Query]) -> np.ndarray:
        """The (Q, D) float32 vectors of images, whitened as the gallery's are.

        Args:
            images: one or several, as for `search`, but for ids and vectors.

        Raises:
            UserError: one cannot be read.
        """
        return self.gallery.whitened(self.encoder(listed(images)))

    def select(self, where: str | Sequence[str], gallery: Gallery | None = None) -> np.ndarray:
        """Ids of the stored images that meet all conditions.

        Args:
            where: one condition or several.
            gallery: a snapshot; the present one when not given.

        Raises:
            UserError: an invalid condition, or no image that meets all conditions.
        """
        where = texts(where, "where")
        ids = self.store.select(where)
        stored = (gallery or self.gallery).embeddings.ids
        ids = ids[np.isin(ids, stored)]  # the store may have changed since the snapshot
        if not len(ids):
            conditions = " ".join(map(repr, where))
            raise UserError(f"where {conditions}: no image meets the conditions; change them")
        return ids

    def described(self, results: Results) -> Results:
        """The results with metadata and path of each image found, and whether that is missing."""
        ids = np.unique(results.ids)
        records = self.store.records_of(ids[ids != ""].tolist())
        return replace(
            results,
            metadata={each.id: each.metadata for each in records},
            paths={each.id: each.path for each in records},
            missing=frozenset(each.id for each in records if is_missing(each.path)),
        )

    # --- the run's images -----------------------------------------------------------------------

    @property
    def embeddings(self) -> Embeddings:
        """The stored vectors, whitened."""
        return self.gallery.embeddings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names the labels count into."""
        return self.gallery.class_names

    def stored_id(self, query: str | Path) -> str | None:
        """The id under which an image is in the store, given as id or as path."""
        for id_ in forms(str(query)):
            if self.store.record(id_) is not None:
                return id_
        # A bare word is an id, or the name of a file; only what is there can be stored by path.
        record = self.store.record_at(path_of(query).resolve())
        return None if record is None else record.id

    def record(self, id_: str) -> Record:
        """What the store knows of an image.

        Raises:
            UserError: there is none of that id.
        """
        record = self.store.record(id_)
        if record is None:
            raise UserError(f"{id_!r} is not in {self.run.features}; give the id of a stored image")
        return record

    def label(self, id_: str) -> str | None:
        """Class name of a stored image, None for an unlabelled one."""
        return (*self.class_names, None)[self.record(id_).label]

    def source(self, id_: str) -> Path | bytes:
        """The picture of a stored image, as file or encoded bytes."""
        path = self.record(id_).path
        if path is None:
            return self.encoded[id_]
        fetch_missing([path])
        return path

    @cached_property
    def encoded(self) -> dict[str, Path | bytes]:
        """The pictures of the run's own images by id, where these are no files of their own."""
        from cbir_tf.data.sources import all_images

        images = all_images(self.run.config.data)
        return dict(zip(map(str, images.ids), images.sources, strict=True))

    # --- changes --------------------------------------------------------------------------------

    def add(
        self, records: Sequence[Record], vectors: np.ndarray, label_names: Sequence[str]
    ) -> None:
        """Store images, in place of any of the same ids, and find them from the next search on.

        Args:
            records: of M images; their labels count into the store's class names, extended by
                `label_names`.
            vectors: (M, D) float32, as the embedder makes them.
            label_names: classes of theirs that may be new.

        Raises:
            UserError: the store cannot be written; nothing has changed then.
        """
        with self._changing:
            names = self.store.extended_classes(texts(label_names, "label_names"))
            ids = [record.id for record in records]
            known = [id_ for id_ in ids if id_ in self.gallery]
            gallery = self.gallery.without(known) if known else self.gallery
            labels = [record.label for record in records]
            gallery = gallery.with_added(ids, vectors, labels, names)
            self.store.write(records, vectors, names)  # the last step that can fail
            self.gallery = gallery

    def remove(self, ids: Sequence[str]) -> None:
        """Take images out of the store and of the gallery; ids not there are passed over.

        Raises:
            UserError: the store cannot be written; nothing has changed then.
        """
        with self._changing:
            ids = texts(ids, "ids")
            known = [id_ for id_ in ids if id_ in self.gallery]
            gallery = self.gallery.without(known) if known else self.gallery
            self.store.remove(ids)  # the last step that can fail
            self.gallery = gallery

    def save_index(self) -> None:
        """Write whitening, index and augmented vectors into the run's folder.

        Raises:
            UserError: they cannot be written.
        """
        save_gallery(self.gallery, self.run.index)

    # --- queries of other pictures --------------------------------------------------------------

    def _query_batch(
        self, queries: Sequence[Query], gallery: Gallery, candidates: np.ndarray | None
    ) -> QueryBatch:
        """Queries, encoded or read from the store, ready for the engine."""
        if not queries:
            raise UserError("no query is given; give an image, or the id of a stored one")
        ids = np.array([self._id_of_unchanged(query, gallery) or "" for query in queries])
        outside, inside = np.flatnonzero(ids == ""), np.flatnonzero(ids != "")
        batches = []
        if len(outside):
            images = [queries[row] for row in outside.tolist()]
            shares = self.external_probabilities(images)
            batches.append(gallery.queries(self.encoder(images), class_probabilities=shares))
        if len(inside):
            batches.append(gallery.stored_queries(ids[inside]))
        order = np.argsort(np.concatenate([outside, inside]))
        shares_of = [batch.class_probabilities for batch in batches]
        known = [each for each in shares_of if each is not None]
        return QueryBatch(
            np.concatenate([batch.vectors for batch in batches])[order],
            ids,
            candidates,
            np.concatenate(known)[order] if known else None,
        )

    def _id_of_unchanged(self, query: Query, gallery: Gallery) -> str | None:
        """The id of a stored image whose vector answers the query; None for any other query."""
        if not isinstance(query, (str, Path)):
            return None
        id_ = self.stored_id(query)
        if id_ is not None and id_ in gallery:
            file, record = path_of(query).resolve(), self.record(id_)
            # An image of another folder has its path as its id: look at the file in any case.
            changed = file == record.path and file.is_file() and sha256(file) != record.digest
            return None if changed else id_
        if not local(query).exists():
            raise UserError(
                f"{query}: neither an image file nor an id in {self.run.features}; "
                + nearest(str(query), self.embeddings.ids[:10_000].tolist())
            )
        return None

    def external_probabilities(
        self, queries: Sequence[Query], two_step: TwoStep | None = None
    ) -> np.ndarray | None:
        """(Q, C) probabilities of the class router's classes, where another run gives them.

        Raises:
            UserError: a query is a vector, which has no picture to classify.
        """
        two_step = two_step or self.search_config.two_step
        if self.other is None or self.gallery.external is None or two_step.name == "none":
            return None
        if any(map(is_vector, queries)):
            raise UserError(
                f"search.two_step.run: {self.other.run.folder} can classify pictures, not vectors; "
                "give the picture, or search without it"
            )
        classifier = self.gallery.external.classifier(two_step)
        return classifier.probabilities(self.other.encode(queries))

    def _external(self, other: Retriever) -> ExternalClassifier:
        digests = other.store.digests()
        return ExternalClassifier(
            str(other.run.folder),
            other.embeddings,
            tuple(digests[id_] for id_ in other.embeddings.ids.tolist()),
            other.class_names,
            other.gallery.fit_classifier,
            self.store.digests(),
            lambda id_: self.record(id_).path,
        )
