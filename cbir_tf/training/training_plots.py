"""The pictures of a training: classes, samples, curves, reconstructions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cbir_tf.data.augment import augment
from cbir_tf.data.decode import decode_image
from cbir_tf.plots.classes import class_counts
from cbir_tf.plots.curves import learning_rate_curve, loss_curves
from cbir_tf.plots.grids import augmentation_grid, reconstruction_grid, sample_grid
from cbir_tf.plots.layout import spread
from cbir_tf.run import Run
from cbir_tf.training.callbacks import ScheduledRate
from cbir_tf.training.objectives import Objective, as_pixels, with_noise
from cbir_tf.types import ImageSet

SAMPLES = 20
AUGMENTED_IMAGES = 4
AUGMENTED_VARIANTS = 6
RECONSTRUCTIONS = 8


def draw_classes(run: Run, images: ImageSet) -> None:
    """How many images each class has."""
    title = f"{run.config.name}: {len(images):,} images by class"
    class_counts(run.plots / "classes.png", images.labels, images.split, images.class_names, title)


def draw_samples(run: Run, training: ImageSet) -> None:
    """Some training images as the model sees them, and, with an embedder, augmented variants."""
    data = run.config.data
    chosen = training.take(spread(training.labels, SAMPLES, run.config.seed))
    images = [decode_image(each, data.image_size, data.resize) for each in chosen.sources]
    names = [(*training.class_names, "")[label] for label in chosen.labels]
    sample_grid(run.plots / "samples.png", images, names, f"{run.config.name}: training images")
    if run.config.descriptors:
        return
    variants = [
        [
            augment(tf.constant(image), data.augmentation, tf.constant([row, column])).numpy()
            for column in range(AUGMENTED_VARIANTS)
        ]
        for row, image in enumerate(images[:AUGMENTED_IMAGES])
    ]
    augmentation_grid(run.plots / "augmentation.png", images[:AUGMENTED_IMAGES], variants)


def draw_curves(
    run: Run,
    history: list[dict[str, float]],
    best_epoch: int,
    schedule: ScheduledRate | None,
    steps_per_epoch: int,
) -> None:
    """Loss, validation metrics and learning rate over the epochs."""
    columns = {name: [row[name] for row in history] for name in history[0]}
    name = run.config.loss.name
    loss = "mean squared error" if name == "reconstruction" else name.replace("_", " ") + " loss"
    loss_curves(run.plots / "loss.png", columns, best_epoch, loss)
    steps = range(len(history) * steps_per_epoch)
    if schedule is None:
        rates = [run.config.optimizer.learning_rate] * len(steps)
    else:
        rates = schedule.plan(len(steps)).tolist()
    learning_rate_curve(run.plots / "learning_rate.png", steps, rates, steps_per_epoch)


def draw_reconstructions(run: Run, validation: ImageSet, objective: Objective) -> None:
    """Some validation images, with their reconstructions by the auto-encoder below them."""
    data = run.config.data
    chosen = validation.take(spread(validation.labels, RECONSTRUCTIONS, run.config.seed))
    pictures = [decode_image(each, data.image_size, data.resize) for each in chosen.sources]
    originals = np.stack(pictures)
    seen = np.asarray(with_noise(originals, objective.noise, run.config.seed))
    made = np.asarray(objective.model.predict_on_batch(seen))
    errors = np.mean((made - np.asarray(as_pixels(originals))) ** 2, axis=(1, 2, 3))
    rows = {"original": list(originals)}
    if objective.noise:
        rows["with noise"] = list(seen)
    rows["reconstruction"] = list(np.rint(255 * made).astype(np.uint8))
    title = f"{run.config.name}: reconstructions and their mean squared errors"
    reconstruction_grid(run.plots / "reconstructions.png", rows, errors.tolist(), title)
