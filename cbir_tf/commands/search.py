"""search: find the images most like one image."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.commands.extract import trained_run
from cbir_tf.types import SPLITS

if TYPE_CHECKING:
    from cbir_tf.retriever import Retriever
    from cbir_tf.types import Neighbours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("query", metavar="QUERY", help="an image file, or the id of a stored image")
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run")
    parser.add_argument("-k", type=int, help="how many neighbours; default: the run's search.k")
    parser.add_argument("--split", choices=SPLITS, help="search these images only; default: all")
    parser.add_argument("--grid", type=Path, metavar="PNG", help="write query and neighbours here")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Search and print rank, distance, label and path (or id) of each neighbour."""
    from cbir_tf.retriever import Retriever

    retriever = Retriever(trained_run(arguments.run), split=arguments.split)
    neighbours = retriever.search(arguments.query, arguments.k)
    found = _rows(retriever, neighbours)
    if arguments.grid:
        _draw(retriever, arguments.query, found, arguments.grid)
    if arguments.json:
        print(json.dumps({"query": arguments.query, "neighbours": found}, ensure_ascii=False))
        return
    for row in found:
        print(
            f"{row['rank']:>3}  {row['distance']:.4f}  {row['label'] or '-'}  "
            f"{row['path'] or row['id']}"
        )
    if arguments.grid:
        print(arguments.grid)


def _rows(retriever: Retriever, neighbours: Neighbours) -> list[dict[str, Any]]:
    rows = []
    for id_, distance in zip(neighbours.ids[0], neighbours.distances[0], strict=True):
        if math.isinf(distance):
            break
        path = retriever.records[str(id_)].path
        rows.append(
            {
                "rank": len(rows) + 1,
                "id": str(id_),
                "label": retriever.label(str(id_)),
                "distance": round(float(distance), 6),
                "path": None if path is None else str(path),
            }
        )
    return rows


def _draw(retriever: Retriever, query: str, found: list[dict[str, Any]], path: Path) -> None:
    from cbir_tf.data.decode import decode_original
    from cbir_tf.plots.grids import neighbour_grid

    id_ = retriever.stored_id(query)
    label = retriever.label(id_) if id_ else None
    neighbour_grid(
        path,
        decode_original(retriever.source(id_) if id_ else Path(query), longest=224),
        f"{Path(query).name}\n{label}" if label else Path(query).name,
        [decode_original(retriever.source(row["id"]), longest=224) for row in found],
        [f"{row['label'] or Path(row['id']).name}\n{row['distance']:.3f}" for row in found],
        [None if label is None else row["label"] == label for row in found],
        title=f"Nearest {len(found)} of {len(retriever.embeddings)}",
    )
