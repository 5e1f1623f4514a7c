"""Keras callbacks of a training run: learning rates, validation, checkpoints."""

from __future__ import annotations

from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.checkpoint import Checkpoint
from cbir_tf.training.callbacks.collapse_alarm import CollapseAlarm
from cbir_tf.training.callbacks.divergence import Diverged
from cbir_tf.training.callbacks.early_stopping import best_epoch, should_stop
from cbir_tf.training.callbacks.epoch_progress import EpochProgress
from cbir_tf.training.callbacks.pruning import Pruning
from cbir_tf.training.callbacks.retrieval_metrics import RetrievalMetrics
from cbir_tf.training.callbacks.schedules import (
    BiTHyperRule,
    ScheduledRate,
    WarmupCosine,
    WarmupDecay,
    build_schedule,
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
