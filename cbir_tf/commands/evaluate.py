"""evaluate: measure retrieval on a run's images and draw where it errs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.remote import local
from cbir_tf.types import SPLITS

CLASS_FIGURES = ("recall@1", "map", "map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument("--split", choices=SPLITS, help="queries; default: evaluation.split")
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        help="images searched; none: the queries' own split, each left out of it; default: "
        "evaluation.gallery",
    )
    parser.add_argument(
        "--trec",
        type=path_of,
        metavar="DIR",
        help="also write run.txt and qrels.txt for trec_eval, the first 1,000 of each query",
    )
    parser.add_argument(
        "--levels",
        type=path_of,
        metavar="CSV",
        help="also at the levels of a hierarchy: a table of the columns class,super-category,...",
    )
    parser.add_argument(
        "--level-column",
        metavar="NAME",
        help="also at the level that a column of metadata gives: all images of a class have one "
        "value in it, such as supercategory",
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="also with several labels an image: the comma-separated values of a column of "
        "metadata; relevant is what shares one",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Measure and print; writes metrics.json and the pictures."""
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
    _print(result)
    print(*files, sep="\n")


def _print(result: dict[str, Any]) -> None:
    from cbir_tf.evaluation.table import format_accuracy, format_classes, format_table

    print(format_table(result), format_classes(result, CLASS_FIGURES), sep="\n\n", end="\n\n")
    if "classifier" in result:
        print(format_accuracy(result["classifier"], result["split"]), end="\n\n")
    by_column = {f"sharing {name}": each for name, each in result.get("label_sets", {}).items()}
    by_level = {f"by {name}": each for name, each in result.get("levels", {}).items()}
    for name, figures in (by_level | by_column).items():
        print(f"{name}: {format_table(figures)}", end="\n\n")
        print(format_classes(figures, CLASS_FIGURES), end="\n\n")
