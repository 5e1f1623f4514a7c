"""train: an embedding, or the vocabulary of classical features, from a configuration file."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json, replacing, write_text
from cbir_tf.types import SPLITS

if TYPE_CHECKING:
    import keras

    from cbir_tf.data.duplicates import Duplicate
    from cbir_tf.data.inspection import Inspection
    from cbir_tf.training.objectives import Objective
    from cbir_tf.types import ImageSet


MONITORED = ("val_loss", "val_accuracy", "val_recall@1", "val_map_at_r")
LENGTHENED = ("constant", "warmup_decay")
"""Schedules whose learning rates do not depend on the number of epochs to come."""
_ANEW = "train all epochs with --restart, or in another --run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = "%(prog)s --config FILE [section.key=value ...] [--run DIR] [--resume]"
    parser.add_argument("--config", type=path_of, required=True, metavar="FILE", help="a YAML file")
    parser.add_argument("--run", type=path_of, metavar="DIR", help="default: runs/<config name>")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run; training.epochs may be more than it was begun with",
    )
    again.add_argument("--restart", action="store_true", help="replace what the folder holds")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(overrides=[])
    parser.epilog = "\n".join(
        ["keys of the configuration:", *(f"  {key}" for key in describe_keys(Config))]
    )


def main(arguments: argparse.Namespace) -> None:
    """Train, save, draw the curves; prints the best epoch and where everything is."""
    config = Config.load(arguments.config, arguments.overrides)
    folder = arguments.run or Path("runs") / config.name
    longer = arguments.resume and _is_only_longer(folder, config)
    run = Run.at(folder, config, replace=arguments.restart or longer)
    if run.trained and not arguments.restart:
        logger.info("%s: already trained; --restart trains it again", folder)
    elif run.checkpoints.exists() and not (arguments.resume or arguments.restart):
        raise UserError(
            f"{folder}: an interrupted run; --resume goes on with it, --restart begins anew"
        )
    else:
        checkpoint = run.checkpoints / "last.npz"
        if arguments.resume and not checkpoint.is_file():
            logger.info("%s: no checkpoint to resume from; starting from the beginning", folder)
        import_tensorflow()
        work = train_descriptors if config.descriptors else train
        try:
            work(run, arguments.restart)
        except KeyboardInterrupt:
            if checkpoint.is_file():
                raise KeyboardInterrupt("--resume goes on from here") from None
            raise
    report = read_json(run.training)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
        return
    best = report.get("best", {})
    figures = "".join(f", {name} {best[name]:.4f}" for name in MONITORED if name in best)
    if config.descriptors:
        print(_described(report))
    elif report["epochs"]:
        print(f"epoch {report['best_epoch']} of {report['epochs']} is the best{figures}")
    else:
        print(f"nothing trained, as training.epochs is 0{figures}")
    for path in (run.model, run.history, *sorted(run.plots.glob("*.png"))):
        if path.exists():
            print(path)


def _is_only_longer(folder: Path, config: Config) -> bool:
    """Whether an interrupted run is to have more epochs than it was begun with, and all else equal.

    Raises:
        UserError: it is, but cannot: it has ended, or its learning rates depend on the epochs.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = Run.open(folder)
    begun, wanted = run.config.training.epochs, config.training.epochs
    training = config.training.model_copy(update={"epochs": begun})
    if wanted <= begun or config.model_copy(update={"training": training}) != run.config:
        return False
    if run.trained:
        reason = f"was trained to its end, and of that its optimizer is not kept; {_ANEW}"
    elif config.schedule.name not in LENGTHENED:
        reason = (
            f"its learning rates were planned from the beginning ({config.schedule.name}); "
            f"resume without training.epochs={wanted}, or {_ANEW}"
        )
    else:
        return True
    raise UserError(f"{folder}: {reason}")


def train(
    run: Run, restart: bool = False, further: Sequence[keras.callbacks.Callback] = ()
) -> None:
    """Train the embedder of a run, from where an interruption left it; save model and curves.

    The folder is not touched before data and model have proved usable.

    Args:
        run: to train.
        restart: replace what the folder holds.
        further: callbacks that come after the checkpoint.

    Raises:
        UserError: unusable data, model or folder, or a training that diverges.
    """
    import keras

    from cbir_tf.data.sources import load_images
    from cbir_tf.models import build_embedder
    from cbir_tf.training.fit import fit, make_plan
    from cbir_tf.training.objectives import build_objective
    from cbir_tf.training.pictures import draw_classes, draw_samples

    config = run.config
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)
    # The model first: a misspelt backbone should not wait until all images have been looked at.
    images = load_images(config.data, config.seed, config.loss.name != "reconstruction")
    embedder = build_embedder(config.model, config.seed, config.data.image_size)
    objective = build_objective(embedder, config, len(images.class_names), config.seed)
    inspection, duplicates = _inspect(run, images, restart)
    images = inspection.images
    training = images.of_split("train")
    plan = make_plan(config, training)
    if plan.epochs:
        _check_trainable(config, objective, images.of_split("validation"))
    _begin(run, restart, inspection)
    draw_classes(run, images)
    draw_samples(run, training)

    report: dict[str, Any] = {"epochs": 0, "best_epoch": 0, "best": {}, "seconds": 0.0}
    if plan.epochs:
        report = fit(run, objective, images, plan, further)
    _report(run, report, inspection, duplicates)
    # The model comes last: where it is, the run is complete.
    with replacing(run.model) as temporary:
        embedder.save(temporary)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def train_descriptors(run: Run, restart: bool = False) -> None:
    """Fit the descriptors of a run to its training images; there is no going on in the middle.

    Raises:
        UserError: unusable data or folder, too few images, or OpenCV is not installed.
    """
    from cbir_tf.data.sources import load_images
    from cbir_tf.features.descriptors import check_installed
    from cbir_tf.features.fit_descriptors import fit_descriptors
    from cbir_tf.training.pictures import draw_classes, draw_samples

    config = run.config
    check_installed(config.descriptors)
    inspection, duplicates = _inspect(run, load_images(config.data, config.seed), restart)
    training = inspection.images.of_split("train")
    if not len(training):
        raise UserError("data.split.train: no image to fit the descriptors to; give it some")
    _begin(run, restart, inspection)
    draw_classes(run, inspection.images)
    draw_samples(run, training)
    started = time.monotonic()
    descriptors, fitted = fit_descriptors(config, training)
    report = {
        "descriptors": fitted,
        "dimensions": sum(descriptors.sizes),
        "seconds": round(time.monotonic() - started, 1),
    }
    _report(run, report, inspection, duplicates)
    descriptors.save(run.model)


def _described(report: dict[str, Any]) -> str:
    """What was fitted, a line for each descriptor."""
    lines = []
    for each in report["descriptors"]:
        scores = each.get("davies_bouldin", {})
        chosen = f", {each['words']} words" if scores else ""
        if len(scores) > 1:
            tried = ", ".join(f"{size}: {score:.3f}" for size, score in scores.items())
            chosen += f" (Davies-Bouldin index {tried})"
        lines.append(f"{each['name']}: {each['dimensions']} dimensions{chosen}")
    return "\n".join([*lines, f"{report['dimensions']} dimensions in all"])


def _report(
    run: Run, report: dict[str, Any], inspection: Inspection, duplicates: Sequence[Duplicate]
) -> None:
    """Write training.json: what was trained, and on what."""
    report |= {
        "class_names": inspection.images.class_names,
        "damaged": dict(inspection.damaged),
        "duplicates": [asdict(each) for each in duplicates],
    }
    write_text(run.training, json.dumps(report, indent=2, ensure_ascii=False))


def _check_trainable(config: Config, objective: Objective, validation: ImageSet) -> None:
    """Raise a UserError unless there is something to train, and something to watch it by."""
    from cbir_tf.training.fit import has_pairs

    if not objective.twin.trainable_variables:
        raise UserError(
            "model: there is nothing to train; set model.embedding_size or model.trainable, or "
            "training.epochs=0 to use the features as they are"
        )
    by_loss = config.loss.name == "reconstruction" and config.training.monitor == "val_loss"
    if by_loss and not len(validation):
        raise UserError(
            "data.split.validation: no image to watch the training by; it needs one at least"
        )
    if not by_loss and not has_pairs(validation):
        other = "; or set training.monitor=val_loss" * (config.loss.name == "reconstruction")
        raise UserError(
            f"data.split.validation: {len(validation)} images are too few to watch the training "
            f"by; it needs two of one class, so give it more{other}"
        )


def _inspect(run: Run, images: ImageSet, restart: bool) -> tuple[Inspection, list[Duplicate]]:
    """The undamaged images, looked at once for the run, and those that are in two splits."""
    from cbir_tf.data.duplicates import cross_split_duplicates
    from cbir_tf.data.inspection import inspect_images, read_image_table

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
            "%d exact and %d near duplicates across the splits flatter the figures; they will be "
            "listed in training.json",
            exact,
            len(duplicates) - exact,
        )
    return inspection, duplicates


def _begin(run: Run, restart: bool, inspection: Inspection) -> None:
    """Put configuration and image table in place, once they are known to be usable."""
    from cbir_tf.data.inspection import write_image_table

    if restart:
        run.clear()
    if not run.config_file.is_file() or Run.open(run.folder).config != run.config:
        write_text(run.config_file, run.config.dump())
    if not run.images.is_file():
        write_image_table(run.images, inspection)
