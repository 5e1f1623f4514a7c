"""A run's images, searched and changed while it is served.

Searches and changes come from one thread, so that SQLite has one writer and a change is found by
every search that comes after it. Encoding, which looks at none of the images, is for any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cbir_tf.config.search import Search
from cbir_tf.data.added import forget_picture, id_of, save_picture
from cbir_tf.errors import UserError
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint, viewed
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.server.pipeline.queries import Addition, Query, Steps
from cbir_tf.storage.files import read_json, sha256
from cbir_tf.text import nfc
from cbir_tf.types import UNLABELLED, Embeddings, QueryBatch, Results

REMEMBERED = 64  # filters


class LiveGallery:
    """A run opened for serving; to be used in one thread, but for `encode`.

    Args:
        run: a trained run; without a feature store it gets an empty one.
        search: how to search.

    Raises:
        UserError: as `Retriever`.
    """

    def __init__(self, run: Run, search: Search) -> None:
        self.run, self.settings = run, search
        if not run.features.exists():
            fingerprint = encoder_fingerprint(run, search)
            names = read_json(run.training)["class_names"]
            FeatureStore.create(run.features, fingerprint, names, search.dtype).close()
        self.retriever = Retriever(run, search, may_be_empty=True)
        self.store = self.retriever.store
        self.columns = set(self.store.metadata_names)
        self.splits = self.store.splits
        self._candidates: dict[tuple[str, ...], np.ndarray] = {}
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

    def find(self, asked: Sequence[tuple[Query, np.ndarray | None]]) -> list[Results | UserError]:
        """Search for several queries at once: those that are searched alike together.

        Args:
            asked: each with its (D,) vector as the embedder makes it, None for a stored image.

        Returns:
            For each what was found, or why it cannot be searched for.
        """
        alike: dict[tuple[Steps, bool], list[int]] = {}
        for row, (query, _) in enumerate(asked):
            alike.setdefault((query.steps, query.id is None), []).append(row)
        answers: dict[int, Results | UserError] = {}
        for (steps, _), rows in alike.items():
            try:
                batch = self._batch(steps, [asked[row] for row in rows])
                settings = self.settings.changed(steps.re_ranking, steps.two_step)
                found = self.retriever.engine(settings).search(batch, steps.k)
                answers.update((row, found.of_query(place)) for place, row in enumerate(rows))
            except UserError as error:
                answers.update(dict.fromkeys(rows, error))
        return [answers[row] for row in range(len(asked))]

    def _batch(self, steps: Steps, asked: Sequence[tuple[Query, np.ndarray | None]]) -> QueryBatch:
        candidates = self._select(steps.where) if steps.where else None
        settings = self.settings.changed(steps.re_ranking, steps.two_step)
        ids = [query.id for query, _ in asked if query.id is not None]
        if ids:
            return self.retriever.gallery.stored_queries(ids, candidates, settings.two_step)
        vectors = np.stack([vector for _, vector in asked if vector is not None])
        pictures = [query.picture for query, _ in asked]
        shares = self.retriever.external_probabilities(pictures, settings.two_step)
        return self.retriever.gallery.queries(vectors, candidates, shares)

    def _select(self, where: tuple[str, ...]) -> np.ndarray:
        if where not in self._candidates:
            if len(self._candidates) >= REMEMBERED:
                self._candidates.clear()
            self._candidates[where] = self.retriever.select(where)
        return self._candidates[where]

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
        id_ = id_of(addition.picture)
        is_new = id_ not in self
        path = save_picture(self.run.added, addition.picture, addition.label, addition.metadata)
        try:
            label, names = UNLABELLED, []
            if addition.label is not None:
                names = [addition.label]
                label = self.store.extend_classes(names).index(nfc(addition.label))
            digest = sha256(addition.picture)
            record = Record(id_, path.resolve(), label, "", digest, addition.metadata)
            self.retriever.add([record], vector[np.newaxis], names)
        except BaseException:
            if is_new:
                forget_picture(path)
                path.unlink(missing_ok=True)
            raise
        self._changed(is_new, addition.metadata)
        return id_, is_new

    def remove(self, id_: str) -> None:
        """Take an image out of the gallery.

        A picture that was added goes from the disk; a file of the run's own images stays, and is
        embedded again by the next extraction of it.

        Raises:
            UserError: the store cannot be written; the image is still found then.
        """
        record = self.store.record(id_)  # None: an extraction beside this service has removed it
        is_added = record is not None and id_.startswith(f"{self.run.added.name}/")
        path = record.path if record is not None and is_added else None
        if path is not None:
            forget_picture(path)
        self.retriever.remove([id_])
        if path is not None:
            path.unlink(missing_ok=True)
        self._changed(False, {})

    def _changed(self, is_new: bool, metadata: Mapping[str, object]) -> None:
        """Forget filters, and look at the columns of metadata, after a change."""
        self._candidates.clear()
        if is_new:
            self.columns |= metadata.keys()
        else:
            self.columns = set(self.store.metadata_names)
