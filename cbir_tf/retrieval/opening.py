"""A run's folder opened: its store, its gallery, and what was fitted written back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cbir_tf.config.search import Search
from cbir_tf.errors import UserError
from cbir_tf.features.record import OWN
from cbir_tf.features.runtime import check_model
from cbir_tf.features.store import FeatureStore
from cbir_tf.features.store_file import dtype_mismatch, fingerprint_mismatch
from cbir_tf.features.views import encoder_fingerprint
from cbir_tf.progress import logger
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.database_augmentation import load_augmented, save_augmented
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.re_ranking import augmented
from cbir_tf.retrieval.whitening import Whitening, is_whitened, whitening_for
from cbir_tf.run import Run
from cbir_tf.search import Index, load_index, make_index
from cbir_tf.search.exhaustive import Exhaustive
from cbir_tf.search.index_manifest import FILE_NAME, Manifest
from cbir_tf.types import Embeddings


def trained_run(run: Run | str | Path | None) -> Run:
    """A run whose training has finished.

    Args:
        run: the run, or its folder; None: the only one in the folder `runs`.

    Raises:
        UserError: no run there, not trained to the end, or with a fixed key edited since.
    """
    run = Run.only() if run is None else Run.open(run)
    if not run.trained:
        raise UserError(
            f"{run.folder}: not trained to the end; finish it with cbir train ... --resume"
        )
    run.check_unedited()
    return run


def open_store(run: Run, search: Search) -> FeatureStore:
    """The feature store of a run.

    Raises:
        UserError: nothing extracted, vectors of another encoder or number format than the run has
            now, or a fixed key of the run edited since its training.
    """
    run.check_unedited()
    store = FeatureStore.open(run.features)
    fingerprint = encoder_fingerprint(run, search)
    if store.encoder_fingerprint != fingerprint:
        error = fingerprint_mismatch(run.features, store.encoder_fingerprint, fingerprint)
        store.close()
        check_model(run.model)  # a damaged model is another one, too
        raise error
    if store.dtype != search.dtype:
        error = dtype_mismatch(run.features, store.dtype, search.dtype)
        store.close()
        raise error
    return store


def gallery_of_store(store: FeatureStore, run: Run, search: Search) -> Gallery:
    """The gallery of everything in a run's feature store, but for unfinished galleries.

    Whitening, index and augmented vectors are the saved ones where they are of these vectors and
    settings; otherwise they are fitted.

    Raises:
        UserError: a whitening that cannot be fitted to the vectors.
    """
    embeddings, whitening = stored_embeddings(store, run, search)
    searched = _searched(embeddings, run.index, search)
    return Gallery(
        _index(searched, run.index, search),
        search,
        store.class_names,
        embeddings if search.database_augmentation else None,
        whitening,
        _calibration(run, search, store.encoder_fingerprint, whitening),
        store.select(split="train", gallery=OWN),
    )


def stored_embeddings(
    store: FeatureStore, run: Run, search: Search
) -> tuple[Embeddings, Whitening | None]:
    """The stored vectors as they are compared, and the whitening they went through.

    Images of galleries whose extraction has not ended are left out. The whitening is fitted to the
    run's own images, so that further galleries do not change its figures; to all images where
    these are too few for it.

    Raises:
        UserError: a whitening that cannot be fitted to the vectors.
    """
    embeddings = store.embeddings()
    unfinished = store.unfinished()
    if len(unfinished):
        embeddings = embeddings.take(~np.isin(embeddings.ids, unfinished))
    fitted_to = embeddings.vectors
    if is_whitened(search):
        own = np.isin(embeddings.ids, store.select(gallery=OWN))
        if own.sum() >= max(2, search.pca or 0):
            fitted_to = fitted_to[own]
    whitening = whitening_for(fitted_to, search, run.index)
    if whitening is not None:
        embeddings = replace(embeddings, vectors=whitening(embeddings.vectors))
    return embeddings, whitening


def save_gallery(gallery: Gallery, folder: Path) -> None:
    """Write whitening, index and augmented vectors of a gallery, for `gallery_of_store`.

    Raises:
        UserError: they cannot be written.
    """
    if isinstance(gallery.index, Exhaustive):
        raise TypeError("a gallery of some images alone has no index to save")
    if gallery.whitening is not None:
        gallery.whitening.save(folder)
    gallery.index.save(folder)
    neighbours, metric = gallery.settings.database_augmentation, gallery.settings.metric
    if neighbours:
        save_augmented(folder, gallery.index.gallery, gallery.embeddings, neighbours, metric)


def _searched(embeddings: Embeddings, folder: Path, search: Search) -> Embeddings:
    """The embeddings, moved towards their neighbours where that is configured."""
    neighbours, metric = search.database_augmentation, search.metric
    if not neighbours or not len(embeddings):
        return embeddings
    kept = load_augmented(folder, embeddings, neighbours, metric)
    if kept is not None:
        return kept
    logger.info("moving %d images towards their neighbours; cbir extract keeps it", len(embeddings))
    return augmented(_fitted(embeddings, search), embeddings, neighbours)


def _index(searched: Embeddings, folder: Path, search: Search) -> Index:
    """The saved index where it is of these vectors and settings, else a newly fitted one."""
    if search.index == "nearest_neighbors":  # fitting is all there is to loading
        return _fitted(searched, search)
    if not (folder / FILE_NAME).exists():
        logger.info("fitting the index to %d images", len(searched))
        return _fitted(searched, search)
    try:
        manifest = Manifest.read(folder)
        saved = (manifest.index, manifest.metric, manifest.settings.get("recall"))
        if saved == (search.index, search.metric, search.recall):
            return load_index(folder, searched)
    except UserError as error:
        logger.info("the index is fitted again: %s", str(error).partition("; run cbir")[0])
    return _fitted(searched, search)


def _fitted(searched: Embeddings, search: Search) -> Index:
    options = {} if search.index == "nearest_neighbors" else {"recall": search.recall}
    return make_index(search.index, search.metric, **options).fit(searched)


def _calibration(
    run: Run, search: Search, fingerprint: str, whitening: Whitening | None
) -> Calibration | None:
    """The calibrated threshold; None where there is none for these vectors and this metric."""
    if not run.calibration.is_file():
        return None
    calibration = Calibration.load(run.calibration)
    digest = "" if whitening is None else whitening.digest
    if (calibration.model, calibration.whitening) != (fingerprint, digest):
        what = "model" if calibration.model != fingerprint else "whitening, or of other images"
        logger.warning(
            "%s: the threshold is of another %s; run cbir calibrate again", run.calibration, what
        )
        return None
    return calibration if calibration.metric == search.metric else None
