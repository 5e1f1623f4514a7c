"""One pass of the validation split through the model every epoch: its loss and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.divergence import Diverged, check_finite
from cbir_tf.types import Embeddings, ImageSet

Batches = Callable[[], Iterable[tuple[Any, Any]]]
"""The batches of one pass: images, and their positions in the set; arrays or tensors."""
BatchMetrics = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
"""(images, labels, outputs) of a batch -> its metrics by name, each the mean over its images."""


class ValidationPass(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Adds val_loss, and further metrics of the validation batches, to the logs of every epoch.

    Place it first: other callbacks take the embeddings from here, so that the split is embedded
    once. A triplet loss depends on which images share a batch, so their order should mix the
    classes and stay the same. Where the optimizer averages the weights, the averaged model is
    measured.

    Args:
        validation_model: images -> [embeddings, outputs], over the layers of the trained model.
        images: the validation split.
        batches: of the split.
        batch_metrics: of one batch; those of the split are their means, weighted by the number of
            images, as of `keras.Model.evaluate`.

    Raises:
        UserError: at the end of an epoch, when the loss or an embedding is no longer finite
            (Diverged), or no image of the split can be read.

    Example:
        >>> points, labels = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> images = ImageSet(list("abcd"), [b""] * 4, labels, ["validation"] * 4, ["x", "y"])
        >>> validation = ValidationPass(
        ...     keras.Model(model.inputs, [model.outputs[0], model.outputs[0]]),
        ...     images,
        ...     lambda: [(points, np.arange(4))],
        ...     lambda images, labels, outputs: {"loss": float(np.mean((outputs - 1) ** 2))},
        ... )
        >>> history = model.fit(points, np.ones((4, 1)), callbacks=[validation], verbose=0)
        >>> "val_loss" in history.history, validation.latest().vectors.shape
        (True, (4, 1))
    """

    def __init__(
        self,
        validation_model: keras.Model,
        images: ImageSet,
        batches: Batches,
        batch_metrics: BatchMetrics,
    ) -> None:
        super().__init__()
        self.validation_model = validation_model
        self.images = images
        self.batches = batches
        self.batch_metrics = batch_metrics
        self._latest: Embeddings | None = None

    def latest(self) -> Embeddings:
        """The embeddings of the split's labelled images after the last epoch.

        Raises:
            ValueError: no epoch has ended: the other callback is placed before this one.
        """
        if self._latest is None:
            raise ValueError("ValidationPass must come first in the list of callbacks")
        return self._latest

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        check_finite(epoch, logs)
        where, vectors, metrics = [], [], []
        with averaged_weights(self.model):
            for batch, positions in self.batches():
                images = np.asarray(batch)
                embedded, outputs = self.validation_model.predict_on_batch(images)
                where.append(np.asarray(positions))
                vectors.append(embedded)
                metrics.append(self.batch_metrics(images, self.images.labels[where[-1]], outputs))
        if not where:
            raise UserError(
                "data: none of the validation images could be read; restore their files"
            )
        kept = np.concatenate(where)
        labels = self.images.labels[kept]
        embedded = np.concatenate(vectors)
        # The loss is the mean over the epoch; its last step may have been the fatal one.
        if not np.isfinite(embedded).all():
            raise Diverged(epoch, "the embeddings are not finite")
        every = Embeddings(self.images.ids[kept], embedded, labels)
        self._latest = every.take(labels >= 0)
        sizes = [len(each) for each in where]
        for name in metrics[0]:
            values = [each[name] for each in metrics]
            logs[f"val_{name}"] = float(np.average(values, weights=sizes))
