"""What every training reads and writes in its run, beside the model: images.csv, training.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from cbir_tf.data.duplicates import Duplicate, cross_split_duplicates
from cbir_tf.data.inspection import (
    Inspection,
    inspect_images,
    read_image_table,
    write_image_table,
)
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.files import write_text
from cbir_tf.types import SPLITS, ImageSet


def inspect_for(
    run: Run, images: ImageSet, restart: bool = False
) -> tuple[Inspection, list[Duplicate]]:
    """The undamaged images of a run, each inspected once, and the duplicates across splits.

    Args:
        run: whose images.csv is read where there is one.
        images: of all splits.
        restart: inspect the images again.

    Raises:
        UserError: the images are not those of images.csv, or none can be read.
    """
    if run.images.is_file() and not restart:
        inspection = read_image_table(run.images, images)
    else:
        inspection = inspect_images(images)
    images = inspection.images
    sizes = ", ".join(f"{name} {(images.split == name).sum()}" for name in SPLITS)
    logger.info("%d images of %d classes; %s", len(images), len(images.class_names), sizes)
    duplicates = cross_split_duplicates(inspection)
    if duplicates:
        exact = sum(each.kind == "exact" for each in duplicates)
        logger.warning(
            "%d exact and %d near duplicates across the splits make the metrics too good; they "
            "will be listed in training.json",
            exact,
            len(duplicates) - exact,
        )
    return inspection, duplicates


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
    duplicates: Sequence[Duplicate],
) -> None:
    """Write training.json: the results of the training, and what it was trained on.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    report = dict(results) | {
        "class_names": inspection.images.class_names,
        "damaged": dict(inspection.damaged),
        "duplicates": [asdict(each) for each in duplicates],
    }
    write_text(run.training, json.dumps(report, indent=2, ensure_ascii=False))
