"""The plan of a training: optimizer, learning rates and length, from the configuration and data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.training import Optimizer
from cbir_tf.data.sampling import steps_per_epoch
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.training.callbacks import BiTHyperRule, ScheduledRate, build_schedule
from cbir_tf.training.objectives import Objective
from cbir_tf.types import UNLABELLED, ImageSet


@dataclass(frozen=True)
class Plan:
    """How a training goes: by the configuration and the number of training images.

    Attributes:
        optimizer: a new one.
        schedule: sets its learning rate; None where the rate is constant.
        steps_per_epoch: updates in one epoch.
        epochs: at most; early stopping may end the training before.
    """

    optimizer: keras.optimizers.Optimizer
    schedule: ScheduledRate | None
    steps_per_epoch: int
    epochs: int


def make_plan(config: Config, training: ImageSet) -> Plan:
    """The plan of a configuration over its training images.

    Raises:
        UserError: TensorBoard is not installed, or the images fill no batch.
    """
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


def check_trainable(config: Config, objective: Objective, validation: ImageSet) -> None:
    """Check that there is something to train, and images to monitor the training with.

    Raises:
        UserError: there is not.
    """
    if not objective.model.trainable_variables:
        raise UserError(
            "model: there is nothing to train; set model.embedding_size or model.trainable, or "
            "training.epochs=0 to use the features as they are"
        )
    by_loss = config.loss.name == "reconstruction" and config.training.monitor == "val_loss"
    if by_loss and not len(validation):
        raise UserError(
            "data.split.validation: no image to monitor the training with; give it one or more"
        )
    if not by_loss and not has_pairs(validation):
        other = "; or set training.monitor=val_loss" * (config.loss.name == "reconstruction")
        raise UserError(
            f"data.split.validation: {len(validation)} images, no two of one class, cannot "
            f"monitor the training; give it more{other}"
        )


def has_pairs(images: ImageSet) -> bool:
    """Whether some class has two images, so that one can retrieve the other."""
    _, counts = np.unique(images.labels[images.labels != UNLABELLED], return_counts=True)
    return bool((counts > 1).any())


def _optimizer(config: Optimizer) -> keras.optimizers.Optimizer:
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
