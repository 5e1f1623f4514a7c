"""The training itself: epochs to the end or to the early stop, from wherever a checkpoint is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.training import Optimizer, Triplets
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.files import replacing
from cbir_tf.types import UNLABELLED

if TYPE_CHECKING:
    import keras

    from cbir_tf.training.callbacks import Checkpoint, ScheduledRate
    from cbir_tf.training.objectives import Objective
    from cbir_tf.types import ImageSet


@dataclass(frozen=True)
class Plan:
    """What follows from the configuration and the number of training images."""

    optimizer: keras.optimizers.Optimizer
    schedule: ScheduledRate | None
    steps_per_epoch: int
    epochs: int


def make_plan(config: Config, training: ImageSet) -> Plan:
    """Optimizer, schedule and length of a training.

    Raises:
        UserError: TensorBoard is not installed, or there is nothing to make batches of.
    """
    from cbir_tf.data.sampling import steps_per_epoch
    from cbir_tf.training.callbacks import BiTHyperRule, build_schedule

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
            logger.info("bit_hyperrule: MixUp mixes classes and is left out")
        epochs = math.ceil(schedule.total_steps / steps)
        return Plan(schedule.optimizer(), schedule, steps, epochs)
    return Plan(_optimizer(config.optimizer), schedule, steps, config.training.epochs)


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


def fit(
    run: Run,
    objective: Objective,
    images: ImageSet,
    plan: Plan,
    further: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Train to the end or to the early stop; leaves the embedder with its best weights.

    A classifier or auto-encoder is saved beside where the embedder goes.

    Args:
        run: where to.
        objective: of the training.
        images: of all splits.
        plan: of the training.
        further: callbacks that come after the checkpoint.

    Returns:
        Number of epochs, the best one and its figures, seconds since this process began to train.
    """
    from cbir_tf.models import frozen_batch_norm_digest
    from cbir_tf.training.pictures import draw_curves, draw_reconstructions

    started = time.monotonic()
    frozen = frozen_batch_norm_digest(objective.embedder)
    # Built here, since variables made in the first step have the step traced twice.
    plan.optimizer.build(objective.twin.trainable_variables)
    objective.twin.compile(plan.optimizer, objective.loss, jit_compile=False)
    checkpoint = _run_epochs(run, objective, images, plan, further)
    best_epoch = checkpoint.load_best(objective.twin)
    if frozen_batch_norm_digest(objective.embedder) != frozen:
        raise RuntimeError("frozen batch normalisation changed while training")
    checkpoint.write_history(run.history)
    draw_curves(run, checkpoint.history, plan.schedule, plan.steps_per_epoch)
    if objective.companion is not None:
        with replacing(run.folder / f"{objective.companion.name}.keras") as temporary:
            objective.companion.save(temporary)
        if objective.companion.name == "autoencoder":
            draw_reconstructions(run, images.of_split("validation"), objective)
    best = {k: v for k, v in checkpoint.history[best_epoch - 1].items() if k != "epoch"}
    return {
        "epochs": len(checkpoint.history),
        "best_epoch": best_epoch,
        "best": best,
        "seconds": round(time.monotonic() - started, 1),
    }


def _run_epochs(
    run: Run,
    objective: Objective,
    images: ImageSet,
    plan: Plan,
    further: Sequence[keras.callbacks.Callback],
) -> Checkpoint:
    """The epochs that are still to do."""
    import keras

    from cbir_tf.data.batches import training_batches
    from cbir_tf.training.callbacks import Checkpoint
    from cbir_tf.training.callbacks.progress import EpochProgress

    config = run.config
    stopping = config.training.early_stopping
    checkpoint = Checkpoint(
        run.checkpoints, config.training.monitor, stopping.patience, stopping.min_delta
    )
    first_epoch = checkpoint.restore(objective.twin)
    if checkpoint.stopped or first_epoch == plan.epochs:
        return checkpoint
    if first_epoch:
        logger.info("going on after epoch %d", first_epoch)
    callbacks = _watching(config, objective, images.of_split("validation"))
    if plan.schedule is not None:
        callbacks.append(plan.schedule)
    if config.training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(run.logs))
    shown = EpochProgress(plan.epochs, plan.steps_per_epoch, first_epoch)
    callbacks += [shown, checkpoint, *further]
    batches = training_batches(
        images.of_split("train"),
        config.data,
        config.seed,
        first_epoch,
        plan.epochs - first_epoch,
        steps=plan.steps_per_epoch,
    )
    try:
        objective.twin.fit(
            objective.batches(batches, config.seed, first_epoch * plan.steps_per_epoch),
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


def _watching(
    config: Config, objective: Objective, validation: ImageSet
) -> list[keras.callbacks.Callback]:
    """What looks at the validation split after every epoch."""
    from cbir_tf.data.batches import inference_batches
    from cbir_tf.training.callbacks import CollapseAlarm, RetrievalMetrics, ValidationPass

    order = np.random.default_rng(config.seed).permutation(len(validation))
    validation = validation.take(order)
    # A classifier of classes that it never saw has neither loss nor accuracy.
    unseen = config.loss.name == "cross_entropy" and config.data.split.by == "class"
    seen = ValidationPass(
        objective.observed,
        validation,
        lambda: inference_batches(validation, config.data),
        (lambda *batch: {}) if unseen else objective.figures,
    )
    callbacks: list[keras.callbacks.Callback] = [seen]
    if has_pairs(validation):
        metrics = RetrievalMetrics(lambda model: seen.latest(), config.search.metric)
        callbacks.append(metrics)
        if isinstance(config.loss, Triplets):
            callbacks.append(CollapseAlarm(metrics, config.loss.margin, config.loss.distance))
    return callbacks


def has_pairs(images: ImageSet) -> bool:
    """Whether some class has two images, so that one can find the other."""
    _, counts = np.unique(images.labels[images.labels != UNLABELLED], return_counts=True)
    return bool((counts > 1).any())
