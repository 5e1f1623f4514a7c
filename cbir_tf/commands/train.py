"""train: an embedding from a configuration file."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.commands.startup import import_tensorflow
from cbir_tf.config import Config, Optimizer
from cbir_tf.config_text import describe_keys
from cbir_tf.errors import UserError
from cbir_tf.files import read_json, replacing, write_text
from cbir_tf.progress import logger
from cbir_tf.types import SPLITS, Run

if TYPE_CHECKING:
    import keras

    from callbacks import Checkpoint, ScheduledRate
    from cbir_tf.data.duplicates import Duplicate
    from cbir_tf.data.inspection import Inspection
    from cbir_tf.types import ImageSet


MONITORED = ("val_loss", "val_recall@1", "val_map_at_r")
LENGTHENED = ("constant", "warmup_decay")
"""Schedules whose learning rates do not depend on the number of epochs to come."""
_ANEW = "train all epochs with --restart, or in another --run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = "%(prog)s --config FILE [section.key=value ...] [--run DIR] [--resume]"
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a YAML file")
    parser.add_argument("--run", type=Path, metavar="DIR", help="default: runs/<config name>")
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
        try:
            train(run, arguments.restart)
        except KeyboardInterrupt:
            if checkpoint.is_file():
                raise KeyboardInterrupt("--resume goes on from here") from None
            raise
    report = read_json(run.training)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
        return
    figures = "".join(
        f", {name} {report['best'][name]:.4f}" for name in MONITORED if name in report["best"]
    )
    if report["epochs"]:
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


def train(run: Run, restart: bool = False) -> None:
    """Train the embedder of a run, from where an interruption left it; save model and curves.

    The folder is not touched before data and model have proved usable.

    Raises:
        UserError: unusable data, model or folder, or a training that diverges.
    """
    import keras

    from cbir_tf.commands.pictures import draw_samples
    from cbir_tf.data.sources import load_images
    from cbir_tf.models import build_embedder

    config = run.config
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)
    # The model first: a misspelt backbone should not wait until all images have been looked at.
    images = load_images(config.data, config.seed)
    embedder = build_embedder(config.model, config.seed)
    inspection, duplicates = _inspect(run, images, restart)
    images = inspection.images
    training = images.of_split("train")
    plan = _plan(config, training)
    if plan.epochs and not embedder.trainable_variables:
        raise UserError(
            "model: there is nothing to train; set model.embedding_size or model.trainable, or "
            "training.epochs=0 to use the features as they are"
        )
    validation = images.of_split("validation")
    if plan.epochs and len(np.unique(validation.labels)) == len(validation):
        raise UserError(
            f"data.split.validation: {len(validation)} images are too few to watch the training "
            "by; it needs two of one class, so give it more"
        )
    _begin(run, restart, inspection)
    draw_samples(run, training)

    report: dict[str, Any] = {"epochs": 0, "best_epoch": 0, "best": {}, "seconds": 0.0}
    if plan.epochs:
        report = _fit(run, embedder, images, plan)
    report |= {
        "class_names": images.class_names,
        "damaged": dict(inspection.damaged),
        "duplicates": [asdict(each) for each in duplicates],
    }
    write_text(run.training, json.dumps(report, indent=2, ensure_ascii=False))
    # The model comes last: where it is, the run is complete.
    with replacing(run.model) as temporary:
        embedder.save(temporary)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class _Plan:
    """What follows from the configuration and the number of training images."""

    optimizer: keras.optimizers.Optimizer
    schedule: ScheduledRate | None
    steps_per_epoch: int
    epochs: int


def _plan(config: Config, training: ImageSet) -> _Plan:
    from callbacks import BiTHyperRule, build_schedule
    from cbir_tf.data.sampling import steps_per_epoch

    if config.training.tensorboard and not find_spec("tensorboard"):
        raise UserError(
            "training.tensorboard: TensorBoard is not installed; pip install 'cbir-tf[tensorboard]'"
        )
    batch = config.data.batch
    steps = config.training.steps_per_epoch or steps_per_epoch(training.labels, batch)
    size = batch.size if batch.sampler == "shuffled" else batch.classes * batch.images_per_class
    schedule = build_schedule(
        config.schedule,
        peak=config.optimizer.learning_rate,
        steps_per_epoch=steps,
        epochs=config.training.epochs,
        images=len(training),
        batch_size=size,
    )
    if isinstance(schedule, BiTHyperRule):
        if schedule.mixup:
            logger.info("bit_hyperrule: MixUp mixes classes and is left out of triplet training")
        epochs = math.ceil(schedule.total_steps / steps)
        return _Plan(schedule.optimizer(), schedule, steps, epochs)
    return _Plan(_optimizer(config.optimizer), schedule, steps, config.training.epochs)


def _optimizer(config: Optimizer) -> keras.optimizers.Optimizer:
    import keras

    makers: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": partial(keras.optimizers.SGD, momentum=config.momentum),
        "rmsprop": partial(keras.optimizers.RMSprop, momentum=config.momentum),
    }
    options: dict[str, Any] = {"global_clipnorm": config.clip_norm}
    if config.weight_decay is not None:
        options["weight_decay"] = config.weight_decay
    if config.average is not None:
        options |= {"use_ema": True, "ema_momentum": config.average}
    return makers[config.name](config.learning_rate, **options)


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


def _fit(run: Run, embedder: keras.Model, images: ImageSet, plan: _Plan) -> dict[str, Any]:
    """Train to the end or to the early stop; leaves the embedder with its best weights.

    Returns:
        Number of epochs, the best one and its figures, seconds since this process began to train.
    """
    import keras

    from cbir_tf.commands.pictures import draw_curves
    from cbir_tf.losses import build_loss
    from cbir_tf.models import frozen_batch_norm_digest

    started = time.monotonic()
    frozen = frozen_batch_norm_digest(embedder)
    # Compiling a twin over the same layers keeps the optimizer out of the saved embedder.
    model = keras.Model(embedder.inputs, embedder.outputs)
    model.compile(plan.optimizer, build_loss(run.config.loss), jit_compile=False)
    checkpoint = _run_epochs(run, model, images, plan)
    best_epoch = checkpoint.load_best(model)
    if frozen_batch_norm_digest(embedder) != frozen:
        raise RuntimeError("frozen batch normalisation changed while training")
    checkpoint.write_history(run.history)
    draw_curves(run, checkpoint.history, plan.schedule, plan.steps_per_epoch)
    best = {k: v for k, v in checkpoint.history[best_epoch - 1].items() if k != "epoch"}
    return {
        "epochs": len(checkpoint.history),
        "best_epoch": best_epoch,
        "best": best,
        "seconds": round(time.monotonic() - started, 1),
    }


def _run_epochs(run: Run, model: keras.Model, images: ImageSet, plan: _Plan) -> Checkpoint:
    """The epochs that are still to do."""
    import keras

    from callbacks import Checkpoint, CollapseAlarm, RetrievalMetrics, ValidationLoss
    from callbacks.progress import EpochProgress
    from cbir_tf.data.batches import training_batches
    from cbir_tf.features.encode import embed
    from cbir_tf.features.runtime import predict

    config = run.config
    validation = images.of_split("validation")
    order = np.random.default_rng(config.seed).permutation(len(validation))
    validation = validation.take(order)
    metrics = RetrievalMetrics(
        lambda model: embed(partial(predict, model), validation, config.data), config.search.metric
    )
    stopping = config.training.early_stopping
    checkpoint = Checkpoint(
        run.checkpoints, config.training.monitor, stopping.patience, stopping.min_delta
    )
    first_epoch = checkpoint.restore(model)
    if checkpoint.stopped or first_epoch == plan.epochs:
        return checkpoint
    if first_epoch:
        logger.info("going on after epoch %d", first_epoch)
    callbacks = [
        metrics,
        ValidationLoss(metrics, model.loss, config.data.batch.size),
        CollapseAlarm(metrics, config.loss.margin, config.loss.distance),
    ]
    if plan.schedule is not None:
        callbacks.append(plan.schedule)
    if config.training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(run.logs))
    shown = EpochProgress(plan.epochs, plan.steps_per_epoch, first_epoch)
    callbacks += [shown, checkpoint]
    batches = training_batches(
        images.of_split("train"),
        config.data,
        config.seed,
        first_epoch,
        plan.epochs - first_epoch,
        steps=plan.steps_per_epoch,
    )
    try:
        model.fit(
            batches,
            initial_epoch=first_epoch,
            epochs=plan.epochs,
            steps_per_epoch=plan.steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # the data set brings its order
            verbose=0,
        )
    finally:
        shown.bar.close()
    return checkpoint
