"""classify: how well classifiers tell the classes apart by a run's vectors."""

from __future__ import annotations

import argparse
import json

from cbir_tf.commands.evaluate import Task
from cbir_tf.commands.extract import trained_run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument(
        "--classifiers",
        default="lr,knn,svm,nb,rf",
        metavar="NAME,NAME",
        help="which: lr (logistic regression), knn (k nearest neighbours), svm (linear SVM), nb "
        "(Gaussian naive Bayes), rf (random forest); default: all",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Fit to the training split, measure on the test split; writes classification.json."""
    run = trained_run(arguments.run)
    from cbir_tf.evaluation.classifiers import check_names, classify
    from cbir_tf.evaluation.table import format_classifiers

    names = list(dict.fromkeys(each.strip() for each in arguments.classifiers.split(",")))
    check_names(names)
    import_tensorflow()
    task = Task.open(run, "test", "train")
    settings = run.config.evaluation
    result = classify(task.searched, task.queries, names, settings.bootstrap, run.config.seed)
    write_text(run.classification, json.dumps(result, indent=2, ensure_ascii=False))
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(format_classifiers(result), run.classification, sep="\n\n")
