"""The loss on the validation split, from the embeddings that the retrieval metrics used."""

from __future__ import annotations

import keras
import numpy as np

from callbacks.retrieval_metrics import RetrievalMetrics


class ValidationLoss(keras.callbacks.Callback):
    """Adds val_loss to the logs of every epoch, without embedding the split a second time.

    Place it between `retrieval` and whatever reads val_loss. As a triplet loss depends on what
    shares a batch, the embeddings should come in an order that mixes classes and stays the same.

    Args:
        retrieval: Has the embeddings of the epoch.
        loss: The training's.
        batch_size: Consecutive embeddings that share a loss; val_loss is the mean over batches,
            weighted by size, as of `keras.Model.evaluate`.
    """

    def __init__(
        self, retrieval: RetrievalMetrics, loss: keras.losses.Loss, batch_size: int
    ) -> None:
        super().__init__()
        self.retrieval = retrieval
        self.loss = loss
        self.batch_size = batch_size

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        embeddings = self.retrieval.latest()
        cuts = range(self.batch_size, len(embeddings), self.batch_size)
        batches = zip(
            np.split(embeddings.labels, cuts), np.split(embeddings.vectors, cuts), strict=True
        )
        losses, sizes = zip(
            *((float(self.loss(labels, vectors)), len(labels)) for labels, vectors in batches),
            strict=True,
        )
        logs["val_loss"] = float(np.average(losses, weights=sizes))
