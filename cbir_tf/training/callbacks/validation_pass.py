"""The validation split through the model once, every epoch: its loss, and its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.divergence import Diverged, refuse_divergence
from cbir_tf.types import Embeddings, ImageSet

Batches = Callable[[], Iterable[tuple[Any, Any]]]
"""Makes the batches of an epoch: images, and their positions in the set; arrays or tensors."""
Figures = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
"""(images, labels, outputs) of a batch -> what it is measured by, each the mean over its images."""


class ValidationPass(keras.callbacks.Callback):
    """Adds val_loss, and whatever else a batch is measured by, to the logs of every epoch.

    Place it first: other callbacks take the embeddings from here, so that the split is embedded
    once. As a triplet loss depends on what shares a batch, the images should come in an order that
    mixes classes and stays the same. Where the optimizer averages the weights, the averages are
    what is measured.

    Args:
        observed: Images -> [embeddings, outputs], over the layers of the model that is trained.
        images: The validation split.
        batches: Of it.
        figures: Of a batch; those of the split are their means, weighted by the images, as of
            `keras.Model.evaluate`.

    Raises:
        UserError: at the end of an epoch, when the loss or an embedding is no longer finite
            (Diverged), or no image of the split can be read.
    """

    def __init__(
        self, observed: keras.Model, images: ImageSet, batches: Batches, figures: Figures
    ) -> None:
        super().__init__()
        self.observed = observed
        self.images = images
        self.batches = batches
        self.figures = figures
        self._latest: Embeddings | None = None

    def latest(self) -> Embeddings:
        """The labelled images of the split as embedded at the end of the last epoch.

        Raises:
            ValueError: there was no epoch yet: the other callback stands before this one.
        """
        if self._latest is None:
            raise ValueError("ValidationPass must come first in the list of callbacks")
        return self._latest

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        refuse_divergence(epoch, logs)
        where, vectors, figures = [], [], []
        with averaged_weights(self.model):
            for batch, positions in self.batches():
                images = np.asarray(batch)
                embedded, outputs = self.observed.predict_on_batch(images)
                where.append(np.asarray(positions))
                vectors.append(embedded)
                figures.append(self.figures(images, self.images.labels[where[-1]], outputs))
        if not where:
            raise UserError("data: none of the validation images can be read any more")
        kept = np.concatenate(where)
        labels = self.images.labels[kept]
        embedded = np.concatenate(vectors)
        # The loss is the mean over the epoch; its last step may have been the fatal one.
        if not np.isfinite(embedded).all():
            raise Diverged(epoch, "the embeddings are not finite")
        every = Embeddings(self.images.ids[kept], embedded, labels)
        self._latest = every.take(labels >= 0)
        sizes = [len(each) for each in where]
        for name in figures[0]:
            values = [each[name] for each in figures]
            logs[f"val_{name}"] = float(np.average(values, weights=sizes))
