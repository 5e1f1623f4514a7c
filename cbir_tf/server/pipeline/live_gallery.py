"""A run's images, searched and changed while it is served, all of it by one thread.

The thread is what makes it simple: no search sees half a change, and SQLite has one writer. Only
encoding, which looks at none of the images, is for any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cbir_tf.config.search import Search, TwoStep
from cbir_tf.data.added import forget_picture, id_of, save_picture
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import PIECE_PIXELS, OnnxEncoder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import maker_of, viewed
from cbir_tf.retrieval.class_router import Gate, Prediction, own_gate
from cbir_tf.retrieval.external_classifier import Scenes
from cbir_tf.retrieval.query_engine import Searcher, is_plain
from cbir_tf.retrieval.re_ranking import query_expansion
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.search.vector_index import joined
from cbir_tf.server.pipeline.queries import Addition, Hits, Query, Steps
from cbir_tf.storage.files import read_json, sha256
from cbir_tf.types import UNLABELLED, Embeddings

REMEMBERED = 64  # filters


class LiveGallery:
    """A run opened for serving; to be made and, but for `encode`, used in one thread.

    Args:
        run: a trained run; without a feature store it gets an empty one.
        search: how to search.

    Raises:
        UserError: as `Retriever`.
    """

    def __init__(self, run: Run, search: Search) -> None:
        self.run, self.settings = run, search
        if not run.features.exists():
            maker = maker_of(run, search)
            names = read_json(run.training)["class_names"]
            FeatureStore.create(run.features, maker, names, search.dtype).close()
        self.retriever = Retriever(run, search, may_be_empty=True)
        self.index = self.retriever.index
        self.store = self.retriever.store
        self.class_names: tuple[str, ...] = self.retriever.class_names
        self.columns = set(self.store.metadata_names)
        self.splits = self.store.splits
        self.calibrated = self.retriever.calibrated  # which says so if it is of another model
        self._gates: dict[str, Gate] = {}
        self._scenes: dict[str, Scenes] = {}
        self._chosen: dict[tuple[str, ...], np.ndarray] = {}
        height, width = viewed(run.config.data, search).image_size
        self._is_large = 2 * height * width > PIECE_PIXELS
        # The first batch takes longer, and is not to be someone's query.
        picture = np.zeros((height, width, 3), np.uint8)
        self.encode([picture])
        if self.side_by_side is not None:
            self.side_by_side.one(picture)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id_: str) -> bool:
        ids = self.embeddings.ids
        position = int(np.searchsorted(ids, id_))
        return position < len(ids) and str(ids[position]) == id_

    @property
    def embeddings(self) -> Embeddings:
        """The stored vectors, as they are compared."""
        return self.retriever.embeddings

    def close(self) -> None:
        """Close the store."""
        self.retriever.close()

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(B, D) vectors of B pictures, as the embedder makes them."""
        return self.retriever.encoder(np.stack(pixels))

    @property
    def side_by_side(self) -> OnnxEncoder | None:
        """The encoder, where each core takes one picture after another.

        None where several at once take less time.
        """
        encoder = self.retriever.encoder
        return encoder if isinstance(encoder, OnnxEncoder) and self._is_large else None

    # --- searching ------------------------------------------------------------------------------

    def find(self, asked: Sequence[tuple[Query, np.ndarray | None]]) -> list[Hits | UserError]:
        """Search for several queries at once: those that are searched alike together.

        Args:
            asked: each with its (D,) vector as the embedder makes it, None for a stored image.

        Returns:
            For each what was found, or why it cannot be searched for.
        """
        alike: dict[tuple[Steps, bool], list[int]] = {}
        for row, (query, _) in enumerate(asked):
            alike.setdefault((query.steps, query.id is None), []).append(row)
        results: dict[int, Hits | UserError] = {}
        for (steps, _), rows in alike.items():
            queries, vectors = zip(*(asked[row] for row in rows), strict=True)
            try:
                found = self._find(steps, queries, vectors)
                results.update(zip(rows, found, strict=True))
            except UserError as error:
                results.update(dict.fromkeys(rows, error))
        return [results[row] for row in range(len(asked))]

    def _find(
        self, steps: Steps, queries: Sequence[Query], encoded: Sequence[np.ndarray]
    ) -> list[Hits]:
        settings = self.settings.changed(steps.re_ranking, steps.two_step)
        ids = None if queries[0].id is None else np.array([query.id for query in queries])
        if ids is None:
            vectors = self.retriever.projected(np.stack(encoded))
        else:
            missing = [id_ for id_ in ids.tolist() if id_ not in self]
            if missing:  # taken out since it was asked for
                raise UserError(f"{missing[0]!r} is not in the gallery; ask for one that is there")
            vectors = self.embeddings.vectors[np.searchsorted(self.embeddings.ids, ids)]
        available = len(self) - (ids is not None)
        k = max(1, min(self.settings.k, available)) if steps.k is None else steps.k
        among = self._select(steps.where) if steps.where else None
        gate = self._gate(settings.two_step)
        probabilities = None if gate is None else self._probabilities(gate, queries, vectors, ids)
        searcher = Searcher(self.index, settings, gate)
        found, distances = searcher.rank(vectors, k, ids, among, probabilities)
        predictions: Sequence[Prediction | None] = [None] * len(queries)
        if gate is not None and probabilities is not None:
            predictions = gate.predictions(probabilities)
        return self._hits(found, distances, predictions, vectors, is_plain(settings))

    def _hits(
        self,
        found: np.ndarray,
        distances: np.ndarray,
        predictions: Sequence[Prediction | None],
        vectors: np.ndarray,
        plain: bool,
    ) -> list[Hits]:
        gallery, names = self.index.gallery, (*self.class_names, None)
        verdict = self.calibrated.verdict if plain and self.calibrated else None
        counts = np.isfinite(distances).sum(axis=1)  # those that are not come last
        rows = zip(
            counts.tolist(), gallery.ids[found].tolist(), gallery.labels[found].tolist(),
            distances.tolist(), predictions, vectors, strict=True,
        )  # fmt: skip
        return [
            Hits(
                ids=ids[:count],
                labels=[names[label] for label in labels[:count]],
                distances=theirs[:count],
                prediction=prediction,
                match=verdict and verdict(theirs[0]),
                vector=vector,
            )
            for count, ids, labels, theirs, prediction, vector in rows
        ]

    def _select(self, where: tuple[str, ...]) -> np.ndarray:
        if where not in self._chosen:
            if len(self._chosen) >= REMEMBERED:
                self._chosen.clear()
            self._chosen[where] = self.retriever.select(where)
        return self._chosen[where]

    def _gate(self, two_step: TwoStep) -> Gate | None:
        if two_step.name == "none":
            return None
        if two_step.name not in self._gates:
            scenes = self._scenes_of(two_step)
            if scenes is not None:
                self._gates[two_step.name] = scenes.gate()
            else:
                classifier = self.retriever.fit_classifier(two_step)
                self._gates[two_step.name] = own_gate(
                    classifier, self.embeddings, self.class_names, two_step
                )
        return self._gates[two_step.name]

    def _scenes_of(self, two_step: TwoStep) -> Scenes | None:
        """The other run that says of which class pictures are, by the classifier asked for."""
        configured = self.retriever.scenes
        if configured is None or two_step.name == self.settings.two_step.name:
            return configured
        if two_step.name not in self._scenes:
            self._scenes[two_step.name] = Scenes(self.retriever, configured.other, two_step)
        return self._scenes[two_step.name]

    def _probabilities(
        self, gate: Gate, queries: Sequence[Query], vectors: np.ndarray, ids: np.ndarray | None
    ) -> np.ndarray:
        scenes = self._scenes_of(gate.settings)
        if scenes is None:
            return gate.classifier.probabilities(vectors, ids)
        if ids is not None:
            return scenes.of_stored(ids)
        return np.concatenate([scenes.probabilities(query.picture) for query in queries])

    # --- changes --------------------------------------------------------------------------------

    def add(self, addition: Addition, vector: np.ndarray) -> tuple[str, bool]:
        """Store a picture and find it from the next search on.

        Its file and its row are on the disk when this returns. With `search.pca` and the like its
        vector is projected as all were when the service started; with database augmentation it is
        moved towards its neighbours, but they are not towards it. The next start makes both anew.

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
            if addition.label is not None:
                self.class_names = self.store.extend_classes([addition.label])
            label = UNLABELLED
            if addition.label is not None:
                label = self.class_names.index(addition.label)
            digest = sha256(addition.picture)
            record = Record(id_, path.resolve(), label, "", digest, addition.metadata)
            self.store.write([record], vector[np.newaxis])
        except BaseException:
            if is_new:
                forget_picture(path)
                path.unlink(missing_ok=True)
            raise
        if not is_new:
            self._take_out(id_)
        projected = self.retriever.projected(vector[np.newaxis])
        self._put_in(Embeddings(np.array([id_]), projected, np.array([label])))
        self._describe(is_new, addition.metadata)
        return id_, is_new

    def remove(self, id_: str) -> None:
        """Take an image out of the gallery.

        A picture that was added goes from the disk; a file of the run's own images stays, and is
        embedded again by an `extract.py` that is told to.

        Raises:
            UserError: the store cannot be written; the image is still found then.
        """
        record = self.store.record(id_)
        if record is None:  # an extract.py beside this service has taken it out
            self._take_out(id_)
            return
        added = record.path if id_.startswith(f"{self.run.added.name}/") else None
        if added is not None:
            forget_picture(added)
        self.store.remove([id_])
        self._take_out(id_)
        if added is not None:
            added.unlink(missing_ok=True)
        self._describe(False, record.metadata)

    def _describe(self, is_new: bool, metadata: Mapping[str, object]) -> None:
        """Columns of metadata, after an image came with some, or went or changed with them."""
        if is_new:
            self.columns |= metadata.keys()
        else:
            self.columns = set(self.store.metadata_names)

    def _put_in(self, more: Embeddings) -> None:
        before = np.searchsorted(self.embeddings.ids, more.ids)
        for name, gate in self._gates.items():
            classes = own_gate(gate.classifier, more, self.class_names, gate.settings).class_of
            self._gates[name] = gate.insert(before, classes)
        moved, most = more, min(self.settings.database_augmentation, len(self))
        if most:
            near = self.index.search(more.vectors, most)
            vectors = query_expansion(more.vectors, near, self.index.gallery, most)
            moved = Embeddings(more.ids, vectors, more.labels)
        everything = joined(self.embeddings, more) if most else None
        self.index.add(moved)
        self._changed(everything)

    def _take_out(self, id_: str) -> None:
        kept = self.embeddings.ids != id_
        self._gates = {name: gate.take(kept) for name, gate in self._gates.items()}
        others = self.embeddings.take(kept) if self.settings.database_augmentation else None
        self.index.remove([id_])
        self._changed(others)

    def _changed(self, embeddings: Embeddings | None) -> None:
        """The vectors as they are before augmentation; None: there is none."""
        gallery = self.index.gallery
        self.retriever.embeddings = gallery if embeddings is None else embeddings
        self.retriever.__dict__.pop("gallery", None)  # which would keep the former one in memory
        self._chosen.clear()
