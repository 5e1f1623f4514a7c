"""Extraction: the images of a run, or of any folder, into its feature store, and the index over it.

What is stored and unchanged is not encoded again, so that an interrupted extraction goes on where
it was, and a folder that grows costs what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cbir_tf.config.arguments import one_of
from cbir_tf.data.added import with_added
from cbir_tf.errors import UserError
from cbir_tf.features.encode import Encoding, digests_of, encode
from cbir_tf.features.file_states import FileStates
from cbir_tf.features.runtime import Encoder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint, open_run_encoder, viewed
from cbir_tf.progress import logger
from cbir_tf.retrieval.absence import absence_of, place_of
from cbir_tf.retrieval.galleries import FolderGallery
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.retrieval.run_images import (
    folder_images,
    root_of,
    split_images,
    split_images_or_stored,
)
from cbir_tf.run import Run
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json
from cbir_tf.types import SPLITS, UNLABELLED, ImageSet

SplitOrAll = Literal["train", "validation", "test", "all"]


class ManyMissingError(UserError):
    """More than half of the stored images of a folder are not there."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    Attributes:
        ids: of the images that are now stored of those that were to be.
        stored: images in the store that are searched, of whichever source.
        new: images that were not stored, or had other content.
        known: those of them whose content had a vector already.
        gallery: name of the gallery that a folder's images are in; None: the run's own images.
        removed: ids of images that were removed, as their files have gone.
        missing: ids of images that were not found and are kept.
        unreadable: reason by id of each image that could not be read.
        pictures: plots that were drawn, or are there and would be the same.
    """

    ids: tuple[str, ...]
    stored: int
    new: int = 0
    known: int = 0
    gallery: str | None = None
    removed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()


def extract(
    run: Run | str | Path,
    split: SplitOrAll = "validation",
    *,
    folder: str | Path | None = None,
    gallery: str | None = None,
    keep_missing: bool = False,
    remove_missing: bool = False,
    draw: bool = True,
    encoder: Encoder | None = None,
) -> Extraction:
    """Embed images into a run's feature store, fit the index over all of it, draw the map.

    Args:
        run: a trained run, or its folder.
        split: whose images; all: of the three splits.
        folder: every image below it, or those its manifest.csv lists, in place of a split.
        gallery: name of the gallery of a folder's images; None: the one that the folder has, or
            the folder's own name. An image that is in another gallery stays there without a name.
        keep_missing: keep stored images whose files have gone from the folder.
        remove_missing: remove them even if they are more than half, or their folders are empty.
        draw: draw the embedding map and the query grid, unless they would be the same.
        encoder: the run's, if it is open already.

    Raises:
        UserError: no such images, none that can be read, a store of another encoder, or more than
            half of a folder's stored images have gone; nothing has changed then.

    Example:
        >>> extract("runs/flowers", "all").stored  # doctest: +SKIP
        3670
    """
    run = trained_run(run)
    one_of(split, (*SPLITS, "all"), "split")
    if folder is None:
        images = with_added(split_images(run, split), run.added)
        done = encode_into_store(run, images, encoder)
        found = Extraction(_stored_ids(images, done), 0, done.new, done.known)
    else:
        images, found, done = _extract_folder(
            run, path_of(folder), gallery, keep_missing, remove_missing, encoder
        )
    with fit_index(run) as retriever:
        pictures: list[Path] = []
        if draw:
            from cbir_tf.retrieval.gallery_plots import draw_map  # Matplotlib takes seconds

            pictures = draw_map(retriever, images.ids)
        return replace(
            found,
            stored=len(retriever.gallery),
            unreadable=done.unreadable,
            pictures=tuple(pictures),
        )


def _extract_folder(
    run: Run,
    folder: Path,
    gallery: str | None,
    keep_missing: bool,
    remove_missing: bool,
    encoder: Encoder | None,
) -> tuple[ImageSet, Extraction, Encoding]:
    try:
        images, own = folder_images(run, folder)
    except UserError as error:
        raise _with_advice(error, run, folder) from None
    place = FolderGallery.of(run, folder, gallery)
    images = with_added(images, run.added)
    own |= {id_ for id_ in images.ids.tolist() if id_.startswith(f"{run.added.name}/")}
    before = _records(run)
    galleries = place.galleries(images.ids.tolist(), own, before)
    states = _file_states(run)
    digests = digests_of(images, states)
    gone: list[str] = []
    missing = _not_found(folder, place, images, before)
    if not keep_missing:
        gone = _gone(
            run, folder, missing, digests, len(_stored_below(folder, place, before)), remove_missing
        )
    if galleries:
        place.begin()
    done = encode_into_store(run, images, encoder, galleries, digests)
    with FeatureStore.open(run.features) as store:
        store.note_files(states.fresh)
        store.remove(gone, spare=True)
    if galleries:
        place.finish()
    left = tuple(sorted({each.id for each in missing} - set(gone)))
    stored = _stored_ids(images, done)
    found = Extraction(stored, 0, done.new, done.known, place.name, tuple(gone), left)
    return images, found, done


def watch(
    run: Run | str | Path,
    folder: Path,
    gallery: str | None = None,
    keep_missing: bool = False,
    remove_missing: bool = False,
) -> Iterator[Extraction]:
    """Extract a folder again whenever something below it changes, until interrupted.

    Yields:
        What each round did. A round that fails, as over an emptied folder, is logged; where more
        than half of the images are missing, they are kept.

    Raises:
        UserError: watchfiles is not installed.
    """
    try:
        from watchfiles import watch as changes
    except ImportError:
        raise UserError("--watch needs watchfiles; pip install 'cbir-tf[watch]'") from None
    run = trained_run(run)
    encoder = open_run_encoder(run, run.config.search)
    logger.info("watching %s; Ctrl-C ends it", folder)
    # A change in the moment before the watch begins shows up in its first round.
    for _ in changes(folder, yield_on_timeout=False, raise_interrupt=True):
        try:
            yield extract_or_keep(
                run,
                folder=folder,
                gallery=gallery,
                keep_missing=keep_missing,
                remove_missing=remove_missing,
                draw=False,
                encoder=encoder,
            )
        except (UserError, OSError) as error:
            logger.warning("%s", error)


def extract_or_keep(run: Run, *, keep_missing: bool = False, **options: Any) -> Extraction:
    """As `extract`; where more than half of the images are missing, these are kept, and logged."""
    try:
        return extract(run, keep_missing=keep_missing, **options)
    except ManyMissingError as error:
        logger.warning("%s", error)
        return extract(run, keep_missing=True, **options)


def encode_splits(run: Run, *splits: str, encoder: Encoder | None = None) -> ImageSet:
    """Embed the images of some splits that are not stored; `fit_index` comes after.

    Pictures are needed only of what is not stored.

    Returns:
        The images, which are the run's own alone; those without a picture have their stored path,
        or empty bytes, as source.

    Raises:
        UserError: a split without images, or what `encode_into_store` raises.
    """
    images, has_picture = split_images_or_stored(run, *splits)
    if has_picture.any():
        encode_into_store(run, images.take(has_picture), encoder)
    return images


def encode_into_store(
    run: Run,
    images: ImageSet,
    encoder: Encoder | None = None,
    galleries: Mapping[str, str] | None = None,
    digests: list[str | None] | None = None,
) -> Encoding:
    """Embed images into the store, except those stored unchanged; `fit_index` comes after.

    Args:
        run: a trained run.
        images: to be embedded.
        encoder: the run's, if it is open already.
        galleries: by id, of images of further folders; all others are the run's own.
        digests: of the images, if they are known.

    Raises:
        UserError: the store is of another encoder, or none of the images could be read.
    """
    search = run.config.search
    encoder = encoder or open_run_encoder(run, search)
    names = read_json(run.training)["class_names"]
    with FeatureStore.create(
        run.features, encoder_fingerprint(run, search), names, search.dtype
    ) as store:
        names = list(store.extend_classes(images.class_names))
        numbers = np.array([names.index(each) for each in images.class_names] + [UNLABELLED])
        images = replace(images, labels=numbers[images.labels], class_names=tuple(names))
        data = viewed(run.config.data, search)
        done = encode(encoder, images, data, store, galleries, digests)
        lost = sorted(done.unreadable.keys() - done.kept)
        if len(lost) == len(images):
            raise UserError(
                f"none of the {len(images)} images could be read, the first is "
                f"{lost[0]!r}; is it the right folder?"
            )
    return done


def fit_index(run: Run, encoder: Encoder | None = None, may_be_empty: bool = False) -> Retriever:
    """The run opened for searching, whitening and index fitted to what is stored now and saved."""
    retriever = Retriever(run, may_be_empty=may_be_empty, encoder=encoder)
    if len(retriever.gallery):
        retriever.save_index()
    return retriever


def _stored_ids(images: ImageSet, done: Encoding) -> tuple[str, ...]:
    lost = done.unreadable.keys() - done.kept
    return tuple(id_ for id_ in images.ids.tolist() if id_ not in lost)


# --- what is not there ---------------------------------------------------------------------------


def _records(run: Run) -> list[Record]:
    if not run.features.is_file():
        return []
    with FeatureStore.open(run.features) as store:
        return store.records()


def _file_states(run: Run) -> FileStates:
    if not run.features.is_file():
        return FileStates()
    with FeatureStore.open(run.features) as store:
        return FileStates(store.file_states())


def _stored_below(folder: Path, place: FolderGallery, records: list[Record]) -> list[Record]:
    """The stored images of a folder: those below it, and those of its gallery from elsewhere."""
    root = root_of(folder)
    return [each for each in records if place.is_only(each) or place_of(each).is_relative_to(root)]


def _not_found(
    folder: Path, place: FolderGallery, images: ImageSet, records: list[Record]
) -> list[Record]:
    present = set(images.ids.tolist())
    return [each for each in _stored_below(folder, place, records) if each.id not in present]


def _gone(
    run: Run,
    folder: Path,
    missing: list[Record],
    digests: list[str | None],
    stored: int,
    remove_missing: bool,
) -> list[str]:
    """Ids of the images that can be removed; what is out of reach is named in the log.

    Raises:
        ManyMissingError: they are more than half; content that is there elsewhere is not counted.
    """
    absence = absence_of(missing, emptied=remove_missing)
    for reason, records in absence.out_of_reach.items():
        logger.warning(
            "%s: %d stored images are below it and are kept; mount the drive or correct the "
            "permissions, or if they were deleted use --remove-missing",
            reason,
            len(records),
        )
    present = set(digests)
    lost = [each for each in absence.gone if each.digest not in present]
    if 2 * len(lost) > stored and not remove_missing:
        raise ManyMissingError(
            f"{folder}: {len(lost)} of its {stored} stored images are not there, the first "
            f"{lost[0].id}, and are kept: mount the drive they are on, or confirm with "
            f"cbir extract --run {run.folder} --images {folder} and --remove-missing or "
            "--keep-missing"
        )
    return [each.id for each in absence.gone]


def _with_advice(error: UserError, run: Run, folder: Path) -> UserError:
    """The error of a folder without images, with what to do about those that are stored."""
    root = root_of(folder)
    stored = sum(place_of(each).is_relative_to(root) for each in _records(run))
    if not stored:
        return error
    return UserError(
        f"{error}; the {stored} images stored from there are kept: mount the drive they are on, or "
        f"remove them with cbir remove --run {run.folder} --images {folder}"
    )
