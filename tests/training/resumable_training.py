"""A tiny training that may die at a chosen moment, and one that resumes it.

As a program, `FOLDER WIDTH MOMENT:EPOCH ...`, it dies at that moment of that epoch (from 1; 0:
never), goes on, dies at the next, and prints how each ended: its exit status, or signal below 0.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.training.callbacks import Checkpoint, RetrievalMetrics, WarmupCosine
from cbir_tf.types import Embeddings

EPOCHS, BATCHES, BATCH = 6, 4, 8
OPTIMIZERS = {
    "adam averaged": lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.8),
    "sgd": lambda: keras.optimizers.SGD(momentum=0.9),
    "adamw loss scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.AdamW(use_ema=True), initial_scale=64.0, dynamic_growth_steps=3
    ),
}


def build_model(seed: int, optimizer: str = "adam averaged", width: int = 32) -> keras.Model:
    """A model with state of every kind: weights, moving statistics, dropout seeds, averages."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(4),
        ]
    )
    model.compile(OPTIMIZERS[optimizer](), "mse")
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    return model


def embed(model: keras.Model) -> Embeddings:
    """Embeds a validation split of 24 vectors in 4 classes."""
    labels = np.arange(24) % 4
    points = np.random.default_rng(1).normal(size=(24, 6)) + np.eye(4, 6)[labels]
    vectors = model.predict(points.astype("float32"), verbose=0)
    return Embeddings(np.array([f"{number:02}" for number in range(24)]), vectors, labels)


def train(
    folder: Path,
    model: keras.Model,
    epochs: int = EPOCHS,
    monitor: str = "val_map_at_r",
    extra: Sequence[keras.callbacks.Callback] = (),
) -> Checkpoint:
    """Train to the end, from wherever the folder's checkpoint is; returns the checkpoint."""
    random = np.random.default_rng(0)
    features = random.normal(size=(BATCHES * BATCH, 6)).astype("float32")
    targets = random.normal(size=(BATCHES * BATCH, 4)).astype("float32")
    checkpoint = Checkpoint(folder, monitor)
    schedule = WarmupCosine(0.02, EPOCHS * BATCHES, warm_up_steps=5)
    model.fit(
        features,
        targets,
        batch_size=BATCH,
        shuffle=False,
        initial_epoch=checkpoint.restore(model),
        epochs=epochs,
        callbacks=[schedule, RetrievalMetrics(embed), *extra, checkpoint],
        verbose=0,
    )
    return checkpoint


class Death(keras.callbacks.Callback):
    """Kills the process, with no chance to tidy up, at a moment of an epoch.

    batch: in the middle of the epoch; write: in the middle of writing a file; os.rename: between
    writing last.npz and putting it in place; os.remove: between that and removing the best epoch
    that is superseded.
    """

    def __init__(self, moment: str, epoch: int) -> None:
        super().__init__()
        self.moment, self.dying, self.epoch = moment, epoch, 0

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None) -> None:
        if self.moment == "batch" and self.epoch == self.dying and batch == BATCHES // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None) -> None:
        if self.epoch != self.dying:
            return
        if self.moment == "write":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        elif self.moment.startswith("os."):
            sys.addaudithook(self._die)

    def _die(self, event: str, arguments: tuple) -> None:
        names = [Path(each).name for each in arguments if isinstance(each, str | Path)]
        wanted = "last.npz" if self.moment == "os.rename" else "best-"
        if event == self.moment and any(name.startswith(wanted) for name in names):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    folder, width, *deaths = sys.argv[1:]
    for death in deaths:
        moment, epoch = death.split(":")
        # Each is a process of its own, after the imports, which take longer than all it does.
        process = os.fork()
        if process == 0:
            os._exit(live(Path(folder), int(width), moment, int(epoch)))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(status, flush=True)
    return status


def live(folder: Path, width: int, moment: str, epoch: int) -> int:
    """Train, until death if it comes; the exit status."""
    model = build_model(seed=epoch, width=width)
    try:
        # Every epoch is better than the one before, by the loss.
        train(folder, model, monitor="loss", extra=[Death(moment, epoch)])
    except UserError as error:
        kept = Checkpoint(folder).restore(model)
        os.write(2, f"UserError: {error}\nkept: {kept}\n".encode())
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
