"""Training an embedding: `train`, and the objectives, epochs, callbacks and checkpoints behind it.

from cbir_tf.training import train, WarmupDecay
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbir_tf.training.callbacks import (
        BiTHyperRule,
        Checkpoint,
        CollapseAlarm,
        Diverged,
        EpochProgress,
        Pruning,
        RetrievalMetrics,
        ScheduledRate,
        ValidationPass,
        WarmupCosine,
        WarmupDecay,
        averaged_weights,
        best_epoch,
        build_schedule,
        should_stop,
    )
    from cbir_tf.training.from_config import train

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
    "train",
]


def __getattr__(name: str) -> object:
    # Imported when first used: the command line must not wait for TensorFlow.
    if name not in __all__:
        raise AttributeError(f"module 'cbir_tf.training' has no attribute {name!r}")
    module = "from_config" if name == "train" else "callbacks"
    return getattr(importlib.import_module(f"cbir_tf.training.{module}"), name)
