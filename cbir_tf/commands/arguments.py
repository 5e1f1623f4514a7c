"""Arguments that several verbs share."""

from __future__ import annotations

import argparse

from cbir_tf.storage.addresses import path_of


def add_run(parser: argparse.ArgumentParser) -> None:
    """--run, which may be left out where there is one run alone."""
    parser.add_argument(
        "--run",
        type=path_of,
        metavar="DIR",
        help="folder of a trained run; default: the only one in runs",
    )
