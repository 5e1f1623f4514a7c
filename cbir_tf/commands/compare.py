"""compare: several runs in one table, on the same queries."""

from __future__ import annotations

import argparse
import json

from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.types import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "runs", nargs="+", type=path_of, metavar="RUN", help="folders of trained runs"
    )
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="split of the queries; default: test"
    )
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        default="none",
        help="split of the gallery; none (the default): the split of the queries, each query left "
        "out of its own search",
    )
    parser.add_argument(
        "--k",
        type=_ranks,
        metavar="K,K",
        help="ranks k of the measures; default: evaluation.k of the first run",
    )
    parser.add_argument(
        "--out",
        type=path_of,
        metavar="DIR",
        help="folder for the table (md, csv, json), the plot and the page",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Measure each run, time all runs in alternation, print the table."""
    import_tensorflow()
    from cbir_tf.evaluation.report import comparison_markdown
    from cbir_tf.retrieval.run_comparison import compare, write_comparison

    document = compare(arguments.runs, arguments.split, arguments.gallery, arguments.k)
    written = [] if arguments.out is None else write_comparison(arguments.out, document)
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False))
        return
    print(comparison_markdown(document))
    if written:
        print("", *written, sep="\n")


def _ranks(text: str) -> tuple[int, ...]:
    ranks = tuple(sorted({int(each) for each in text.split(",")}))
    if ranks[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: ranks start at 1")
    return ranks


_ranks.__name__ = "ranks such as 1,5,10"  # argparse shows this name in its error
