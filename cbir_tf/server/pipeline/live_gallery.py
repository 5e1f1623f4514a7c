"""A run's images, searched and changed while it is served.

Changes come from one thread, so that SQLite has one writer. Searches come from another one, which
never waits for the disk: each has the snapshot of the gallery as it was when it began, and a change
is found by every search that begins after it. What takes long of a search is for any thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.config.search import Search
from cbir_tf.data.added import About, adding, finish_changes, id_of, removing
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.features.filters import column_of
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint, viewed
from cbir_tf.progress import logger
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.server.errors import no_such_image
from cbir_tf.server.pipeline.queries import Addition, Query, Steps
from cbir_tf.storage.files import read_json, sha256
from cbir_tf.types import UNLABELLED, Embeddings, QueryBatch, Results

REMEMBERED = 64  # filters


class LiveGallery:
    """A run opened for serving: `find` in one thread, `add` and `remove` in one, the rest in any.

    Args:
        run: a trained run; without a feature store it gets an empty one.
        search: how to search.
        read_only: leave to another service what interrupted changes have left.

    Raises:
        UserError: as `Retriever`.
    """

    def __init__(self, run: Run, search: Search, read_only: bool = False) -> None:
        self.run, self.settings = run, search
        is_new = not run.features.exists()
        if is_new:
            fingerprint = encoder_fingerprint(run, search)
            names = read_json(run.training)["class_names"]
            FeatureStore.create(run.features, fingerprint, names, search.dtype).close()
        self.retriever = Retriever(run, search, may_be_empty=True)
        self.store = self.retriever.store
        if not (read_only or is_new):  # a new store does not know what was added
            finish_changes(run.added, self._about)
        self.columns = set(self.store.metadata_names)
        self.splits = self.store.splits
        self._candidates: tuple[Gallery, dict[tuple[str, ...], np.ndarray]] = (
            self.retriever.gallery,
            {},
        )
        height, width = viewed(run.config.data, search).image_size
        # The first batch takes longer, and is not to be someone's query.
        self.encode([np.zeros((height, width, 3), np.uint8)])

    def __len__(self) -> int:
        return len(self.retriever.gallery)

    def __contains__(self, id_: str) -> bool:
        return id_ in self.retriever.gallery

    @property
    def embeddings(self) -> Embeddings:
        """The stored vectors, as they are compared."""
        return self.retriever.embeddings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names the labels count into."""
        return self.retriever.class_names

    @property
    def calibrated(self) -> Calibration | None:
        """The threshold of a match, of plain searches; None where there is none."""
        return self.retriever.gallery.calibration

    def close(self) -> None:
        """Close the store."""
        self.retriever.close()

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(B, D) vectors of B pictures, as the embedder makes them."""
        return self.retriever.encoder.of_pixels(np.stack(pixels))

    # --- searching ------------------------------------------------------------------------------

    def has_selected(self, where: tuple[str, ...]) -> bool:
        """Whether `select` has nothing to do."""
        return not where or where in self._selected(self.retriever.gallery)

    def select(self, where: tuple[str, ...]) -> None:
        """Ask the store beforehand which images meet some conditions.

        Raises:
            UserError: an invalid condition, or no image that meets all conditions.
        """
        self._select(where, self.retriever.gallery)

    def has_learnt(self, steps: Steps) -> bool:
        """Whether `learn` has nothing to do."""
        return self.retriever.gallery.is_prepared(self._settings(steps).two_step)

    def learn(self, steps: Steps) -> None:
        """Fit the classifier of a two-step search beforehand, which may take half a minute.

        Raises:
            UserError: there are no labelled training images.
        """
        self.retriever.gallery.prepare(self._settings(steps).two_step)

    def other_data(self, steps: Steps) -> Data | None:
        """Size and resize of the pictures of another run, if that gives the classes."""
        other = self.retriever.other
        if other is None or self._settings(steps).two_step.name == "none":
            return None
        return viewed(other.run.config.data, other.search_config)

    def shares(self, steps: Steps, pixels: np.ndarray) -> np.ndarray:
        """(C,) probabilities of a picture's classes, by another run.

        Args:
            steps: of the search; its classifier has been learnt.
            pixels: (H, W, 3) uint8, as `other_data` has it.
        """
        other, external = self.retriever.other, self.retriever.gallery.external
        assert other is not None and external is not None
        vectors = other.gallery.whitened(other.encoder.of_pixels(pixels[np.newaxis]))
        classifier = external.classifier(self._settings(steps).two_step)
        shares: np.ndarray = classifier.probabilities(vectors)[0]
        return shares

    def find(self, asked: Sequence[tuple[Query, np.ndarray | None]]) -> list[Results | Exception]:
        """Search for several queries at once: those that are searched alike together.

        Args:
            asked: each with its (D,) vector as the embedder makes it, None for a stored image.

        Returns:
            For each what was found, or why it cannot be searched for: an ImageNotFoundError where
            there is no image of its id, or a UserError.
        """
        gallery = self.retriever.gallery  # one snapshot for all of them
        alike: dict[tuple[Steps, bool], list[int]] = {}
        answers: dict[int, Results | Exception] = {}
        for row, (query, _) in enumerate(asked):
            if query.id is None or query.id in gallery:
                alike.setdefault((query.steps, query.id is None), []).append(row)
            else:  # removed since it was asked for
                answers[row] = no_such_image(query.id)
        for (steps, _), rows in alike.items():
            try:
                batch = self._batch(gallery, steps, [asked[row] for row in rows])
                found = QueryEngine(gallery, self._settings(steps)).search(batch, steps.k)
                answers.update((row, found.of_query(place)) for place, row in enumerate(rows))
            except UserError as error:
                answers.update(dict.fromkeys(rows, error))
        return [answers[row] for row in range(len(asked))]

    def _batch(
        self, gallery: Gallery, steps: Steps, asked: Sequence[tuple[Query, np.ndarray | None]]
    ) -> QueryBatch:
        candidates = self._select(steps.where, gallery) if steps.where else None
        settings = self._settings(steps)
        ids = [query.id for query, _ in asked if query.id is not None]
        if ids:
            return gallery.stored_queries(ids, candidates, settings.two_step)
        vectors = np.stack([vector for _, vector in asked if vector is not None])
        shares = [query.shares for query, _ in asked if query.shares is not None]
        return gallery.queries(vectors, candidates, np.stack(shares) if shares else None)

    def _settings(self, steps: Steps) -> Search:
        return self.settings.changed(steps.re_ranking, steps.two_step)

    def _select(self, where: tuple[str, ...], gallery: Gallery) -> np.ndarray:
        for condition in where:
            if column_of(condition) == "path":  # else a client could spell out the server's folders
                raise UserError(
                    f"where {condition!r}: images cannot be chosen by path here; use id, label, "
                    "split or a column of metadata"
                )
        selected = self._selected(gallery)
        found = selected.get(where)
        if found is None:
            found = self.retriever.select(where, gallery)
            if len(selected) >= REMEMBERED:
                selected.clear()
            selected[where] = found
        return found

    def _selected(self, gallery: Gallery) -> dict[tuple[str, ...], np.ndarray]:
        """The candidates of the filters remembered; none of another snapshot."""
        if self._candidates[0] is not gallery:
            self._candidates = gallery, {}
        return self._candidates[1]

    # --- changes --------------------------------------------------------------------------------

    def add(self, addition: Addition, vector: np.ndarray) -> tuple[str, bool]:
        """Store a picture and find it from the next search on.

        Its file and its row are on the disk when this returns.

        Args:
            addition: the picture; of one that is there already label and metadata are replaced.
            vector: (D,) float32, as the embedder makes it.

        Returns:
            Its id, and whether it was new.

        Raises:
            UserError: it cannot be written; nothing has changed then.
        """
        id_, label = id_of(addition.picture), addition.label and nfc(addition.label)
        is_new = id_ not in self
        finish_changes(self.run.added, self._about, id_)
        names = [] if label is None else [label]
        number = UNLABELLED
        if label is not None:
            number = self.store.extended_classes(names).index(label)
        with adding(self.run.added, addition.picture, label, addition.metadata) as path:
            digest = sha256(addition.picture)
            record = Record(id_, path.resolve(), number, "", digest, addition.metadata)
            self.retriever.add([record], vector[np.newaxis], names)
        self._note_columns(is_new, addition.metadata)
        return id_, is_new

    def remove(self, id_: str) -> None:
        """Take an image out of the gallery.

        A picture that was added goes from the disk; a file of the run's own images stays, and is
        embedded again by the next extraction of it.

        Raises:
            UserError: it cannot be removed; nothing has changed then.
        """
        finish_changes(self.run.added, self._about, id_)
        record = self.store.record(id_)  # None: an extraction beside this service has removed it
        is_added = record is not None and id_.startswith(f"{self.run.added.name}/")
        path = record.path if record is not None and is_added else None
        with nullcontext() if path is None else removing(path):
            self.retriever.remove([id_])
        self._note_columns(False, {})

    def _about(self, id_: str) -> About | None:
        """Label and metadata of an image in the store; None where there is none."""
        record = self.store.record(id_)
        if record is None:
            return None
        return (*self.store.class_names, None)[record.label], record.metadata

    def _note_columns(self, is_new: bool, metadata: Mapping[str, object]) -> None:
        """Look at the columns of metadata after a change, which is done whatever happens here."""
        try:
            new = metadata.keys() | self.columns if is_new else set(self.store.metadata_names)
        except (UserError, sqlite3.Error) as error:
            logger.warning("%s: the columns of metadata stay as they were (%s)", self.run, error)
            return
        self.columns = new
