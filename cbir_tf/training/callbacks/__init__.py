"""Keras callbacks of a training run: learning rates, validation, checkpoints."""

from __future__ import annotations

from cbir_tf.config.training import Schedule
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.checkpoint import Checkpoint
from cbir_tf.training.callbacks.collapse_alarm import CollapseAlarm
from cbir_tf.training.callbacks.divergence import Diverged
from cbir_tf.training.callbacks.early_stopping import best_epoch, should_stop
from cbir_tf.training.callbacks.progress import EpochProgress
from cbir_tf.training.callbacks.pruning import Pruning
from cbir_tf.training.callbacks.retrieval_metrics import RetrievalMetrics
from cbir_tf.training.callbacks.schedules import (
    BiTHyperRule,
    ScheduledRate,
    WarmupCosine,
    WarmupDecay,
)
from cbir_tf.training.callbacks.validation_pass import ValidationPass

__all__ = [
    "BiTHyperRule",
    "Checkpoint",
    "CollapseAlarm",
    "Diverged",
    "EpochProgress",
    "Pruning",
    "RetrievalMetrics",
    "ScheduledRate",
    "ValidationPass",
    "WarmupCosine",
    "WarmupDecay",
    "averaged_weights",
    "best_epoch",
    "build_schedule",
    "should_stop",
]


def build_schedule(
    schedule: Schedule,
    *,
    peak: float,
    steps_per_epoch: int,
    epochs: int,
    images: int,
    batch_size: int,
) -> ScheduledRate | None:
    """The callback of a configured schedule, or None for a constant rate.

    Args:
        schedule: `config.schedule`.
        peak: Highest rate of warmup_cosine; the others bring their own.
        steps_per_epoch: Updates in one epoch.
        epochs: Epochs at most.
        images: Number of training images.
        batch_size: Images in a batch.
    """
    options = schedule.model_dump(exclude={"name"})
    schedules = {
        "constant": lambda: None,
        "warmup_decay": lambda: WarmupDecay(**options, steps_per_epoch=steps_per_epoch),
        "warmup_cosine": lambda: WarmupCosine(
            peak,
            total_steps=epochs * steps_per_epoch,
            warm_up_steps=round(options["warm_up"] * steps_per_epoch),
            final=options["final"],
        ),
        "bit_hyperrule": lambda: BiTHyperRule(images, batch_size, **options),
    }
    return schedules[schedule.name]()
