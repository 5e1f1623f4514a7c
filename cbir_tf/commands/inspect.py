"""inspect: likely wrong labels, pictures under two labels, outliers, classes too small."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from cbir_tf.commands.chosen_run import add_run
from cbir_tf.storage.addresses import path_of

if TYPE_CHECKING:
    from cbir_tf.retrieval.label_inspection import Inspected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_run(parser)
    parser.add_argument(
        "-k", type=int, default=10, help="neighbours that vote on an image's label; default: 10"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.8,
        help="share of the neighbours that has to agree on another label; default: 0.8",
    )
    parser.add_argument(
        "--page",
        type=path_of,
        metavar="HTML",
        help="file for a page of pictures; default: plots/inspection.html in the run",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Compare each image with its neighbours; print what was found and draw it."""
    from cbir_tf.errors import UserError
    from cbir_tf.retrieval.label_inspection import draw_inspection, inspect_labels
    from cbir_tf.retrieval.opening import trained_run
    from cbir_tf.retrieval.retriever import Retriever

    if arguments.k < 1 or not 0 < arguments.share <= 1:
        raise UserError("-k must be 1 or more, and --share above 0 and at most 1; correct them")
    with Retriever(trained_run(arguments.run)) as retriever:
        found = inspect_labels(retriever, arguments.k, arguments.share)
        page = arguments.page or retriever.run.plots / "inspection.html"
        draw_inspection(retriever, found, page)
    if arguments.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    _print(found)
    print(page)


def _print(found: Inspected) -> None:
    for each in found.wrong_labels:
        print(
            f"wrong label?  {each.id}  {each.label}, neighbours {each.share:.0%} {each.suggested}"
        )
    for group in found.two_labels:
        print("two labels    " + "; ".join(f"{name}: {', '.join(group[name])}" for name in group))
    for id_ in found.outliers:
        print(f"outlier       {id_}")
    for name, size in found.small_classes.items():
        print(f"small class   {name}: {size} images, too few to judge their labels")
    print(
        f"{found.images} images, {found.unlabelled} without a label: "
        f"{len(found.wrong_labels)} labels likely wrong, {len(found.two_labels)} pictures under "
        f"several labels, {len(found.outliers)} outliers, {len(found.small_classes)} small classes"
    )
