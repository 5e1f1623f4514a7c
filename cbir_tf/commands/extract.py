"""extract: embed images into the run's feature store, fit the index, draw the embedding map."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import address_of, is_mirrored, path_of
from cbir_tf.types import SPLITS, UNLABELLED

if TYPE_CHECKING:
    from cbir_tf.features.runtime import Encoder
    from cbir_tf.features.store import Record
    from cbir_tf.retrieval.retriever import Retriever
    from cbir_tf.types import ImageSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--split", choices=[*SPLITS, "all"], default="validation", help="default: validation"
    )
    which.add_argument(
        "--images",
        type=path_of,
        metavar="DIR",
        help="every image below a folder, or those its manifest.csv lists, instead",
    )
    parser.add_argument(
        "--keep-missing",
        action="store_true",
        help="with --images: keep stored images whose files have gone from the folder",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="with --images: stay, and keep in step with the folder until Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Extract, fit the index, draw; prints what was made and where."""
    run = trained_run(arguments.run)
    folder = arguments.images
    if folder is None and (arguments.keep_missing or arguments.watch):
        raise UserError("--keep-missing and --watch need --images DIR; add it, or leave them out")
    if arguments.watch and is_mirrored(folder):
        raise UserError("--watch needs a folder of this machine; S3 does not say when it changes")
    import_tensorflow()
    from cbir_tf.retrieval.pictures import draw_map

    images = _images(run, folder, arguments.split)
    retriever, unreadable = extract(run, images)
    removed = [] if folder is None or arguments.keep_missing else drop_missing(run, folder, images)
    if removed:
        retriever = refreshed(run)
    pictures = draw_map(retriever, images.ids)
    result = {
        "features": str(run.features),
        "images": len(images) - len(unreadable),
        "stored": len(retriever.embeddings),
        "removed": removed,
        "unreadable": unreadable,
        "pictures": [str(each) for each in pictures],
    }
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(
            f"{result['images']} images extracted, {len(removed)} removed; "
            f"{result['stored']} in {run.features}"
        )
        print(*pictures, sep="\n", flush=True)
    if arguments.watch:
        _watch(run, folder, arguments.keep_missing)


def trained_run(folder: Path) -> Run:
    """Open a run whose training has finished.

    Raises:
        UserError: no run there, or not trained to the end.
    """
    run = Run.open(folder)
    if not run.trained:
        raise UserError(f"{folder}: not trained to the end; finish it with train.py ... --resume")
    return run


def split_images(run: Run, *splits: str) -> ImageSet:
    """The undamaged images of some splits of a run ("all" for the three)."""
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
    ids = [address_of(root / id_) for id_ in images.ids]
    labels, split = images.labels.copy(), images.split.copy().astype("U10")
    names, metadata = list(images.class_names), list(images.metadata)
    own = _own_images(run, root)
    for row, path in enumerate(ids):
        if path in own:
            ids[row], label, split[row], columns = own[path]
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


def _own_images(run: Run, root: Path) -> dict[str, tuple[str, str, str, Mapping[str, str | float]]]:
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
        address_of(source): (id_, names[label], split, columns)
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


def _images(run: Run, folder: Path | None, split: str = "all") -> ImageSet:
    """What is to be extracted: a split or a folder, and what was added while the run was served."""
    from cbir_tf.data.added import with_added

    images = split_images(run, split) if folder is None else folder_images(run, folder)
    return with_added(images, run.added)


def drop_missing(run: Run, folder: Path, images: ImageSet) -> list[str]:
    """Take out of the store what was below the folder and is no longer; returns those ids."""
    from cbir_tf.features.store import FeatureStore

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


def _place(record: Record) -> Path:
    """Where the image of a folder is, which goes by its whole path; or where any other is."""
    place = path_of(record.id)
    return place if place.is_absolute() else record.path or Path()


def extract(
    run: Run, images: ImageSet, encoder: Encoder | None = None
) -> tuple[Retriever, dict[str, str]]:
    """Embed into the store and save the fitted index.

    Args:
        run: a trained run.
        images: to be embedded, unless stored unchanged.
        encoder: the run's, if it is open already.

    Returns:
        The run ready to be searched, and id and reason of each image that could not be read.

    Raises:
        UserError: the store is of another model or test-time augmentation, or none of the images
            could be read.
    """
    from cbir_tf.features.encode import encode
    from cbir_tf.features.store import FeatureStore
    from cbir_tf.features.views import maker_of, open_run_encoder, viewed
    from cbir_tf.storage.files import read_json

    search = run.config.search
    encoder = encoder or open_run_encoder(run, search)
    names = read_json(run.training)["class_names"]
    maker = maker_of(run, search)
    with FeatureStore.create(run.features, maker, names, search.dtype) as store:
        names = list(store.extend_classes(images.class_names))
        numbers = np.array([names.index(each) for each in images.class_names] + [UNLABELLED])
        images = replace(images, labels=numbers[images.labels], class_names=tuple(names))
        data = viewed(run.config.data, search)
        unreadable = encode(encoder, images, data, store)
        if len(unreadable) == len(images):
            raise UserError(
                f"none of the {len(images)} images could be read, the first is "
                f"{next(iter(unreadable))!r}; is it the right folder?"
            )
    return refreshed(run), unreadable


def refreshed(run: Run) -> Retriever:
    """The run with its index fitted to what the store now holds, and saved.

    With search.pca or search.whiten the projection too is fitted to what the store now holds: after
    any image more or less the index is over other vectors, and fitted anew.
    """
    from cbir_tf.retrieval.retriever import Retriever

    retriever = Retriever(run)
    retriever.save_index()
    return retriever


def _watch(run: Run, folder: Path, keep_missing: bool) -> None:
    """Extract again whenever something below the folder changes, until interrupted."""
    from cbir_tf.features.views import open_run_encoder

    try:
        from watchfiles import watch
    except ImportError:
        raise UserError("--watch needs watchfiles; pip install 'cbir-tf[watch]'") from None
    encoder = open_run_encoder(run, run.config.search)
    logger.info("watching %s; Ctrl-C ends it", folder)
    # A change in the moment before the watch begins shows up in its first round.
    for _ in watch(folder, yield_on_timeout=False, raise_interrupt=True):
        try:
            images = _images(run, folder)
            _, unreadable = extract(run, images, encoder)
            removed = [] if keep_missing else drop_missing(run, folder, images)
        except UserError as error:  # an emptied folder may fill again
            logger.warning("%s", error)
            continue
        if removed:
            refreshed(run)
        left = len(images) - len(unreadable)
        print(f"{left} images in {folder}, {len(removed)} removed", flush=True)
