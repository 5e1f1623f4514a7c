"""A warning when all images are embedded at one point."""

from __future__ import annotations

import keras
import numpy as np

from cbir_tf.losses.distances import DistanceMetric
from cbir_tf.losses.statistics import triplet_statistics
from cbir_tf.progress import logger
from cbir_tf.training.callbacks.retrieval_metrics import RetrievalMetrics
from cbir_tf.types import Embeddings

SAMPLE_SIZE = 1024
"""Validation images measured after every epoch, at most."""
COLLAPSE_THRESHOLD = 0.1
"""Mean distance between classes, as a share of the margin, below which a model has collapsed."""
COLLAPSED_SPREAD = 0.01
"""Spread, as a share of the vectors' length, up to which it has whatever the margin."""


class CollapseAlarm(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Logs distances between the validation images, and warns once when they have collapsed.

    Adds val_positive_distance, val_negative_distance, val_active_fraction and val_spread to the
    logs of every epoch, over at most 1,024 images; see `cbir_tf.losses.statistics`.

    An embedding has collapsed when images of different classes are on average less than a tenth of
    the margin apart: no distance is below zero, so the loss of a triplet, d(anchor, positive) -
    d(anchor, negative) + margin, then averages above nine tenths of the margin. It is a known
    outcome of training with hard negatives (Schroff et al., "FaceNet", CVPR 2015, section 3.2).
    With a small margin, or none, as with the soft margin, that says nothing: it has collapsed too
    when the embeddings are spread by a hundredth of their root mean square length or less.

    Args:
        retrieval: gives the embeddings of the epoch; place it before this callback.
        margin: of the loss.
        distance_metric: of the loss.

    Example:
        >>> from cbir_tf.losses import TripletSemiHardLoss
        >>> points, labels = np.eye(8, dtype=np.float32), np.arange(8) % 2
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", TripletSemiHardLoss(margin=0.2))
        >>> retrieval = RetrievalMetrics(
        ...     lambda model: Embeddings(list("abcdefgh"), model.predict_on_batch(points), labels)
        ... )
        >>> callbacks = [retrieval, CollapseAlarm(retrieval, margin=0.2)]
        >>> history = model.fit(points, labels, batch_size=8, callbacks=callbacks, verbose=0)
        >>> "val_spread" in history.history
        True
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
        sample = sample_of_every_class(self.retrieval.latest(), SAMPLE_SIZE)
        statistics = triplet_statistics(
            sample.labels, sample.vectors, self.margin, self.distance_metric
        )
        logs |= {f"val_{name}": value for name, value in statistics.items()}
        between_classes, spread = statistics["negative_distance"], statistics["spread"]
        length = float(np.sqrt(np.square(sample.vectors, dtype=np.float64).sum(axis=1).mean()))
        is_near = between_classes < COLLAPSE_THRESHOLD * self.margin
        if (is_near or spread <= COLLAPSED_SPREAD * length) and not self._warned:
            self._warned = True
            logger.warning(
                "epoch %d: the embedding has collapsed: images of different classes are %.2g "
                "apart (spread %.2g), so the loss can hardly fall; lower the learning rate, warm "
                "up longer, or use loss.name=triplet_semi_hard",
                epoch + 1,
                between_classes,
                spread,
            )


def sample_of_every_class(embeddings: Embeddings, size: int) -> Embeddings:
    """At most `size` embeddings: the first ones of every class, as many of each, at least two."""
    order = np.argsort(embeddings.labels, kind="stable")
    _, first, counts = np.unique(embeddings.labels[order], return_index=True, return_counts=True)
    rank_in_class = np.arange(len(order)) - np.repeat(first, counts)
    share = max(2, size // len(counts))
    return embeddings.take(order[rank_in_class < share][:size])
