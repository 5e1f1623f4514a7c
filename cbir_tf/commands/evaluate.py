"""evaluate: measure retrieval on a run's images and draw where it errs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.commands.extract import extract, split_images, trained_run
from cbir_tf.commands.startup import import_tensorflow
from cbir_tf.files import read_json, write_text
from cbir_tf.progress import logger
from cbir_tf.types import SPLITS, Neighbours, Run

if TYPE_CHECKING:
    from cbir_tf.retriever import Retriever
    from cbir_tf.types import Embeddings

MISTAKES = 12
TREC_DEPTH = 1000
CLASS_FIGURES = ("recall@1", "map", "map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run")
    parser.add_argument("--split", choices=SPLITS, help="queries; default: evaluation.split")
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        help="images searched; none: the queries' own split, each left out of it; default: "
        "evaluation.gallery",
    )
    parser.add_argument(
        "--trec",
        type=Path,
        metavar="DIR",
        help="also write run.txt and qrels.txt for trec_eval, the first 1,000 of each query",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Measure and print; writes metrics.json and the pictures."""
    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.evaluation.table import format_classes, format_table

    split = arguments.split or run.config.evaluation.split
    gallery = arguments.gallery or run.config.evaluation.gallery
    gallery = None if gallery in ("none", split) else gallery
    result, written = measure(run, split, gallery, arguments.trec)
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(format_table(result), format_classes(result, CLASS_FIGURES), sep="\n\n", end="\n\n")
    for path in (run.metrics, *written):
        print(path)


def measure(
    run: Run, split: str, gallery: str | None, trec: Path | None = None
) -> tuple[dict[str, Any], list[Path]]:
    """Evaluate queries of one split against another, or against the rest of their own.

    Images not yet extracted are extracted. metrics.json keeps one result for each pair of splits.

    Returns:
        The figures (`cbir_tf.evaluation.evaluate`) and the files written besides metrics.json.
    """
    from cbir_tf.evaluation import evaluate

    retriever, _ = extract(run, split_images(run, split, gallery or split))
    queries = retriever.store.embeddings(split)
    searched = retriever.store.embeddings(gallery) if gallery else None
    settings = run.config.evaluation
    most = len(queries) - 1 if searched is None else len(searched)
    ranks = [k for k in settings.k if k <= most] or [1]
    if len(ranks) < len(settings.k):
        logger.warning("only %d images to find: figures at higher ranks are left out", most)
    result = evaluate(
        queries,
        searched,
        k=ranks,
        metric=run.config.search.metric,
        bootstrap=settings.bootstrap,
        seed=run.config.seed,
        class_names=retriever.class_names,
    )
    result = {"split": split, "gallery_split": gallery or split} | result
    _keep(run, result)
    found = queries if searched is None else searched
    written = _draw(retriever, queries, found)
    if trec is not None:
        written += _write_trec(trec, retriever, queries, found)
    return result, written


def _write_trec(
    folder: Path, retriever: Retriever, queries: Embeddings, searched: Embeddings
) -> list[Path]:
    from cbir_tf.evaluation.trec import write_trec_qrels, write_trec_run

    own = int(np.isin(queries.ids, searched.ids).any())
    neighbours = retriever.index.search(
        queries.vectors,
        min(TREC_DEPTH, len(searched) - own),
        query_ids=queries.ids,
        where=searched.ids,
    )
    paths = [folder / "run.txt", folder / "qrels.txt"]
    write_trec_run(paths[0], queries.ids, neighbours, retriever.run.config.name)
    write_trec_qrels(paths[1], queries, searched)
    return paths


def _keep(run: Run, result: dict[str, Any]) -> None:
    kept = read_json(run.metrics) if run.metrics.is_file() else {}
    kept[f"{result['split']} against {result['gallery_split']}"] = result
    write_text(run.metrics, json.dumps(kept, indent=2, ensure_ascii=False))


def _draw(retriever: Retriever, queries: Embeddings, searched: Embeddings) -> list[Path]:
    """Confusion matrix of the nearest neighbours, and a gallery of the worst mistakes."""
    from cbir_tf.commands.pictures import neighbour_row
    from cbir_tf.evaluation.confusion import confusion_matrix, mistakes
    from cbir_tf.plots.confusion import confusion_matrix_png, mistakes_grid

    plots, names = retriever.run.plots, retriever.class_names
    k = min(retriever.search_config.k, len(searched) - 1)
    neighbours = retriever.index.search(
        queries.vectors, k, query_ids=queries.ids, where=searched.ids
    )
    matrix = confusion_matrix(neighbours, queries, searched, len(names))
    pictures = [confusion_matrix_png(plots / "confusion.png", matrix, names)]
    row_of = {str(id_): row for row, id_ in enumerate(queries.ids)}
    rows = []
    for each in mistakes(neighbours, queries, searched)[:MISTAKES]:
        row = row_of[each.query]
        found = Neighbours(neighbours.ids[[row]], neighbours.distances[[row]])
        rows.append(neighbour_row(retriever, each.query, found))
    path = plots / "mistakes.png"
    path.unlink(missing_ok=True)
    if rows:
        pictures.append(mistakes_grid(path, rows))
    return pictures
