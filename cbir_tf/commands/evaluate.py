"""evaluate: measure retrieval on a run's images and draw its mistakes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.remote import local
from cbir_tf.types import SPLITS

CLASS_FIGURES = ("recall@1", "map", "map_at_r")
MOST_CLASSES = 10
"""Classes printed of each table; metrics.json has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument(
        "--split", choices=SPLITS, help="split of the queries; default: evaluation.split"
    )
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        help="split of the gallery; none: the split of the queries, each query left out of its own "
        "search; default: evaluation.gallery",
    )
    parser.add_argument(
        "--trec",
        type=path_of,
        metavar="DIR",
        help="also write run.txt and qrels.txt for trec_eval, 1,000 results for each query",
    )
    parser.add_argument(
        "--levels",
        type=path_of,
        metavar="CSV",
        help="also measure at the levels of a class hierarchy: a table with the columns "
        "class,super-category,...",
    )
    parser.add_argument(
        "--level-column",
        metavar="NAME",
        help="also measure with the values of a metadata column as classes, for example "
        "supercategory; all images of a class must have the same value",
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="also measure with several labels per image, the comma-separated values of a metadata "
        "column; images that share a label are relevant",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Measure; print the files, the worst classes and the summary; write metrics.json and plots."""
    from cbir_tf.evaluation.levels import read_levels
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    levels = {} if arguments.levels is None else read_levels(local(arguments.levels))
    import_tensorflow()
    from cbir_tf.retrieval.run_evaluation import evaluate

    result = evaluate(
        run,
        arguments.split,
        arguments.gallery,
        levels=levels,
        level_column=arguments.level_column,
        label_column=arguments.label_column,
        trec=arguments.trec,
    )
    files = result.pop("files")
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    _print(result, files)


def _print(result: dict[str, Any], files: Sequence[str]) -> None:
    """The summary last, as it is what is looked for."""
    from cbir_tf.evaluation.table import format_accuracy, format_classes, format_table

    by_column = {f"sharing {name}": each for name, each in result.get("label_sets", {}).items()}
    by_level = {f"by {name}": each for name, each in result.get("levels", {}).items()}
    print(*files, sep="\n", end="\n\n")
    print(format_classes(result, CLASS_FIGURES, MOST_CLASSES), end="\n\n")
    for name, figures in (by_level | by_column).items():
        print(f"{name}: {format_classes(figures, CLASS_FIGURES, MOST_CLASSES)}", end="\n\n")
        print(f"{name}: {format_table(figures)}", end="\n\n")
    if "classifier" in result:
        print(format_accuracy(result["classifier"], result["split"]), end="\n\n")
    print(format_table(result))
