"""search: find the images most like one image."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cbir_tf.commands.extract import trained_run
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.types import SPLITS

if TYPE_CHECKING:
    from cbir_tf.retrieval.retriever import Retriever
    from cbir_tf.types import Neighbours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("query", metavar="QUERY", help="an image file, or the id of a stored image")
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument("-k", type=int, help="how many neighbours; default: the run's search.k")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="search only images that meet it: label=rose,tulip or year>=2020, by label, split, "
        "id, path or a column of metadata, or tags~cat where that column is a list as cat,dog; "
        "may be given several times",
    )
    parser.add_argument("--split", choices=SPLITS, help="short for --where split=...")
    parser.add_argument(
        "--re-ranking",
        choices=["none", "query_expansion", "k_reciprocal"],
        help="default: the run's search.re_ranking",
    )
    parser.add_argument(
        "--two-step",
        choices=["none", "knn", "svm"],
        help="say first of which class the query is, then look among the images of that class; "
        "default: the run's search.two_step, which also has the other settings",
    )
    parser.add_argument(
        "--grid", type=path_of, metavar="PNG", help="write query and neighbours here"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Search and print rank, distance, label and path (or id) of each neighbour.

    A search of two steps says first for what it took the query.
    """
    run = trained_run(arguments.run)
    from cbir_tf.features.runtime import is_exported
    from cbir_tf.retrieval.query_engine import steps_of
    from cbir_tf.retrieval.retriever import Retriever

    settings = run.config.search.changed(arguments.re_ranking, arguments.two_step)
    # TensorFlow takes seconds to import, and an exported model does without.
    runs = [run, *([Run.open(settings.two_step.run)] if settings.two_step.run else [])]
    exported = all(is_exported(each.model) for each in runs)
    if arguments.grid or not exported:
        import_tensorflow()

    retriever = Retriever(run, settings)
    where = [*arguments.where, *([f"split={arguments.split}"] if arguments.split else [])]
    found = retriever.find(arguments.query, arguments.k, where)
    neighbours, rows = found.neighbours, _rows(retriever, found.neighbours)
    if arguments.grid:
        from cbir_tf.plots.grids import query_grid
        from cbir_tf.retrieval.pictures import neighbour_row

        grid_row = neighbour_row(retriever, arguments.query, neighbours)
        query_grid(arguments.grid, [grid_row], f"Nearest of {len(retriever.embeddings)} images")
    match = _match(retriever, neighbours)
    if arguments.json:
        result = {
            "query": arguments.query,
            "search": steps_of(settings),
            "class": found.prediction and asdict(found.prediction),
            "match": match,
            "neighbours": rows,
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    if found.prediction is not None:
        print(f"class {found.prediction.name}: probability {found.prediction.probability:.3f}")
    if match is not None:
        print(_verdict(match))
    for each in rows:
        place = each["path"] or each["id"]
        print(f"{each['rank']:>3}  {each['distance']:.4f}  {each['label'] or '-'}  {place}")
    if arguments.grid:
        print(arguments.grid)


def _match(retriever: Retriever, neighbours: Neighbours) -> dict[str, Any] | None:
    """Whether the nearest image is a match, and how sure that is; None if never calibrated."""
    calibrated = retriever.no_match
    if calibrated is None:
        return None
    return calibrated.verdict(float(neighbours.distances[0, 0]))


def _verdict(match: dict[str, Any]) -> str:
    share = f"{match['false_match_rate']:.1%} of photos of something else come as near"
    return f"{'match' if match['found'] else 'no match'}: {share}"


def _rows(retriever: Retriever, neighbours: Neighbours) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for id_, distance in zip(neighbours.ids[0], neighbours.distances[0], strict=True):
        if math.isinf(distance):
            break
        path = retriever.record(str(id_)).path
        rows.append(
            {
                "rank": len(rows) + 1,
                "id": str(id_),
                "label": retriever.label(str(id_)),
                "distance": round(float(distance), 6),
                "path": None if path is None else address_of(path),
            }
        )
    return rows
