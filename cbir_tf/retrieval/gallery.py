"""What is searched: an immutable snapshot of stored vectors and of everything fitted to them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import cbir_tf
from cbir_tf.config.arguments import float_matrix, texts
from cbir_tf.config.search import Search, TwoStep
from cbir_tf.errors import UserError
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.class_router import ClassRouter, route_by_label
from cbir_tf.retrieval.classifiers import Classifier, fit_classifier
from cbir_tf.retrieval.external_classifier import ExternalClassifier
from cbir_tf.retrieval.re_ranking import augmented, query_expansion
from cbir_tf.retrieval.whitening import Whitening
from cbir_tf.search import Index, make_index
from cbir_tf.search.exhaustive import Exhaustive
from cbir_tf.search.index import known_positions, positions_of
from cbir_tf.search.vector_index import joined
from cbir_tf.types import UNLABELLED, Embeddings, QueryBatch


@dataclass(frozen=True, eq=False)
class Gallery:
    """A snapshot of a gallery.

    Adding and removing images makes a new snapshot; a search that holds the old one goes on with
    it. A class router takes time to fit and is fitted when it is first needed, once.

    Attributes:
        index: over the vectors that are searched: the stored ones, whitened, and moved towards
            their neighbours where `settings.database_augmentation` is set.
        settings: of the search; all but re_ranking and two_step are part of the snapshot.
        class_names: names by label.
        stored: whitened, and not moved; None: they are those of the index.
        whitening: what queries go through to be comparable; None: nothing.
        calibration: the threshold of a match, of plain searches; None: none is known.
        training_ids: (T,) ids of the training images, ascending, of which classifiers learn.
        routers: those that are fitted already, by their settings.
        classifiers: those that are fitted already, shared by all snapshots.
        external: another run whose classes the class router uses; None: the gallery's own.
    """

    index: Index | Exhaustive
    settings: Search = field(default_factory=Search)
    class_names: tuple[str, ...] = ()
    stored: Embeddings | None = None
    whitening: Whitening | None = None
    calibration: Calibration | None = None
    training_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    external: ExternalClassifier | None = None
    routers: dict[TwoStep, ClassRouter] = field(default_factory=dict, repr=False)
    classifiers: dict[TwoStep, Classifier] = field(default_factory=dict, repr=False)
    _learning: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _fitting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def from_folder(
        photos: str | Path, model: str | None = None, store: str | Path | None = None
    ) -> cbir_tf.Retriever:
        """A folder of pictures opened for searching, the same as `cbir_tf.open_folder`.

        Example:
            >>> Gallery.from_folder("photos").search("query.jpg", k=10)  # doctest: +SKIP
        """
        options = {} if model is None else {"model": model}
        return cbir_tf.open_folder(photos, store=store, **options)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __contains__(self, id_: str) -> bool:
        found = positions_of(np.array([id_]), self.embeddings.ids)[0]
        return bool(found >= 0) and not id_.endswith("\0")  # which NumPy's strings drop

    @property
    def embeddings(self) -> Embeddings:
        """The stored vectors in order of id, whitened: those that queries of them have."""
        return self.index.gallery if self.stored is None else self.stored

    # --- queries --------------------------------------------------------------------------------

    def queries(
        self,
        vectors: np.ndarray,
        candidates: np.ndarray | None = None,
        class_probabilities: np.ndarray | None = None,
    ) -> QueryBatch:
        """Out-of-gallery queries.

        Args:
            vectors: (Q, D) float32, as the embedder makes them.
            candidates: ids to choose from; None: all.
            class_probabilities: (Q, C), where another run gives them.
        """
        vectors = self.whitened(float_matrix(vectors, "query vectors"))
        return QueryBatch(vectors, candidates=candidates, class_probabilities=class_probabilities)

    def stored_queries(
        self,
        ids: np.ndarray | Sequence[str],
        candidates: np.ndarray | None = None,
        two_step: TwoStep | None = None,
    ) -> QueryBatch:
        """Stored images as queries, each left out of its own neighbours.

        Args:
            ids: of Q images.
            candidates: ids to choose from; None: all.
            two_step: of the search, where it is another than the gallery's.

        Raises:
            UserError: an id that is not in the gallery.
        """
        ids = np.array(texts(ids, "ids"), dtype=np.str_)
        rows = known_positions(ids, self.embeddings.ids, "search for one that is")
        two_step, shares = two_step or self.settings.two_step, None
        if self.external is not None and two_step.name != "none":
            self.router(two_step)  # which first reports all images that the other run lacks
            shares = self.external.of_stored(ids, two_step)
        return QueryBatch(self.embeddings.vectors[rows], ids, candidates, shares)

    def whitened(self, vectors: np.ndarray) -> np.ndarray:
        """(Q, D) vectors as the embedder makes them, brought into the space of the gallery's."""
        return vectors if self.whitening is None else self.whitening(vectors)

    # --- the class router -----------------------------------------------------------------------

    def router(self, two_step: TwoStep) -> ClassRouter | None:
        """The class router of a two-step search, fitted the first time; None for plain search.

        Raises:
            UserError: there are no labelled training images, or another run gives the classes and
                has not extracted an image of the gallery.
        """
        if two_step.name == "none":
            return None
        if two_step in self.routers:
            return self.routers[two_step]
        self.prepare(two_step)
        with self._fitting:
            if two_step not in self.routers:
                self.routers[two_step] = self._fit_router(two_step)
            return self.routers[two_step]

    def prepare(self, two_step: TwoStep) -> None:
        """Fit what a two-step search needs, which may take long; does nothing the second time.

        Others can search meanwhile, also in two steps of another kind.

        Raises:
            UserError: there are no labelled training images.
        """
        if two_step.name == "none":
            return
        if self.external is not None:
            self.external.classifier(two_step)
            return
        if two_step in self.classifiers:
            return
        with self._learning:
            if two_step not in self.classifiers:
                self.classifiers[two_step] = self.fit_classifier(two_step)

    def is_prepared(self, two_step: TwoStep) -> bool:
        """Whether `prepare` has nothing to do."""
        known = self.classifiers if self.external is None else self.external.classifiers
        return two_step.name == "none" or two_step in known

    def fit_classifier(self, two_step: TwoStep) -> Classifier:
        """A classifier of the labelled training images.

        Raises:
            UserError: there are none, or they are of one class.
        """
        known = self.embeddings.take(np.isin(self.embeddings.ids, self.training_ids))
        if not (known.labels != UNLABELLED).any():
            raise UserError(
                "search.two_step: it learns from labelled training images, and none are stored; "
                "extract them with --split train"
            )
        return fit_classifier(two_step.name, known, self.settings.metric, two_step.neighbours)

    def _fit_router(self, two_step: TwoStep) -> ClassRouter:
        if self.external is not None:
            return self.external.router(self.embeddings.ids, two_step)
        classifier = self.classifiers[two_step]
        return route_by_label(classifier, self.embeddings, self.class_names, two_step)

    # --- other snapshots ------------------------------------------------------------------------

    def with_added(
        self, ids: Sequence[str], vectors: np.ndarray, labels: Sequence[int], names: Sequence[str]
    ) -> Gallery:
        """The gallery with more images.

        They are whitened as all were when the gallery was opened. With database augmentation they
        are moved towards their neighbours, and these are not moved towards them: opening the
        gallery again makes both new.

        Args:
            ids: of M images, none of which is there.
            vectors: (M, D) float32, as the embedder makes them.
            labels: M numbers that count into the names.
            names: the classes, those of before and any new ones.

        Raises:
            UserError: an id is already there, or the vectors have another dimension.
        """
        more = Embeddings(np.asarray(ids), self.whitened(vectors), np.asarray(labels))
        more = more.take(np.argsort(more.ids))
        names = tuple(names)
        before = np.searchsorted(self.embeddings.ids, more.ids)
        moved, neighbours = more, min(self.settings.database_augmentation, len(self))
        if neighbours:
            first, _ = self._index.find(more.vectors, neighbours, np.full(len(more), -1), None)
            vectors = query_expansion(more.vectors, first, self.index.gallery)
            moved = replace(more, vectors=vectors)
        return replace(
            self,
            index=self._index.with_added(moved),
            class_names=names,
            stored=None if self.stored is None else joined(self.stored, more),
            routers={
                two_step: router.with_added(before, more, names)
                for two_step, router in self.routers.items()
            },
            _fitting=threading.Lock(),
        )

    def without(self, ids: Sequence[str]) -> Gallery:
        """The gallery with some images fewer.

        Raises:
            UserError: an id that is not there.
        """
        kept = ~np.isin(self.embeddings.ids, np.asarray(ids, dtype=np.str_))
        return replace(
            self,
            index=self._index.without(ids),
            stored=None if self.stored is None else self.stored.take(kept),
            routers={two_step: router.take(kept) for two_step, router in self.routers.items()},
            _fitting=threading.Lock(),
        )

    def among(self, ids: np.ndarray) -> Gallery:
        """The gallery of some of the images alone, exact whatever the index.

        With database augmentation these are moved towards one another alone. Classifiers have
        learnt from the same training images as those of the whole gallery.

        Args:
            ids: of stored images, ascending.
        """
        rows = known_positions(ids, self.embeddings.ids, "choose among those that are")
        stored = self.embeddings.take(rows)
        searched, metric = stored, self.settings.metric
        if self.settings.database_augmentation:
            index = make_index(metric=metric).fit(stored)
            searched = augmented(index, stored, self.settings.database_augmentation)
        two_step = self.settings.two_step
        router = self.router(two_step)
        return replace(
            self,
            index=Exhaustive(searched, metric),
            stored=stored,
            routers={} if router is None else {two_step: router.take(rows)},
            _fitting=threading.Lock(),
        )

    @property
    def _index(self) -> Index:
        if isinstance(self.index, Exhaustive):
            raise TypeError("a gallery of some images alone cannot be changed")
        return self.index
