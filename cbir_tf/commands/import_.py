"""import: vectors that cbir export wrote, into a run of the same encoder."""

from __future__ import annotations

import argparse

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.storage.addresses import path_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("file", type=path_of, metavar="FILE", help="a .npz or .parquet file")
    add_run(parser)
    parser.add_argument(
        "--gallery",
        metavar="NAME",
        help="of the images; default: as in the file, and of the file's name those that were the "
        "own images of the exporting run",
    )


def main(arguments: argparse.Namespace) -> None:
    """Store the vectors, fit the index again, print how many."""
    from cbir_tf.features.runtime import is_exported
    from cbir_tf.retrieval.exchange import import_vectors
    from cbir_tf.retrieval.extraction import fit_index
    from cbir_tf.retrieval.opening import trained_run
    from cbir_tf.startup import import_tensorflow

    run = trained_run(arguments.run)
    count = import_vectors(run, arguments.file, arguments.gallery)
    if not is_exported(run.model):
        import_tensorflow()
    with fit_index(run) as retriever:
        print(f"{count} vectors stored; {len(retriever.gallery)} in {run.features}")
