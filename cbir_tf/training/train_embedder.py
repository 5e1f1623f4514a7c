"""The training of an embedder, from a run's configuration to its saved model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict

import keras

from cbir_tf.data.sources import load_images
from cbir_tf.models import build_embedder
from cbir_tf.run import Run
from cbir_tf.storage.files import replacing
from cbir_tf.training.fit import FitResult, fit
from cbir_tf.training.objectives import build_objective
from cbir_tf.training.plan import check_trainable, make_plan
from cbir_tf.training.run_files import begin, inspect_for, write_report
from cbir_tf.training.training_plots import draw_classes, draw_samples


def train_embedder(
    run: Run, restart: bool = False, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> None:
    """Train the embedder of a run from its last checkpoint, if any; save the model and the plots.

    Nothing in the folder changes before data and model are known to be usable.

    Args:
        run: to train.
        restart: delete what the folder holds.
        callbacks: further ones, which come after the checkpoint.

    Raises:
        UserError: unusable data, model or folder, or a training that diverges.
    """
    former_policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(run.config.seed)
    keras.config.set_dtype_policy(run.config.training.precision)
    try:
        _train(run, restart, callbacks)
    finally:
        keras.config.set_dtype_policy(former_policy)


def _train(run: Run, restart: bool, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    config = run.config
    images = load_images(config.data, config.seed, config.loss.name != "reconstruction")
    # Before the inspection: a misspelt backbone should not wait until all images are read.
    embedder = build_embedder(config.model, config.seed, config.data.image_size)
    objective = build_objective(embedder, config, len(images.class_names), config.seed)
    inspection, duplicates = inspect_for(run, images, restart)
    images = inspection.images
    training = images.of_split("train")
    plan = make_plan(config, training)
    if plan.epochs:
        check_trainable(config, objective, images.of_split("validation"))
    begin(run, inspection, restart)
    draw_classes(run, images)
    draw_samples(run, training)

    result = FitResult(epochs=0, best_epoch=0, best={}, seconds=0.0)
    if plan.epochs:
        result = fit(run, objective, images, plan, callbacks)
    write_report(run, asdict(result), inspection, duplicates)
    # The model is written last: a run that has it is complete.
    with replacing(run.model) as temporary:
        embedder.save(temporary)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
