"""Extraction: the images of a run, or of any folder, into its feature store, and the index over it.

What is stored and unchanged is not encoded again, so that an interrupted extraction goes on where
it was, and a folder that grows costs what is new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cbir_tf.arguments import one_of
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import Encoder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint, open_run_encoder, viewed
from cbir_tf.progress import logger
from cbir_tf.retrieval.gallery_plots import draw_map
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.files import read_json
from cbir_tf.text import nfc
from cbir_tf.types import SPLITS, UNLABELLED, ImageSet

SplitOrAll = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    Attributes:
        ids: of the images that are now stored of those that were to be.
        stored: images in the store, of whichever source.
        removed: ids of images that were taken out, as their files have gone.
        unreadable: reason by id of each image that could not be read.
        pictures: plots that were drawn.
    """

    ids: tuple[str, ...]
    stored: int
    removed: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()


def extract(
    run: Run | str | Path,
    split: SplitOrAll = "validation",
    *,
    folder: str | Path | None = None,
    keep_missing: bool = False,
    draw: bool = True,
    encoder: Encoder | None = None,
) -> Extraction:
    """Embed images into a run's feature store, fit the index over all of it, draw the map.

    Args:
        run: a trained run, or its folder.
        split: whose images; all: of the three splits.
        folder: every image below it, or those its manifest.csv lists, in place of a split.
        keep_missing: keep stored images whose files have gone from the folder.
        draw: draw the embedding map and the query grid.
        encoder: the run's, if it is open already.

    Raises:
        UserError: no such images, none that can be read, or a store of another encoder.

    Example:
        >>> extract("runs/flowers", "all").stored  # doctest: +SKIP
        3670
    """
    run = trained_run(run)
    one_of(split, (*SPLITS, "all"), "split")
    if folder is not None:
        folder = path_of(folder)
    images = images_to_extract(run, folder, split)
    unreadable = encode_into_store(run, images, encoder)
    removed: list[str] = []
    if folder is not None and not keep_missing:
        removed = drop_missing(run, folder, images)
    with fit_index(run) as retriever:
        return Extraction(
            tuple(id_ for id_ in images.ids.tolist() if id_ not in unreadable),
            len(retriever.gallery),
            tuple(removed),
            unreadable,
            tuple(draw_map(retriever, images.ids)) if draw else (),
        )


def watch(run: Run | str | Path, folder: Path, keep_missing: bool = False) -> Iterator[Extraction]:
    """Extract a folder again whenever something below it changes, until interrupted.

    Yields:
        What each round did. A round that fails, as over an emptied folder, is logged.

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
            yield extract(
                run, folder=folder, keep_missing=keep_missing, draw=False, encoder=encoder
            )
        except UserError as error:
            logger.warning("%s", error)


def images_to_extract(run: Run, folder: Path | None, split: str = "all") -> ImageSet:
    """A split or a folder, and what was added while the run was served."""
    from cbir_tf.data.added import with_added

    images = split_images(run, split) if folder is None else folder_images(run, folder)
    return with_added(images, run.added)


def split_images(run: Run, *splits: str) -> ImageSet:
    """The undamaged images of some splits of a run ("all" for the three).

    Raises:
        UserError: a split without images.
    """
    from cbir_tf.data.inspection import recorded_images
    from cbir_tf.data.sources import all_images

    images = recorded_images(run.images, all_images(run.config.data))
    chosen = images.take(np.isin(images.split, SPLITS if "all" in splits else splits))
    for split in set(splits) - {"all"}:
        if not (chosen.split == split).any():
            raise UserError(f"{run.folder}: has no {split} images; choose another --split")
    return chosen


def folder_images(run: Run, folder: Path) -> ImageSet:
    """The images of any folder, ready to be stored with a run.

    An image that belongs to the run's own data keeps its id, label, split and metadata. Any other
    goes by its whole path, as two folders may hold files of one name.

    Raises:
        UserError: no such folder, or no images in it.
    """
    from cbir_tf.data.sources import images_in_folder

    images = images_in_folder(folder)
    root = folder.expanduser().resolve()
    root = root.parent if root.is_file() else root  # of a manifest
    places = [Path(os.path.normpath(root / id_)) for id_ in images.ids]
    ids = [nfc(address_of(place)) for place in places]
    labels, split = images.labels.copy(), images.split.copy().astype("U10")
    names, metadata = list(images.class_names), list(images.metadata)
    of_run = _images_of_run(run, root)
    for row, path in enumerate(ids):
        if path in of_run:
            ids[row], label, split[row], columns = of_run[path]
            metadata[row] = {**columns, **metadata[row]}
            if label and label not in names:
                names.append(label)
            labels[row] = names.index(label) if label else UNLABELLED
    return replace(
        images,
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        split=split,
        class_names=tuple(names),
        metadata=tuple(metadata),
    )


def _images_of_run(
    run: Run, root: Path
) -> dict[str, tuple[str, str, str, Mapping[str, str | float]]]:
    """Id, label, split and metadata of the run's own images, by path, if they may lie there."""
    data = run.config.data
    if data.source not in ("folder", "coco") or data.path is None:
        return {}
    home = data.path.resolve()
    if not (home.is_relative_to(root) or root.is_relative_to(home)) or not home.exists():
        return {}
    images = split_images(run, "all")
    names = (*images.class_names, "")
    return {
        nfc(address_of(source)): (id_, names[label], split, columns)
        for id_, source, label, split, columns in zip(
            images.ids.tolist(),
            images.sources,
            images.labels,
            images.split.tolist(),
            images.metadata,
            strict=True,
        )
        if isinstance(source, Path)
    }


def encode_into_store(run: Run, images: ImageSet, encoder: Encoder | None = None) -> dict[str, str]:
    """Embed images into the store, except those stored unchanged; `fit_index` comes after.

    Args:
        run: a trained run.
        images: to be embedded.
        encoder: the run's, if it is open already.

    Returns:
        Id and reason of each image that could not be read.

    Raises:
        UserError: the store is of another encoder, or none of the images could be read.
    """
    from cbir_tf.features.encode import encode

    search = run.config.search
    encoder = encoder or open_run_encoder(run, search)
    names = read_json(run.training)["class_names"]
    with FeatureStore.create(
        run.features, encoder_fingerprint(run, search), names, search.dtype
    ) as store:
        names = list(store.extend_classes(images.class_names))
        numbers = np.array([names.index(each) for each in images.class_names] + [UNLABELLED])
        images = replace(images, labels=numbers[images.labels], class_names=tuple(names))
        unreadable = encode(encoder, images, viewed(run.config.data, search), store)
        if len(unreadable) == len(images):
            raise UserError(
                f"none of the {len(images)} images could be read, the first is "
                f"{next(iter(unreadable))!r}; is it the right folder?"
            )
    return unreadable


def drop_missing(run: Run, folder: Path, images: ImageSet) -> list[str]:
    """Take out of the store what was below the folder and is no longer; returns those ids."""
    root = folder.expanduser().resolve()
    present = set(images.ids.tolist())
    with FeatureStore.open(run.features) as store:
        gone = [
            record.id
            for record in store.records()
            if record.id not in present and _place(record).is_relative_to(root)
        ]
        store.remove(gone)
    return gone


def fit_index(run: Run, encoder: Encoder | None = None) -> Retriever:
    """The run opened for searching, whitening and index fitted to what is stored now and saved."""
    retriever = Retriever(run, encoder=encoder)
    retriever.save_index()
    return retriever


def _place(record: Record) -> Path:
    """Where the image of a folder is, which goes by its whole path; or where any other is."""
    place = path_of(record.id)
    return place if place.is_absolute() else record.path or Path()
