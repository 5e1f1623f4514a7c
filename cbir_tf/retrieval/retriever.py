"""Search a run's feature store by image, path, id or vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.config.search import Search, TwoStep
from cbir_tf.data.decode import CROPS, decode_image
from cbir_tf.errors import UserError, nearest
from cbir_tf.features.runtime import DESCRIPTORS, Encoder, check_model
from cbir_tf.features.store import FeatureStore, Record, another_maker
from cbir_tf.features.views import maker_of, open_run_encoder, viewed
from cbir_tf.progress import logger
from cbir_tf.retrieval.calibration import NoMatch
from cbir_tf.retrieval.class_router import Gate, Prediction, own_gate
from cbir_tf.retrieval.classifiers import Classifier, fit_classifier
from cbir_tf.retrieval.database_augmentation import load_augmented, save_augmented
from cbir_tf.retrieval.query_engine import Searcher, is_plain
from cbir_tf.retrieval.re_ranking import augmented
from cbir_tf.retrieval.whitening import Projection, projection_for
from cbir_tf.run import Run
from cbir_tf.search import Index, load_index, make_index
from cbir_tf.search.exhaustive import Exhaustive
from cbir_tf.search.index import positions_of
from cbir_tf.search.manifest import Manifest
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.remote import fetch_missing, local
from cbir_tf.types import UNLABELLED, Embeddings, Neighbours

if TYPE_CHECKING:
    import keras

    from cbir_tf.retrieval.external_classifier import Scenes


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        neighbours: (1, k).
        prediction: the class that the query was taken for; None where that was not asked.
    """

    neighbours: Neighbours
    prediction: Prediction | None


class Retriever:
    """A run opened for searching: model, features and index, each loaded once.

    Args:
        run: the run; its features must have been extracted.
        search: how to search; the run's own configuration when not given.
        may_be_empty: open a store without images too.

    Attributes:
        projection: what search.pca, whiten and standardize ask for, fitted to the stored vectors
            (`cbir_tf.retrieval.whitening`); None without.
        embeddings: the stored vectors, projected: those that are searched.

    Raises:
        UserError: nothing extracted, features of another model or test-time augmentation, or a
            projection that they cannot have.
    """

    def __init__(self, run: Run, search: Search | None = None, may_be_empty: bool = False) -> None:
        self.run = run
        self.search_config = search or run.config.search
        self.store = FeatureStore.open(run.features)
        maker = maker_of(run, self.search_config)
        if self.store.model_digest != maker:
            error = another_maker(run.features, self.store.model_digest, maker)
            self.store.close()
            check_model(run.model)  # says so if it is damaged
            raise error
        self.class_names = self.store.class_names
        self.embeddings: Embeddings = self.store.embeddings()
        if not len(self.embeddings) and not may_be_empty:
            self.store.close()
            raise UserError(f"{run.features}: empty; run extract.py --run {run.folder}")
        self.projection: Projection | None = projection_for(
            self.embeddings.vectors, self.search_config, run.index
        )
        if self.projection is not None:
            projected = self.projection(self.embeddings.vectors)
            self.embeddings = replace(self.embeddings, vectors=projected)

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
        """What embeds images of the configuration's size, or another one, fastest."""
        return open_run_encoder(self.run, self.search_config)

    @cached_property
    def gallery(self) -> Embeddings:
        """What is searched: the embeddings, moved towards their neighbours if that is asked for."""
        neighbours, metric = self.search_config.database_augmentation, self.search_config.metric
        if not neighbours:
            return self.embeddings
        kept = load_augmented(self.run.index, self.embeddings, neighbours, metric)
        if kept is not None:
            return kept
        count = len(self.embeddings)
        logger.info("moving %d images towards their neighbours, which extract.py keeps", count)
        return augmented(self._fitted(self.embeddings), self.embeddings, neighbours)

    @cached_property
    def index(self) -> Index:
        """Of the gallery."""
        return self._index()

    @cached_property
    def scenes(self) -> Scenes | None:
        """The other run that says of which class images are; None where there is none."""
        two_step = self.search_config.two_step
        if two_step.name == "none" or two_step.run is None:
            return None
        from cbir_tf.retrieval.external_classifier import Scenes

        return Scenes(self, Retriever.open(two_step.run), two_step)

    @cached_property
    def gate(self) -> Gate | None:
        """The first of two steps, fitted when it is first needed; None where there is none.

        Raises:
            UserError: no labelled training images in the store, or, where another run says of
                which class images are, an image that it has not extracted.
        """
        two_step = self.search_config.two_step
        if two_step.name == "none":
            return None
        if self.scenes is not None:
            return self.scenes.gate()
        classifier = self.fit_classifier(two_step)
        return own_gate(classifier, self.embeddings, self.class_names, two_step)

    @cached_property
    def searcher(self) -> Searcher:
        """All that happens between a query's vector and its neighbours."""
        return Searcher(self.index, self.search_config, self.gate)

    def searcher_among(self, gallery: Embeddings) -> Searcher:
        """As `searcher`, of some of the embeddings alone, and exact whatever the index.

        With database augmentation these are moved towards one another. A query that is one of them
        has moved its neighbours, as a stored image has that is searched for.

        Args:
            gallery: in order of id.
        """
        config = self.search_config
        which = positions_of(gallery.ids, self.embeddings.ids)
        if config.database_augmentation:
            index = make_index(metric=config.metric).fit(gallery)
            gallery = augmented(index, gallery, config.database_augmentation)
        gate = None if self.gate is None else self.gate.take(which)
        return Searcher(Exhaustive(gallery, config.metric), config, gate)

    def probabilities(self, ids: np.ndarray) -> np.ndarray | None:
        """(Q, C) probabilities of the gate's classes of stored images; None without a gate."""
        if self.gate is None:  # which says so if an image is missing
            return None
        if self.scenes is not None:
            return self.scenes.of_stored(ids)
        vectors = self.embeddings.vectors[positions_of(ids, self.embeddings.ids)]
        return self.gate.classifier.probabilities(vectors, ids)

    def fit_classifier(self, two_step: TwoStep) -> Classifier:
        """A classifier of the labelled training images in the store.

        Raises:
            UserError: there are none, or they are of one class.
        """
        training = self.store.select(split="train")
        known = self.embeddings.take(np.isin(self.embeddings.ids, training))
        if not (known.labels != UNLABELLED).any():
            raise UserError(
                f"{self.run.features}: search.two_step learns from labelled training images, and "
                f"holds none; run extract.py --run {self.run.folder} --split train"
            )
        metric = self.search_config.metric
        return fit_classifier(two_step.name, known, metric, two_step.neighbours)

    def search(
        self,
        query: str | Path | bytes | np.ndarray,
        k: int | None = None,
        where: Sequence[str] = (),
    ) -> Neighbours:
        """The k nearest images of one query.

        Args:
            query: path or encoded bytes of an image, id of a stored one (left out of its own
                neighbours), uint8 (H, W, 3) RGB pixels, or a float (D,) vector as the
                embedder makes it.
            k: how many; the configuration's when not given.
            where: conditions on what is found, as `label=rose,tulip` (`cbir_tf.features.filters`);
                fewer than k are found where fewer meet them.

        Raises:
            UserError: no such image or id, unreadable image, k beyond the gallery, conditions that
                no image meets, or what is configured cannot be done (see `gate`).
        """
        return self.find(query, k, where).neighbours

    def find(
        self,
        query: str | Path | bytes | np.ndarray,
        k: int | None = None,
        where: Sequence[str] = (),
    ) -> Found:
        """As `search`, with what the query was taken for if the search has two steps."""
        among = self.select(where) if where else None
        vector, query_id = self._vector(query)
        ids = None if query_id is None else np.array([query_id])
        k = self.search_config.k if k is None else k
        if self.gate is None:
            probabilities = None
        elif ids is not None:
            probabilities = self.probabilities(ids)
        elif self.scenes is not None:
            probabilities = self.scenes.probabilities(query)
        else:
            probabilities = self.gate.classifier.probabilities(vector[np.newaxis])
        neighbours = self.searcher.search(vector[np.newaxis], k, ids, among, probabilities)
        if self.gate is None or probabilities is None:
            return Found(neighbours, None)
        return Found(neighbours, self.gate.predictions(probabilities)[0])

    def encode(self, image: str | Path | bytes | np.ndarray) -> np.ndarray:
        """The (D,) vector of an image, projected as `embeddings` are.

        Args:
            image: path, encoded bytes, or uint8 (H, W, 3) RGB pixels.

        Raises:
            UserError: it cannot be read.
        """
        data = viewed(self.run.config.data, self.search_config)
        if not isinstance(image, np.ndarray):
            source = image if isinstance(image, bytes) else local(image)
            image = decode_image(source, data.image_size, data.resize)
        elif self.search_config.test_time_augmentation == "crops":  # pixels are taken as they are
            image = np.tile(image, (1, CROPS, 1))
        return self.projected(self.encoder(image[np.newaxis]))[0]

    def projected(self, vectors: np.ndarray) -> np.ndarray:
        """(Q, D) vectors as the embedder makes them, made as `embeddings` are."""
        return vectors if self.projection is None else self.projection(vectors)

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
        return self.calibrated if is_plain(self.search_config) else None

    @cached_property
    def calibrated(self) -> NoMatch | None:
        """The threshold for the distance to the nearest of the vectors as they are; or None."""
        if not self.run.no_match.is_file():
            return None
        calibrated = NoMatch.load(self.run.no_match)
        if calibrated.model != self.store.model_digest:
            raise UserError(f"{self.run.no_match}: of another model; run calibrate again")
        if calibrated.projection != self.projection_digest:
            logger.warning(
                "%s: of another search.pca, or fitted to other images; run calibrate again to be "
                "told what is no match",
                self.run.no_match,
            )
            return None
        return calibrated if calibrated.metric == self.search_config.metric else None

    @property
    def projection_digest(self) -> str:
        """What names the projection; empty without one."""
        return "" if self.projection is None else self.projection.digest

    def save_index(self) -> None:
        """Write the projection, the index, and the vectors moved for it into the run's folder.

        Raises:
            UserError: they cannot be written.
        """
        if self.projection is not None:
            self.projection.save(self.run.index)
        self.index.save(self.run.index)
        neighbours, metric = self.search_config.database_augmentation, self.search_config.metric
        if neighbours:
            save_augmented(self.run.index, self.gallery, self.embeddings, neighbours, metric)

    def close(self) -> None:
        """Close the feature stores; safe to call twice."""
        self.store.close()
        if "scenes" in self.__dict__ and self.scenes is not None:
            self.scenes.other.close()

    def stored_id(self, query: str | Path) -> str | None:
        """The id under which an image is in the store, given as id or as path."""
        if self.store.record(str(query)) is not None:
            return str(query)
        # A bare word is an id, or the name of a file; only what is there can be stored by path.
        record = self.store.record_at(path_of(query).resolve())
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

    def _index(self) -> Index:
        """The saved index where it is of these vectors and settings, else one fitted anew."""
        config = self.search_config
        if config.index == "nearest_neighbors":  # fitting is all there is to loading
            return self._fitted(self.gallery)
        try:
            manifest = Manifest.read(self.run.index)
            saved = (manifest.index, manifest.metric, manifest.settings.get("recall"))
            if saved == (config.index, config.metric, config.recall):
                return load_index(self.run.index, self.gallery)
        except UserError as error:
            logger.info("%s: fitting the index anew", error)
        return self._fitted(self.gallery)

    def _fitted(self, gallery: Embeddings) -> Index:
        config = self.search_config
        options = {} if config.index == "nearest_neighbors" else {"recall": config.recall}
        return make_index(config.index, config.metric, **options).fit(gallery)

    def _vector(self, query: str | Path | bytes | np.ndarray) -> tuple[np.ndarray, str | None]:
        if isinstance(query, np.ndarray) and query.ndim == 1:
            return self.projected(query.astype(np.float32)[np.newaxis])[0], None
        if isinstance(query, (str, Path)):
            id_ = self.stored_id(query)
            if id_ is not None:
                return self.embeddings.vectors[np.searchsorted(self.embeddings.ids, id_)], id_
            if not local(query).exists():
                raise UserError(
                    f"{query}: neither an image file nor an id in {self.run.features}; "
                    + nearest(str(query), self.embeddings.ids[:10_000].tolist())
                )
        return self.encode(query), None
