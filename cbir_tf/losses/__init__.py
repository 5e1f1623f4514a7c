"""Triplet losses under TensorFlow Addons' names, and the distances beneath them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cbir_tf.config.training import Triplets
from cbir_tf.losses.keras_losses import TripletHardLoss, TripletLoss, TripletSemiHardLoss
from cbir_tf.losses.statistics import triplet_statistics
from cbir_tf.losses.triplet import triplet_hard_loss, triplet_semihard_loss

__all__ = [
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "build_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
    "triplet_statistics",
]

LOSSES: dict[str, Callable[[Any], TripletLoss]] = {
    "triplet_semi_hard": lambda config: TripletSemiHardLoss(config.margin, config.distance),
    "triplet_hard": lambda config: TripletHardLoss(config.margin, config.soft, config.distance),
}


def build_loss(config: Triplets) -> TripletLoss:
    """The triplet loss that a configuration's `loss` section names."""
    return LOSSES[config.name](config)
