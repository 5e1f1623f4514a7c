"""What every training reads and writes in its run, beside the model: images.csv, training.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from cbir_tf.config.fixed import fixed_values
from cbir_tf.data.duplicate_groups import Contradiction, contradictions, picture_groups
from cbir_tf.data.duplicates import Duplicate, cross_split_duplicates
from cbir_tf.data.grouped_split import DUPLICATES
from cbir_tf.data.inspection import (
    Inspection,
    inspect_images,
    read_image_table,
    write_image_table,
)
from cbir_tf.data.splits import apply_split
from cbir_tf.errors import LISTED
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.files import write_text
from cbir_tf.types import SPLITS, ImageSet


@dataclass(frozen=True)
class FoundDuplicates:
    """Images of a run that are one picture.

    Attributes:
        across_splits: those in several splits.
        contradictions: those with several labels, in whichever split.
    """

    across_splits: tuple[Duplicate, ...]
    contradictions: tuple[Contradiction, ...]


def inspect_for(
    run: Run, images: ImageSet, restart: bool = False
) -> tuple[Inspection, FoundDuplicates]:
    """The undamaged images of a run, each inspected once, and the duplicates among them.

    Args:
        run: whose images.csv is read where there is one.
        images: of all splits; with `data.split.group: duplicates` they are assigned here.
        restart: inspect the images again.

    Raises:
        UserError: the images are not those of images.csv, or none can be read.
    """
    config = run.config
    by_picture = config.data.split.group == DUPLICATES
    if run.images.is_file() and not restart:
        inspection = read_image_table(run.images, images, has_split=not by_picture)
        groups = picture_groups(inspection)
    else:
        inspection = inspect_images(images)
        groups = picture_groups(inspection)
        if by_picture:
            by_label, split = config.loss.name != "reconstruction", config.data.split
            images = apply_split(inspection.images, split, config.seed, by_label, groups)
            inspection = replace(inspection, images=images)
    images = inspection.images
    sizes = ", ".join(f"{name} {(images.split == name).sum()}" for name in SPLITS)
    logger.info("%d images of %d classes; %s", len(images), len(images.class_names), sizes)
    duplicates = cross_split_duplicates(inspection)
    if duplicates:
        exact = sum(each.kind == "exact" for each in duplicates)
        logger.warning(
            "%d exact and %d near duplicates across the splits make the metrics too good; they "
            "will be listed in training.json, and data.split.group=duplicates keeps such in one "
            "split",
            exact,
            len(duplicates) - exact,
        )
    contradicting = contradictions(images, groups)
    for each in contradicting[:LISTED]:
        logger.warning("one picture with several labels: %s", each)
    if contradicting:
        logger.warning(
            "%d pictures are there under several labels, exactly or nearly; they will be listed in "
            "training.json, and at most one label of each is right",
            len(contradicting),
        )
    return inspection, FoundDuplicates(tuple(duplicates), tuple(contradicting))


def begin(run: Run, inspection: Inspection, restart: bool = False) -> None:
    """Write config.yaml and images.csv; with restart, delete what the run held before.

    Call it once the data and the model are known to be usable.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    if restart:
        run.clear()
    if not run.config_file.is_file() or Run.open(run.folder).config != run.config:
        write_text(run.config_file, run.config.dump())
    if not run.images.is_file():
        write_image_table(run.images, inspection)


def write_report(
    run: Run,
    results: Mapping[str, object],
    inspection: Inspection,
    duplicates: FoundDuplicates,
) -> None:
    """Write training.json: the results of the training, what with and what on.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    report = dict(results) | {
        "fixed_keys": fixed_values(run.config),
        "class_names": inspection.images.class_names,
        "damaged": dict(inspection.damaged),
        "duplicates": [asdict(each) for each in duplicates.across_splits],
        "contradictions": [asdict(each) for each in duplicates.contradictions],
    }
    write_text(run.training, json.dumps(report, indent=2, ensure_ascii=False))
