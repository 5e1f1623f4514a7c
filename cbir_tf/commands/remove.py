"""remove: take images out of a run's feature store."""

from __future__ import annotations

import argparse
import json

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.errors import UserError
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "images_named", nargs="*", metavar="IMAGE", help="id or path of a stored image"
    )
    add_run(parser)
    parser.add_argument("--gallery", metavar="NAME", help="all of a gallery, see cbir galleries")
    parser.add_argument(
        "--images",
        type=path_of,
        metavar="DIR",
        help="all that is stored from below a folder, which need not be there any more",
    )
    parser.add_argument(
        "--missing",
        action="store_true",
        help="images whose files are gone; not those on a drive that is not mounted",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.epilog = (
        "Files stay where they are, but for pictures that were added while the run was served. The "
        "run's own images come back with cbir extract --split all."
    )


def main(arguments: argparse.Namespace) -> None:
    """Remove, fit the index again, print how many were removed."""
    from cbir_tf.features.runtime import is_exported
    from cbir_tf.retrieval.extraction import fit_index
    from cbir_tf.retrieval.galleries import remove_images
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    chosen = (arguments.images_named, arguments.gallery, arguments.images, arguments.missing)
    if not any(each not in (None, [], False) for each in chosen):
        raise UserError("nothing to remove: give images, --gallery, --images or --missing")
    if not is_exported(run.model):
        import_tensorflow()
    removed = remove_images(run, *chosen)
    with fit_index(run, may_be_empty=True) as retriever:
        left = len(retriever.gallery)
    if arguments.json:
        document = {"features": str(run.features), "removed": removed, "stored": left}
        print(json.dumps(document, ensure_ascii=False))
        return
    print(f"{len(removed)} images removed; {left} in {run.features}")
