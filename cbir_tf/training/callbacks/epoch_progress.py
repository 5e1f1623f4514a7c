"""Progress of `fit` on standard error; Keras's own bar goes to standard output."""

from __future__ import annotations

import keras

from cbir_tf.progress import logger, progress


class EpochProgress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """One bar over all steps, with rate and time left, and a line of metrics for every epoch.

    Place it after every callback that adds to the logs; close `bar` when `fit` has ended.

    Args:
        epochs: of the training, at most.
        steps_per_epoch: updates in one epoch.
        first_epoch: epochs finished before.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> shown = EpochProgress(epochs=2, steps_per_epoch=1)
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(x, y, epochs=2, callbacks=[shown], verbose=0)
        >>> shown.bar.close()
    """

    def __init__(self, epochs: int, steps_per_epoch: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.epochs = epochs
        self.bar = progress(
            total=epochs * steps_per_epoch,
            initial=first_epoch * steps_per_epoch,
            description="train",
            unit="steps",
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d/%d  %s", epoch + 1, self.epochs, metrics)
