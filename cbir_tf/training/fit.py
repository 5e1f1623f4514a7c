"""The epochs of a training, from its last checkpoint to the end or the early stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.losses import Pairs, Triplets
from cbir_tf.data.batches import inference_batches, training_batches
from cbir_tf.models import frozen_batch_norm_digest
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.files import replacing
from cbir_tf.training.callbacks import (
    Checkpoint,
    CollapseAlarm,
    EpochProgress,
    RetrievalMetrics,
    ValidationPass,
)
from cbir_tf.training.objectives import Objective
from cbir_tf.training.plan import Plan, has_pairs
from cbir_tf.training.training_plots import draw_curves, draw_reconstructions
from cbir_tf.types import ImageSet


@dataclass(frozen=True)
class FitResult:
    """The result of the epochs, as training.json holds it.

    Attributes:
        epochs: trained in all, earlier processes' included.
        best_epoch: from 1.
        best: the logs of the best epoch, by name.
        seconds: since this process began to train.
    """

    epochs: int
    best_epoch: int
    best: dict[str, float]
    seconds: float


def fit(
    run: Run,
    objective: Objective,
    images: ImageSet,
    plan: Plan,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FitResult:
    """Train to the end or to the early stop; the embedder then has the weights of the best epoch.

    Writes history.csv, the curves and, for a classifier or auto-encoder, its own model file.

    Args:
        run: where checkpoints and results go.
        objective: of the training.
        images: of all splits.
        plan: of the training.
        callbacks: further ones, which come after the checkpoint.

    Raises:
        UserError: the training diverges, no epoch has a finite monitor, or the disk is full.
    """
    started = time.monotonic()
    frozen = frozen_batch_norm_digest(objective.embedder)
    # Built here, since variables made in the first step have the step traced twice.
    plan.optimizer.build(objective.model.trainable_variables)
    objective.model.compile(plan.optimizer, objective.loss, jit_compile=False)
    checkpoint = _train_epochs(run, objective, images, plan, callbacks)
    best_epoch = checkpoint.load_best(objective.model)
    if frozen_batch_norm_digest(objective.embedder) != frozen:
        raise RuntimeError("frozen batch normalisation changed while training")
    checkpoint.write_history(run.history)
    draw_curves(run, checkpoint.history, best_epoch, plan.schedule, plan.steps_per_epoch)
    if objective.saved_model is not None:
        with replacing(run.folder / f"{objective.saved_model.name}.keras") as temporary:
            objective.saved_model.save(temporary)
        if objective.saved_model.name == "autoencoder":
            draw_reconstructions(run, images.of_split("validation"), objective)
    logs = checkpoint.history[best_epoch - 1]
    return FitResult(
        epochs=len(checkpoint.history),
        best_epoch=best_epoch,
        best={name: value for name, value in logs.items() if name != "epoch"},
        seconds=round(time.monotonic() - started, 1),
    )


def _train_epochs(
    run: Run,
    objective: Objective,
    images: ImageSet,
    plan: Plan,
    further: Sequence[keras.callbacks.Callback],
) -> Checkpoint:
    """Train the epochs that remain after the last checkpoint."""
    config = run.config
    stopping = config.training.early_stopping
    checkpoint = Checkpoint(
        run.checkpoints, config.training.monitor, stopping.patience, stopping.min_delta
    )
    first_epoch = checkpoint.restore(objective.model)
    if checkpoint.stopped or first_epoch == plan.epochs:
        return checkpoint
    if first_epoch:
        logger.info("resuming after epoch %d", first_epoch)
    callbacks = _validation_callbacks(config, objective, images.of_split("validation"))
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
        objective.model.fit(
            objective.batches(batches, config.seed, first_epoch * plan.steps_per_epoch),
            initial_epoch=first_epoch,
            epochs=plan.epochs,
            steps_per_epoch=plan.steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # the data set is in its order already
            verbose=0,
        )
    finally:
        shown.bar.close()
    return checkpoint


def _validation_callbacks(
    config: Config, objective: Objective, validation: ImageSet
) -> list[keras.callbacks.Callback]:
    """What measures the validation split after every epoch."""
    order = np.random.default_rng(config.seed).permutation(len(validation))
    validation = validation.take(order)
    # There is neither loss nor accuracy over classes that the outputs do not count.
    unseen = objective.has_class_outputs and config.data.split.by == "class"
    validation_pass = ValidationPass(
        objective.validation_model,
        validation,
        lambda: inference_batches(validation, config.data),
        (lambda images, labels, outputs: {}) if unseen else objective.batch_metrics,
    )
    callbacks: list[keras.callbacks.Callback] = [validation_pass]
    if has_pairs(validation):
        metrics = RetrievalMetrics(lambda model: validation_pass.latest(), config.search.metric)
        callbacks.append(metrics)
        if isinstance(config.loss, Triplets | Pairs):
            margin = getattr(config.loss, "margin", 0.0)
            distance = getattr(config.loss, "distance", "L2")
            callbacks.append(CollapseAlarm(metrics, margin, distance))
    return callbacks
