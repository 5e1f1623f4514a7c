"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbir_tf.errors import UserError
from cbir_tf.storage.addresses import path_of

if TYPE_CHECKING:
    from cbir_tf.run import Run


def add_run(parser: argparse.ArgumentParser) -> None:
    """--run, which may be left out where there is one run alone."""
    parser.add_argument(
        "--run",
        type=path_of,
        metavar="DIR",
        help="folder of a trained run; default: the only one in runs",
    )


def add_folder(parser: argparse.ArgumentParser) -> None:
    """What a folder of pictures is searched with, where there is no run."""
    parser.add_argument(
        "--model",
        help="with PHOTOS: a backbone with ImageNet weights, the folder of a run, or "
        "release:NAME@VERSION; default: efficientnet_lite0",
    )
    parser.add_argument(
        "--store",
        type=path_of,
        metavar="DIR",
        help="with PHOTOS: folder for the vectors; default: one in the user's cache",
    )


def run_and_inputs(
    arguments: argparse.Namespace, inputs: Sequence[str], least: int = 1
) -> tuple[Run, list[str]]:
    """The run to search, and the inputs that are not its folder of pictures.

    Without --run, a folder as the first of more than `least` inputs is what is searched.

    Raises:
        UserError: as `trained_run` and `run_of_folder`, or options that do not go together.
    """
    from cbir_tf.retrieval.opening import trained_run

    is_folder = arguments.run is None and len(inputs) > least and Path(inputs[0]).is_dir()
    if not is_folder:
        if arguments.model or arguments.store:
            raise UserError("--model and --store are for a folder of pictures; give PHOTOS first")
        try:
            return trained_run(arguments.run), list(inputs)
        except UserError as error:
            if arguments.run is not None or not inputs:
                raise
            reason = "no query after it" if Path(inputs[0]).is_dir() else "not a folder of pictures"
            raise UserError(f"{inputs[0]}: {reason}, and {error}") from None
    from cbir_tf.progress import logger
    from cbir_tf.retrieval.photo_folder import PRETRAINED, run_of_folder

    model = arguments.model or PRETRAINED
    run, done = run_of_folder(Path(inputs[0]), model, arguments.store)
    logger.info(
        "%s: %d images searched with %s, kept in %s", inputs[0], len(done.ids), model, run.folder
    )
    return run, list(inputs[1:])
