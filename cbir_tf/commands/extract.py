"""extract: embed images into the run's feature store, fit the index, draw the embedding map."""

from __future__ import annotations

import argparse
import json

from cbir_tf.commands.arguments import add_run
from cbir_tf.errors import UserError
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import is_mirrored, path_of
from cbir_tf.types import SPLITS


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
        "--keep-missing",
        action="store_true",
        help="with --images: keep stored images whose files are no longer in the folder",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="with --images: update the feature store when the folder changes, until Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Extract, fit the index, draw; print the counts and the files."""
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    folder = arguments.images
    if folder is None and (arguments.keep_missing or arguments.watch):
        raise UserError("--keep-missing and --watch need --images DIR; add --images DIR")
    if arguments.watch and is_mirrored(folder):
        raise UserError(
            "--watch needs a local folder, as S3 does not report changes; copy the images, or run "
            "the command without --watch"
        )
    import_tensorflow()
    from cbir_tf.retrieval.extraction import extract, watch

    done = extract(run, arguments.split, folder=folder, keep_missing=arguments.keep_missing)
    if arguments.json:
        result = {
            "features": str(run.features),
            "images": len(done.ids),
            "stored": done.stored,
            "removed": done.removed,
            "unreadable": done.unreadable,
            "pictures": [str(each) for each in done.pictures],
        }
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(
            f"{len(done.ids)} images extracted, {len(done.removed)} removed; "
            f"{done.stored} in {run.features}"
        )
        print(*done.pictures, sep="\n", flush=True)
    if arguments.watch:
        for each in watch(run, folder, arguments.keep_missing):
            print(f"{len(each.ids)} images in {folder}, {len(each.removed)} removed", flush=True)
