"""classify: measure classifiers of a run's vectors."""

from __future__ import annotations

import argparse
import json

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.startup import import_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument(
        "--classifiers",
        default="lr,knn,svm,nb,rf",
        metavar="NAME,NAME",
        help="classifiers: lr (logistic regression), knn (k nearest neighbours), svm (linear SVM), "
        "nb (Gaussian naive Bayes), rf (random forest); default: all",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Fit to the training split, measure on the test split; write classification.json."""
    from cbir_tf.evaluation.classifier_comparison import check_names
    from cbir_tf.evaluation.table import format_classifiers
    from cbir_tf.retrieval.opening import trained_run

    run = trained_run(arguments.run)
    names = list(dict.fromkeys(each.strip() for each in arguments.classifiers.split(",")))
    check_names(names)
    import_tensorflow()
    from cbir_tf.retrieval.run_measures import classify

    result = classify(run, names)
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(format_classifiers(result), run.classification, sep="\n\n")
