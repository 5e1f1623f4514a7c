"""calibrate: set the distance threshold of a match."""

from __future__ import annotations

import argparse

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.startup import import_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument(
        "--false-match-rate",
        type=float,
        default=0.05,
        metavar="RATE",
        help="largest share of out-of-gallery queries that get a match; default: 0.05",
    )


def main(arguments: argparse.Namespace) -> None:
    """Measure validation images against the training and validation split; write the threshold."""
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.retrieval.run_measures import calibrate

    calibration, matched, queries = calibrate(run, arguments.false_match_rate)
    print(
        f"a match is nearer than {calibration.threshold:.4f}; nearer are the nearest image of "
        f"another class for {calibration.false_match_rate:.0%} of the {queries} validation images, "
        f"and the nearest image of any class for {matched:.0%}"
    )
    print(run.calibration)
