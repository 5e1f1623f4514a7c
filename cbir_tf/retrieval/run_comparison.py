"""Comparison of runs on the same queries, in one table; speeds are measured in alternation."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config.arguments import one_of, ranks
from cbir_tf.errors import UserError
from cbir_tf.evaluation import paired_bootstrap, per_query, summarize
from cbir_tf.evaluation.report import comparison_csv, comparison_markdown, comparison_page
from cbir_tf.features.encode import embed
from cbir_tf.features.views import viewed
from cbir_tf.plots.comparison import comparison_plot
from cbir_tf.progress import progress
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.retrieval.run_evaluation import EvaluationTask, gallery_split
from cbir_tf.run import Run
from cbir_tf.storage.files import write_text
from cbir_tf.types import SPLITS, ImageSet

TIMED_QUERIES = 30
TIMED_IMAGES, TIMED_TURNS = 64, 3


def compare(
    runs: Sequence[Run | str | Path] | Run | str | Path,
    split: str = "test",
    gallery: str | None = None,
    k: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Measure several runs on the same queries: quality with intervals, size, speed, differences.

    Args:
        runs: trained runs of the same images; the first is the reference of the differences.
        split: of the queries.
        gallery: split of the gallery; None: the split of the queries, each query left out of its
            own search.
        k: ranks k of the measures; None: evaluation.k of the first run.

    Returns:
        A document for JSON, with a row for each run.

    Raises:
        UserError: a run is given twice, or the runs have different images.
    """
    several = [runs] if isinstance(runs, (str, Path, Run)) else runs
    opened = [trained_run(run) for run in several]
    if not opened:
        raise UserError("no run is given; give one or more")
    one_of(split, SPLITS, "split")
    if len({run.folder.resolve() for run in opened}) < len(opened):
        raise UserError("a run is given twice; name each run once")
    searched = gallery_split(gallery, split)
    k = opened[0].config.evaluation.k if k is None else ranks(k)
    tasks = [EvaluationTask.open(run, split, searched) for run in opened]
    for task in tasks[1:]:
        check_same_images(tasks[0], task)
    return {
        "split": split,
        "gallery_split": searched or split,
        "protocol": "leave-one-out" if searched is None else "queries against gallery",
        "runs": _compared(tasks, k),
    }


def check_same_images(first: EvaluationTask, other: EvaluationTask) -> None:
    """Check that two runs have the same queries and galleries, with the same classes.

    Raises:
        UserError: they differ.
    """
    for what in ("queries", "searched"):
        ours, theirs = (_described(each, what) for each in (first, other))
        if ours != theirs:
            image = min(
                id_ for id_ in ours.keys() | theirs.keys() if ours.get(id_) != theirs.get(id_)
            )
            if image in ours and image in theirs:
                reason = f"another photo or class for {image!r}"
            else:
                reason = f"{'no' if image in ours else 'an'} image {image!r}"
            raise UserError(
                f"{other.retriever.run.folder}: has {reason}, unlike {first.retriever.run.folder}; "
                "compare runs of the same data, split and seed"
            )


def _described(task: EvaluationTask, what: str) -> dict[str, tuple[str, str]]:
    """Class and digest of each image by id."""
    records = {record.id: record for record in task.retriever.store.records()}
    embeddings = task.queries if what == "queries" else task.searched
    names = (*task.retriever.class_names, "")
    return {
        id_: (names[label], records[id_].digest)
        for id_, label in zip(embeddings.ids.tolist(), embeddings.labels.tolist(), strict=True)
    }


def _compared(tasks: Sequence[EvaluationTask], k: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of the table, for JSON; the first run is the reference of the differences."""
    ranks = tasks[0].ranks(k)
    settings = tasks[0].retriever.run.config
    by_query = [
        per_query(
            task.queries,
            task.gallery,
            ranks,
            task.retriever.search_config.metric,
            ranking=task.ranking,
        )
        for task in progress(tasks, description="evaluating", unit="runs")
    ]
    rows = []
    names = _names([task.retriever.run for task in tasks])
    for name, task, values, speed in zip(names, tasks, by_query, _speeds(tasks), strict=True):
        run = task.retriever.run
        differences = (
            {} if task is tasks[0] else paired_bootstrap(values, by_query[0], seed=settings.seed)
        )
        row = {
            "run": name,
            "folder": str(run.folder),
            "metric": run.config.search.metric,
            **task.steps,
            **summarize(values, {}, settings.evaluation.bootstrap, settings.seed),
            "gallery": len(task.searched),
            "dimensions": task.queries.vectors.shape[1],
            "model_MB": run.model.stat().st_size / 1e6,
            **speed,
            "difference_to_first": {key: vars(each) for key, each in differences.items()},
        }
        rows.append(row)
    return rows


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _speeds(tasks: Sequence[EvaluationTask]) -> list[dict[str, dict[str, float]]]:
    """Seconds per query and images per second, measured in alternation, as machine load varies."""
    seconds: list[list[float]] = [[] for _ in tasks]
    rates: list[list[float]] = [[] for _ in tasks]
    random = np.random.default_rng(0)
    ids = tasks[0].queries.ids
    queries = random.choice(ids, min(TIMED_QUERIES, len(ids)), replace=False).tolist()
    images = tasks[0].images
    batch = images.take(random.permutation(len(images))[:TIMED_IMAGES])
    # The first of each warms up: models load, caches fill.
    turns = [*range(TIMED_TURNS + 1), *[queries[0], *queries]]
    for number, turn in enumerate(progress(turns, description="timing", unit="turns")):
        for place in range(len(tasks)):
            each = (place + number) % len(tasks)
            if isinstance(turn, int):
                rates[each].append(_images_per_second(tasks[each], batch))
            else:
                seconds[each].append(_seconds_per_query(tasks[each], turn))
    return [
        {"seconds_per_query": _spread(some[1:]), "images_per_second": _spread(rate[1:])}
        for some, rate in zip(seconds, rates, strict=True)
    ]


def _seconds_per_query(task: EvaluationTask, id_: str) -> float:
    """Seconds from the encoded image to its neighbours."""
    source = task.retriever.source(id_)
    content = source if isinstance(source, bytes) else source.read_bytes()
    k = min(task.retriever.search_config.k, len(task.retriever.embeddings))
    start = time.perf_counter()
    task.retriever.search(content, k)
    return time.perf_counter() - start


def _images_per_second(task: EvaluationTask, images: ImageSet) -> float:
    """Images per second, from files to vectors."""
    config = task.retriever.run.config
    data = viewed(config.data, config.search)
    mine = task.images.take(np.isin(task.images.ids, images.ids))
    start = time.perf_counter()
    embed(task.retriever.encoder.of_pixels, mine, data)
    return len(mine) / (time.perf_counter() - start)


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median, and the 10th and 90th percentiles."""
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return {"median": median, "low": low, "high": high}


def write_comparison(folder: Path, document: dict[str, Any]) -> list[Path]:
    """Write table (md, csv, json), plot and page into a folder; returns the files.

    Raises:
        UserError: a file cannot be written.
    """
    plot = comparison_plot(folder / "comparison.png", document["runs"])
    texts = {
        "md": comparison_markdown(document) + "\n",
        "csv": comparison_csv(document),
        "json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "html": comparison_page(document, plot.read_bytes()),
    }
    for suffix, text in texts.items():
        write_text(folder / f"comparison.{suffix}", text)
    return [plot, *(folder / f"comparison.{suffix}" for suffix in texts)]
