"""extract: embed images into the run's feature store, fit the index, draw the embedding map."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import is_mirrored, path_of
from cbir_tf.types import SPLITS

if TYPE_CHECKING:
    from cbir_tf.retrieval.extraction import Extraction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--split",
        choices=[*SPLITS, "all"],
        default="validation",
        help="split to extract; default: validation",
    )
    which.add_argument(
        "--images",
        type=path_of,
        metavar="DIR",
        help="extract every image below a folder, or the images of its manifest.csv, instead",
    )
    parser.add_argument(
        "--gallery",
        metavar="NAME",
        help="with --images: name of the gallery that the images are in, for --where gallery=NAME; "
        "default: the folder's name",
    )
    gone = parser.add_mutually_exclusive_group()
    gone.add_argument(
        "--keep-missing",
        action="store_true",
        help="with --images: keep stored images whose files are no longer in the folder",
    )
    gone.add_argument(
        "--remove-missing",
        action="store_true",
        help="with --images: remove them even if they are more than half of the folder's stored "
        "images, or were in a folder that is empty now",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="with --images: update the feature store when the folder changes, until Ctrl-C",
    )
    parser.add_argument(
        "--no-map",
        action="store_true",
        help="leave out the embedding map and the query grid, which are drawn only if something "
        "has changed",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Extract, fit the index, draw; print the counts and the files."""
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    folder = arguments.images
    for name in ("gallery", "keep_missing", "remove_missing", "watch"):
        if folder is None and getattr(arguments, name):
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for the images of a folder; add --images DIR")
    if arguments.watch and is_mirrored(folder):
        raise UserError(
            "--watch needs a local folder, as S3 does not report changes; copy the images, or run "
            "the command without --watch"
        )
    import_tensorflow()
    from cbir_tf.retrieval.extraction import extract, watch

    options = {
        "folder": folder,
        "gallery": arguments.gallery,
        "keep_missing": arguments.keep_missing,
        "remove_missing": arguments.remove_missing,
    }
    done = extract(run, arguments.split, draw=not arguments.no_map, **options)
    if arguments.json:
        print(json.dumps(_document(run, done), ensure_ascii=False), flush=True)
    else:
        print(_summary(done), f"{done.stored} in {run.features}", sep="; ")
        print(*done.pictures, sep="\n", end="\n" if done.pictures else "", flush=True)
    if arguments.watch:
        _watch(watch(run, **options), folder, run)


def _watch(rounds: Iterator[Extraction], folder: Path, run: Run) -> None:
    """Print what each round did, until Ctrl-C, which is how watching ends."""
    try:
        for each in rounds:
            print(f"{folder}: {_summary(each)}", flush=True)
    except KeyboardInterrupt:
        logger.info("no longer watching %s; all that was extracted is in %s", folder, run.features)


def _summary(done: Extraction) -> str:
    known = f" ({done.known} of known content, not encoded)" if done.known else ""
    where = f" in gallery {done.gallery}" if done.gallery else ""
    missing = f", {len(done.missing)} not found and kept" if done.missing else ""
    counts = f"{done.new} new of {len(done.ids)} images{where}{known}"
    return f"{counts}, {len(done.removed)} removed{missing}"


def _document(run: Run, done: Extraction) -> dict[str, Any]:
    return {
        "features": str(run.features),
        "images": len(done.ids),
        "new": done.new,
        "known": done.known,
        "gallery": done.gallery,
        "stored": done.stored,
        "removed": done.removed,
        "missing": done.missing,
        "unreadable": dict(done.unreadable),
        "pictures": [str(each) for each in done.pictures],
    }
