"""galleries: what a run has stored: its own images, and further folders by name."""

from __future__ import annotations

import argparse
import json

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.storage.addresses import address_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.epilog = (
        "The gallery `run` has the run's own images and those added while it was served. Search in "
        "some with --where gallery=NAME,NAME, and remove one with cbir remove --gallery NAME."
    )


def main(arguments: argparse.Namespace) -> None:
    """Print a line for each gallery."""
    from cbir_tf.retrieval.galleries import list_galleries
    from cbir_tf.retrieval.opening import trained_run

    found = list_galleries(trained_run(arguments.run))
    if arguments.json:
        document = [
            {
                "name": each.name,
                "images": each.images,
                "missing": each.missing,
                "searched": each.searched,
                "folders": [address_of(folder) for folder in each.folders],
            }
            for each in found
        ]
        print(json.dumps(document, ensure_ascii=False))
        return
    for each in found:
        notes = [f"{each.images} images"]
        notes += [f"{each.missing} files missing"] if each.missing else []
        notes += [] if each.searched else ["unfinished: not searched until extracted again"]
        notes += [address_of(folder) for folder in each.folders]
        print(each.name, ", ".join(notes), sep="  ")
