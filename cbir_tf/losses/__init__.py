"""Triplet losses with TensorFlow Addons' names, and the distances they use.

A new triplet loss is a class of its own and a line in LOSSES.
"""

from __future__ import annotations

from cbir_tf.config.training import Triplets
from cbir_tf.losses.keras_losses import TripletHardLoss, TripletLoss, TripletSemiHardLoss
from cbir_tf.losses.statistics import triplet_statistics
from cbir_tf.losses.triplet import triplet_hard_loss, triplet_semihard_loss

__all__ = [
    "LOSSES",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "build_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
    "triplet_statistics",
]

LOSSES: dict[str, type[TripletLoss]] = {
    "triplet_semi_hard": TripletSemiHardLoss,
    "triplet_hard": TripletHardLoss,
}
"""Classes by `loss.name` in the configuration, whose other keys are their arguments."""


def build_loss(config: Triplets) -> TripletLoss:
    """The triplet loss of a configuration's `loss` section.

    Example:
        >>> from cbir_tf.config.training import HardTriplets
        >>> build_loss(HardTriplets(margin=0.3, soft=True)).get_config()["soft"]
        True
    """
    arguments = config.model_dump(exclude={"name", "distance"})
    return LOSSES[config.name](distance_metric=config.distance, **arguments)
