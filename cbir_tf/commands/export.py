"""export: the stored vectors of a run, in a format that other tools read."""

from __future__ import annotations

import argparse

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.storage.addresses import path_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument(
        "--to",
        type=path_of,
        required=True,
        metavar="FILE",
        help="a name that ends in .npz or .parquet; without a suffix a folder of TensorBoard's "
        "projector",
    )


def main(arguments: argparse.Namespace) -> None:
    """Write the vectors with ids, labels and metadata; print how many."""
    from cbir_tf.retrieval.exchange import export_vectors
    from cbir_tf.retrieval.opening import trained_run

    count = export_vectors(trained_run(arguments.run), arguments.to)
    print(f"{count} vectors written to {arguments.to}")
