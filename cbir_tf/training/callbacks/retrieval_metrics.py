"""Retrieval metrics on the validation split, every epoch."""

from __future__ import annotations

from collections.abc import Callable

import keras

from cbir_tf.evaluation import figures_to_r
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.divergence import check_finite
from cbir_tf.types import Embeddings


class RetrievalMetrics(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Adds val_recall@1 and val_map_at_r (leave-one-out) to the logs of every epoch.

    Place it before callbacks that read them: early stopping, checkpoints, TensorBoard. Where the
    optimizer averages the weights, the averaged model is measured.

    Args:
        embed: from the model, in its present state, to the embeddings of the validation split.
        metric: distance, by the names of `config.search.metric`.

    Raises:
        UserError: at the end of an epoch, when the loss is no longer a finite number, or no
            class has two validation images.

    Example:
        >>> import numpy as np
        >>> points, labels = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> retrieval = RetrievalMetrics(
        ...     lambda model: Embeddings(list("abcd"), model.predict_on_batch(points), labels)
        ... )
        >>> history = model.fit(points, np.ones((4, 2)), callbacks=[retrieval], verbose=0)
        >>> sorted(history.history)
        ['loss', 'val_map_at_r', 'val_recall@1']
    """

    def __init__(self, embed: Callable[[keras.Model], Embeddings], metric: str = "cosine") -> None:
        super().__init__()
        self.embed = embed
        self.metric = metric
        self._latest: Embeddings | None = None

    def latest(self) -> Embeddings:
        """The embeddings of the validation split after the last epoch, for other callbacks.

        Raises:
            ValueError: no epoch has ended: the other callback is placed before this one.
        """
        if self._latest is None:
            raise ValueError("RetrievalMetrics must come first in the list of callbacks")
        return self._latest

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        check_finite(epoch, logs)
        with averaged_weights(self.model):
            self._latest = self.embed(self.model)
        figures = figures_to_r(self._latest, self.metric)
        logs |= {f"val_{name}": value for name, value in figures.items()}
