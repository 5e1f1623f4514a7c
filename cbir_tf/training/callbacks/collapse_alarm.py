"""Warns when every image is embedded at the same place."""

from __future__ import annotations

import keras
import numpy as np

from cbir_tf.losses.distances import DistanceMetric
from cbir_tf.losses.statistics import triplet_statistics
from cbir_tf.progress import logger
from cbir_tf.training.callbacks.retrieval_metrics import RetrievalMetrics
from cbir_tf.types import Embeddings

LARGEST_SAMPLE = 1024


class CollapseAlarm(keras.callbacks.Callback):
    """Logs how far apart the validation images lie, and warns once when they have collapsed.

    Adds val_positive_distance, val_negative_distance, val_active_fraction and val_spread to the
    logs of every epoch, of at most 1,024 images; see `cbir_tf.losses.statistics`.

    Collapsed means that different classes are on average less than a tenth of the margin apart:
    as no distance is below zero, the loss of a triplet, d(anchor, positive) - d(anchor, negative)
    + margin, then averages above nine tenths of the margin and cannot leave it. It is a known end
    of triplet training with hard negatives (Schroff et al., "FaceNet", CVPR 2015, section 3.2).

    Args:
        retrieval: Has the embeddings of the epoch; place it before this one.
        margin: The loss's.
        distance_metric: The loss's.
    """

    def __init__(
        self,
        retrieval: RetrievalMetrics,
        margin: float,
        distance_metric: DistanceMetric = "L2",
    ) -> None:
        super().__init__()
        self.retrieval = retrieval
        self.margin = margin
        self.distance_metric = distance_metric
        self._warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        sample = sample_of_every_class(self.retrieval.latest(), LARGEST_SAMPLE)
        statistics = triplet_statistics(
            sample.labels, sample.vectors, self.margin, self.distance_metric
        )
        logs |= {f"val_{name}": value for name, value in statistics.items()}
        apart = statistics["negative_distance"]
        if apart < self.margin / 10 and not self._warned:
            self._warned = True
            logger.warning(
                "epoch %d: the embedding has collapsed: images of different classes are %.2g "
                "apart, spread %.2g, and the loss can hardly fall any more; lower the learning "
                "rate, warm up longer, or use loss.name=triplet_semi_hard",
                epoch + 1,
                apart,
                statistics["spread"],
            )


def sample_of_every_class(embeddings: Embeddings, size: int) -> Embeddings:
    """At most `size` embeddings: of every class the same number of first ones, at least two."""
    order = np.argsort(embeddings.labels, kind="stable")
    _, first, counts = np.unique(embeddings.labels[order], return_index=True, return_counts=True)
    rank_in_class = np.arange(len(order)) - np.repeat(first, counts)
    share = max(2, size // len(counts))
    return embeddings.take(order[rank_in_class < share][:size])
