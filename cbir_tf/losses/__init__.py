"""Losses over the embeddings of a batch, and the distances they use.

A loss is a pure function of labels and embeddings (or of similarities to proxies), a thin class
over it for Keras, and a line in LOSSES.
"""

from __future__ import annotations

from cbir_tf.config.losses import Loss
from cbir_tf.losses.keras_losses import (
    ArcFaceLoss,
    BatchLoss,
    CircleLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    SmoothAPLoss,
    SupervisedContrastiveLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
)
from cbir_tf.losses.pairs import (
    circle_loss,
    contrastive_loss,
    multi_similarity_loss,
    supervised_contrastive_loss,
)
from cbir_tf.losses.proxies import arcface_loss, proxy_anchor_loss, proxy_nca_loss
from cbir_tf.losses.ranking import smooth_ap_loss
from cbir_tf.losses.statistics import triplet_statistics
from cbir_tf.losses.triplet import triplet_hard_loss, triplet_semihard_loss

__all__ = [
    "LOSSES",
    "ArcFaceLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "MultiSimilarityLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SmoothAPLoss",
    "SupervisedContrastiveLoss",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "arcface_loss",
    "build_loss",
    "circle_loss",
    "contrastive_loss",
    "multi_similarity_loss",
    "proxy_anchor_loss",
    "proxy_nca_loss",
    "smooth_ap_loss",
    "supervised_contrastive_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
    "triplet_statistics",
]

LOSSES: dict[str, type[BatchLoss]] = {
    "triplet_semi_hard": TripletSemiHardLoss,
    "triplet_hard": TripletHardLoss,
    "contrastive": ContrastiveLoss,
    "multi_similarity": MultiSimilarityLoss,
    "supervised_contrastive": SupervisedContrastiveLoss,
    "circle": CircleLoss,
    "smooth_ap": SmoothAPLoss,
    "proxy_anchor": ProxyAnchorLoss,
    "proxy_nca": ProxyNCALoss,
    "arcface": ArcFaceLoss,
}
"""Classes by `loss.name` in the configuration, whose other keys are their arguments."""

# Keys of a loss section that are no arguments of the loss.
_OTHER_KEYS = {"name", "distance", "proxies_per_class", "proxy_rate"}


def build_loss(config: Loss) -> BatchLoss:
    """The loss of a configuration's `loss` section.

    Example:
        >>> from cbir_tf.config.losses import HardTriplets
        >>> build_loss(HardTriplets(margin=0.3, soft=True)).get_config()["soft"]
        True
    """
    arguments = config.model_dump(exclude=_OTHER_KEYS)
    if hasattr(config, "distance"):
        arguments["distance_metric"] = config.distance
    return LOSSES[config.name](**arguments)
