"""Retrieval metrics on the validation split, every epoch."""

from __future__ import annotations

from collections.abc import Callable

import keras

from cbir_tf.evaluation import evaluate
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.divergence import refuse_divergence
from cbir_tf.types import Embeddings


class RetrievalMetrics(keras.callbacks.Callback):
    """Adds val_recall@1 and val_map_at_r (leave-one-out) to the logs of every epoch.

    Place it before whatever reads them: early stopping, checkpoints, TensorBoard. Where the
    optimizer averages the weights, the averages are what is measured.

    Args:
        embed: Embeds the validation split with the model as it is.
        metric: Distance, under the names of `config.search.metric`.

    Raises:
        UserError: at the end of an epoch, when the loss is no longer a finite number, or no
            class has two validation images.
    """

    def __init__(self, embed: Callable[[keras.Model], Embeddings], metric: str = "cosine") -> None:
        super().__init__()
        self.embed = embed
        self.metric = metric
        self._latest: Embeddings | None = None

    def latest(self) -> Embeddings:
        """The validation split as embedded at the end of the last epoch, for other callbacks.

        Raises:
            ValueError: there was no epoch yet: the other callback stands before this one.
        """
        if self._latest is None:
            raise ValueError("RetrievalMetrics must come first in the list of callbacks")
        return self._latest

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        refuse_divergence(epoch, logs)
        with averaged_weights(self.model):
            self._latest = self.embed(self.model)
        figures = evaluate(self._latest, None, k=(1,), metric=self.metric)["figures"]
        logs["val_recall@1"] = figures["recall@1"]
        logs["val_map_at_r"] = figures["map_at_r"]
