"""search: find the images most similar to one or several query images, in a folder or a run."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cbir_tf.commands.chosen_run import add_folder, add_run, run_and_inputs
from cbir_tf.errors import UserError
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.remote import local
from cbir_tf.types import SPLITS

if TYPE_CHECKING:
    from cbir_tf.retrieval.retriever import Retriever
    from cbir_tf.types import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = "%(prog)s (PHOTOS | --run DIR) QUERY ... [-k K] [--where CONDITION] [--grid PNG]"
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="an image file, a folder of them, or the id of a stored image; without --run, a "
        "folder PHOTOS before them is searched, by a pretrained model and without any training: "
        "its vectors are kept in the user's cache, and later searches embed what is new",
    )
    add_run(parser)
    add_folder(parser)
    parser.add_argument("-k", type=int, help="number of neighbours; default: the run's search.k")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="search only images that meet a condition on label, split, gallery, id, path or a "
        "metadata column: label=rose,tulip or year>=2020, tags~cat for a column of lists such as "
        "cat,dog, or label= for unlabelled images; may be repeated",
    )
    parser.add_argument("--split", choices=SPLITS, help="short for --where split=...")
    parser.add_argument(
        "--gallery",
        action="append",
        default=[],
        metavar="NAME",
        help="search this gallery alone, see cbir galleries; may be repeated for several",
    )
    parser.add_argument(
        "--re-ranking",
        choices=["none", "query_expansion", "k_reciprocal"],
        help="default: the run's search.re_ranking",
    )
    parser.add_argument(
        "--two-step",
        choices=["none", "knn", "svm"],
        help="predict the class of the query first, then search the images of that class; "
        "default: the run's search.two_step, whose other settings always apply",
    )
    parser.add_argument(
        "--grid", type=path_of, metavar="PNG", help="file for a picture of queries and neighbours"
    )
    parser.add_argument(
        "--combine",
        action="store_true",
        help="make one query of all pictures, their mean, in place of one of each",
    )
    parser.add_argument(
        "--minus",
        action="append",
        default=[],
        metavar="IMAGE",
        help="with --combine: a picture to be unlike; may be repeated",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document on standard output")
    form.add_argument("--csv", action="store_true", help="a table on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Search and print rank, distance, label and path (or id) of each neighbour.

    With --json: one object for one query, an array of such objects for several.
    """
    from cbir_tf.features.runtime import is_exported
    from cbir_tf.retrieval.retriever import Retriever

    run, texts = run_and_inputs(arguments, arguments.queries)
    queries = [query for text in texts for query in _queries_of(text)]
    settings = run.config.search.changed(arguments.re_ranking, arguments.two_step)
    # TensorFlow takes seconds to import; an exported model does not need it.
    runs = [run, *([Run.open(settings.two_step.run)] if settings.two_step.run else [])]
    if arguments.grid or not all(is_exported(each.model) for each in runs):
        import_tensorflow()
    where = [*arguments.where, *([f"split={arguments.split}"] if arguments.split else [])]
    if arguments.gallery:
        where.append("gallery=" + ",".join(map(_quoted, arguments.gallery)))
    with Retriever(run, settings) as retriever:
        if arguments.combine:
            results = retriever.search_combined(queries, arguments.minus, arguments.k, where)
            names = [" + ".join(texts) + "".join(f" - {each}" for each in arguments.minus)]
        elif arguments.minus:
            raise UserError("--minus is part of a query of several pictures; add --combine")
        else:
            results, names = retriever.search(queries, arguments.k, where), queries
        if arguments.grid:
            _draw(retriever, arguments, queries[: len(results)], results)
        answers = [_answer(retriever, results, row, name) for row, name in enumerate(names)]
    if arguments.json:
        print(json.dumps(answers[0] if len(answers) == 1 else answers, ensure_ascii=False))
        return
    if arguments.csv:
        _print_table(answers)
        return
    for number, answer in enumerate(answers):
        if len(answers) > 1:
            print(*([""] if number else []), answer["query"], sep="\n")
        _print(answer)
    if arguments.grid:
        print(arguments.grid)


def _answer(retriever: Retriever, results: Results, row: int, query: str) -> dict[str, Any]:
    """The results of one query, for JSON."""
    from cbir_tf.retrieval.query_engine import steps_of

    calibration = retriever.gallery.calibration if results.is_match is not None else None
    return {
        "query": query,
        "search": steps_of(retriever.search_config),
        "class": None if results.prediction is None else asdict(results.prediction[row]),
        "match": calibration and calibration.verdict(float(results.distances[row, 0])),
        "neighbours": [
            {
                "rank": rank,
                "id": hit.id,
                "label": hit.label,
                "distance": round(hit.distance, 6),
                "path": None if hit.path is None else address_of(hit.path),
                "missing": hit.is_missing,
                "metadata": dict(hit.metadata),
            }
            for rank, hit in enumerate(results.hits(row), 1)
        ],
    }


def _queries_of(text: str) -> list[str]:
    """The images of a folder, or the text itself."""
    from cbir_tf.data.sources import images_in_folder

    folder = local(text, missing_ok=True)
    if not folder.is_dir():
        return [text]
    return sorted(str(each) for each in images_in_folder(folder).sources)


def _print_table(answers: Sequence[dict[str, Any]]) -> None:
    rows = [
        {"query": answer["query"]}
        | {name: value for name, value in each.items() if name != "metadata"}
        | each["metadata"]
        for answer in answers
        for each in answer["neighbours"]
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)


def _quoted(value: str) -> str:
    """A value of a condition, whatever is in it."""
    return '"' + value.replace('"', '""') + '"'


def _print(answer: dict[str, Any]) -> None:
    if answer["class"] is not None:
        print(f"class {answer['class']['name']}: probability {answer['class']['probability']:.3f}")
    if answer["match"] is not None:
        share = f"{answer['match']['false_match_rate']:.1%} of out-of-gallery queries come as near"
        print(f"{'match' if answer['match']['found'] else 'no match'}: {share}")
    for each in answer["neighbours"]:
        place = each["path"] or each["id"]
        note = "  (file missing)" if each["missing"] else ""
        print(f"{each['rank']:>3}  {each['distance']:.4f}  {each['label'] or '-'}  {place}{note}")


def _draw(
    retriever: Retriever, arguments: argparse.Namespace, queries: Sequence[str], results: Results
) -> None:
    from cbir_tf.plots.grids import query_grid
    from cbir_tf.retrieval.gallery_plots import neighbour_row

    rows = [neighbour_row(retriever, query, results, row) for row, query in enumerate(queries)]
    query_grid(arguments.grid, rows, f"Nearest of {len(retriever.gallery)} images")
