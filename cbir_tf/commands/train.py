"""train: an embedding from a configuration file."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.config import Config
from cbir_tf.config_text import describe_keys
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.types import Run

if TYPE_CHECKING:
    import keras

    from cbir_tf.types import ImageSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = "%(prog)s --config FILE [section.key=value ...] [--run DIR] [--resume]"
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a YAML file")
    parser.add_argument("--run", type=Path, metavar="DIR", help="default: runs/<config name>")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--restart", action="store_true", help="replace what the folder holds")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(overrides=[])
    parser.epilog = "\n".join(
        ["keys of the configuration:", *(f"  {key}" for key in describe_keys(Config))]
    )


def main(arguments: argparse.Namespace) -> None:
    """Train, save, draw the curves; prints the best epoch and where everything is."""
    config = Config.load(arguments.config, arguments.overrides)
    run = open_run(config, arguments.run, arguments.resume, arguments.restart)
    if not run.trained:
        train(run)
    report = json.loads((run.folder / "training.json").read_text(encoding="utf-8"))
    if arguments.json:
        print(json.dumps(report))
        return
    best = ", ".join(f"{name} {value:.4f}" for name, value in report["best"].items())
    print(f"best epoch {report['best_epoch']} of {report['epochs']}: {best}")
    print(f"model: {run.model}")
    for picture in sorted(run.plots.glob("*.png")):
        print(picture)


def open_run(config: Config, folder: Path | None, resume: bool, restart: bool) -> Run:
    """The run to train: new, to be resumed, to be replaced, or already done."""
    folder = folder or Path("runs") / config.name
    if restart:
        return Run(folder, config)
    run = Run.at(folder, config)
    if run.trained:
        logger.info("%s: already trained; --restart trains it again", folder)
    elif run.checkpoints.exists() and not resume:
        raise UserError(
            f"{folder}: an interrupted run; --resume goes on with it, --restart begins anew"
        )
    return run


def train(run: Run, restart: bool = False) -> None:
    """Train the embedder of a run and save it with its history and curves.

    The folder is not touched before data and model have proved usable.
    """
    import keras

    from callbacks import Checkpoint, build_schedule
    from cbir_tf.data.batches import training_batches
    from cbir_tf.data.sampling import steps_per_epoch
    from cbir_tf.losses import build_loss
    from cbir_tf.models import build_embedder, frozen_batch_norm_digest

    config = run.config
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)
    images = run_images(run)
    training, validation = images.of_split("train"), images.of_split("validation")
    model = build_embedder(config.model, config.seed)
    steps = config.training.steps_per_epoch or steps_per_epoch(training.labels, config.data.batch)
