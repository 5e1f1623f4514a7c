"""The fitting of a run's classical features, which takes the place of a training."""

from __future__ import annotations

import time

from cbir_tf.data.sources import load_images
from cbir_tf.errors import UserError
from cbir_tf.features.descriptors import check_installed
from cbir_tf.features.fit_descriptors import fit_descriptors
from cbir_tf.run import Run
from cbir_tf.training.run_files import begin, inspect_for, write_report
from cbir_tf.training.training_plots import draw_classes, draw_samples


def train_descriptors(run: Run, restart: bool = False) -> None:
    """Fit the descriptors of a run to its training images, and save them; always from the start.

    Args:
        run: to fit.
        restart: delete what the folder holds.

    Raises:
        UserError: unusable data or folder, too few images, or OpenCV is not installed.
    """
    config = run.config
    check_installed(config.descriptors)
    inspection, duplicates = inspect_for(run, load_images(config.data, config.seed), restart)
    training = inspection.images.of_split("train")
    if not len(training):
        raise UserError("data.split.train: no image to fit the descriptors to; raise it")
    begin(run, inspection, restart)
    draw_classes(run, inspection.images)
    draw_samples(run, training)
    started = time.monotonic()
    descriptors, fitted = fit_descriptors(config, training)
    results = {
        "descriptors": fitted,
        "dimensions": sum(descriptors.sizes),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_report(run, results, inspection, duplicates)
    descriptors.save(run.model)
