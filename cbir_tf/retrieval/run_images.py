"""The images of a run: of its splits, of any folder, and those that are only stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cbir_tf.data.folder_source import TABLE_SUFFIXES
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.features.record import OWN
from cbir_tf.features.store import FeatureStore
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.addresses import address_of
from cbir_tf.types import SPLITS, UNLABELLED, ImageSet


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
            raise _no_images(run, split)
    return chosen


def root_of(folder: Path) -> Path:
    """The folder that the paths of its images count from, of a folder or a manifest."""
    root = folder.expanduser().resolve()
    is_manifest = root.is_file() or (not root.is_dir() and root.suffix.lower() in TABLE_SUFFIXES)
    return root.parent if is_manifest else root


def folder_images(run: Run, folder: Path) -> tuple[ImageSet, frozenset[str]]:
    """The images of any folder, ready to be stored with a run.

    An image that belongs to the run's own data keeps its id, label, split and metadata. Any other
    goes by its whole path, as two folders may hold files of one name.

    Returns:
        The images, and the ids of those that are the run's own.

    Raises:
        UserError: no such folder, or no images in it.
    """
    from cbir_tf.data.sources import images_in_folder

    images = images_in_folder(folder)
    root = root_of(folder)
    places = [Path(os.path.normpath(root / id_)) for id_ in images.ids]
    ids = [nfc(address_of(place)) for place in places]
    labels, split = images.labels.copy(), images.split.copy().astype("U10")
    names, metadata = list(images.class_names), list(images.metadata)
    of_run, own = _images_of_run(run, root), set[str]()
    for row, path in enumerate(ids):
        if path in of_run:
            own.add(of_run[path][0])
            ids[row], label, split[row], columns = of_run[path]
            metadata[row] = {**columns, **metadata[row]}
            if label and label not in names:
                names.append(label)
            labels[row] = names.index(label) if label else UNLABELLED
    stored = replace(
        images,
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        split=split,
        class_names=tuple(names),
        metadata=tuple(metadata),
    )
    return stored, frozenset(own)


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


def split_images_or_stored(run: Run, *splits: str) -> tuple[ImageSet, np.ndarray]:
    """The undamaged images of some splits, with those whose pictures alone have gone.

    Returns:
        The images, and (N,) bool: which of them have a picture.

    Raises:
        UserError: a split without images, or the pictures are missing and not all are stored.
    """
    from cbir_tf.data.inspection import recorded_images, recorded_splits
    from cbir_tf.data.sources import all_images

    stored, missing = _stored_images(run), None
    try:
        present = all_images(run.config.data)
    except UserError as error:
        if stored is None:
            raise
        present, missing = stored.take(np.zeros(len(stored), dtype=bool)), error
    ids = present.ids
    if stored is not None:
        present = joined(present, stored.take(~np.isin(stored.ids, ids)))
    images = recorded_images(run.images, present)
    images = images.take(np.isin(images.split, splits))
    for split in splits:
        if not (images.split == split).any():
            raise missing or _no_images(run, split)
    wanted = {name for name, split in recorded_splits(run.images).items() if split in splits}
    if missing is not None and wanted - set(images.ids.tolist()):
        raise missing
    has_picture = np.isin(images.ids, ids)
    if not has_picture.all():
        logger.warning(
            "%d of %d images have no picture any more%s; their stored vectors are used",
            int((~has_picture).sum()),
            len(images),
            f" ({missing})" if missing else "",
        )
    return images, has_picture


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Two sets with no id in common as one; classes by name, those of the first set first."""
    new = [each for each in second.class_names if each not in first.class_names]
    names = [*first.class_names, *new]
    numbers = np.array([*map(names.index, second.class_names), UNLABELLED])
    return ImageSet(
        ids=np.concatenate([first.ids, second.ids]),
        sources=(*first.sources, *second.sources),
        labels=np.concatenate([first.labels, numbers[second.labels]]),
        split=np.concatenate([first.split, second.split]),
        class_names=tuple(names),
        metadata=(*first.metadata, *second.metadata),
    )


def _stored_images(run: Run) -> ImageSet | None:
    """The run's own images in its store; None without a store. Without a file: empty bytes."""
    if not run.features.is_file():
        return None
    with FeatureStore.open(run.features) as store:
        records = [each for each in store.records() if each.gallery == OWN and each.split]
        names = store.class_names
    return ImageSet(
        ids=np.array([each.id for each in records], dtype=np.str_),
        sources=tuple(each.path or b"" for each in records),
        labels=np.array([each.label for each in records], dtype=np.int64),
        split=np.array([each.split for each in records], dtype=np.str_),
        class_names=names,
        metadata=tuple(each.metadata for each in records),
    )


def _no_images(run: Run, split: str) -> UserError:
    return UserError(f"{run.folder}: has no {split} images; choose another --split")
