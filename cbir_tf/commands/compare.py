"""compare: several runs in one table, on the same queries."""

from __future__ import annotations

import argparse
import base64
import csv
import html
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.commands.evaluate import measure
from cbir_tf.commands.extract import trained_run
from cbir_tf.commands.startup import import_tensorflow
from cbir_tf.errors import UserError
from cbir_tf.files import write_text
from cbir_tf.progress import progress
from cbir_tf.types import SPLITS, Run

if TYPE_CHECKING:
    from cbir_tf.retriever import Retriever

TIMED_QUERIES = 20
TIMED_BATCH, TIMED_BATCHES = 32, 3
FIGURES = ("recall@1", "map", "map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of trained runs")
    parser.add_argument("--split", choices=SPLITS, default="test", help="queries; default: test")
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        default="none",
        help="images searched; none: the queries' own split, each left out of it (the default)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write table (md, csv, json), plot and page here"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


@dataclass(frozen=True)
class _Measured:
    """A run, opened, with its figures over all queries and by query."""

    run: Run
    result: dict[str, Any]
    retriever: Retriever
    query_ids: np.ndarray
    by_query: dict[str, np.ndarray]


def main(arguments: argparse.Namespace) -> None:
    """Measure every run, print the table."""
    runs = [trained_run(folder) for folder in arguments.runs]
    import_tensorflow()
    gallery = None if arguments.gallery in ("none", arguments.split) else arguments.gallery
    measured = [_measured(run, arguments.split, gallery) for run in runs]
    first = measured[0]
    for each in measured[1:]:
        if not np.array_equal(each.query_ids, first.query_ids):
            raise UserError(
                f"{each.run.folder}: its {arguments.split} split is not that of "
                f"{first.run.folder}; compare runs of the same data, split and seed"
            )
    speeds = _speeds([each.retriever for each in measured], first.query_ids)
    rows = [
        _row(name, each, first) | speed
        for name, each, speed in zip(_names(runs), measured, speeds, strict=True)
    ]
    table = _markdown(rows)
    if arguments.out:
        _write(arguments.out, rows, table)
    print(json.dumps(rows, ensure_ascii=False) if arguments.json else table)


def _measured(run: Run, split: str, gallery: str | None) -> _Measured:
    from cbir_tf.evaluation import per_query
    from cbir_tf.retriever import Retriever

    result, _ = measure(run, split, gallery)
    retriever = Retriever(run)
    queries = retriever.store.embeddings(split)
    searched = retriever.store.embeddings(gallery) if gallery else None
    by_query = per_query(queries, searched, k=(1,), metric=run.config.search.metric)
    return _Measured(run, result, retriever, queries.ids, by_query)


def _row(name: str, measured: _Measured, first: _Measured) -> dict[str, Any]:
    from cbir_tf.evaluation.comparison import paired_bootstrap

    return {
        "run": name,
        **{key: measured.result[key] for key in ("figures", "intervals", "queries", "gallery")},
        "dimensions": measured.retriever.embeddings.vectors.shape[1],
        "model_MB": measured.run.model.stat().st_size / 1e6,
        "difference_to_first": {
            figure: vars(paired_bootstrap(measured.by_query[figure], first.by_query[figure]))
            for figure in (FIGURES if measured is not first else ())
        },
    }


def _names(runs: list[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _speeds(retrievers: list[Retriever], ids: np.ndarray) -> list[dict[str, float]]:
    """Seconds a query, from file to neighbours, and images encoded a second; runs take turns."""
    chosen = np.random.default_rng(0).choice(ids, min(TIMED_QUERIES, len(ids)), replace=False)
    seconds: list[list[float]] = [[] for _ in retrievers]
    rates: list[list[float]] = [[] for _ in retrievers]
    for turn, id_ in enumerate(progress([chosen[0], *chosen], description="timing")):
        for number, retriever in enumerate(retrievers):
            source = retriever.source(str(id_))
            content = source if isinstance(source, bytes) else source.read_bytes()
            start = time.perf_counter()
            retriever.search(content, 1)
            if turn:  # the first loads the model
                seconds[number].append(time.perf_counter() - start)
    for _ in range(TIMED_BATCHES):
        for number, retriever in enumerate(retrievers):
            size = retriever.run.config.data.image_size
            pixels = np.zeros((TIMED_BATCH, *size, 3), dtype=np.uint8)
            start = time.perf_counter()
            retriever.encoder(pixels)
            rates[number].append(TIMED_BATCH / (time.perf_counter() - start))
    return [
        {"seconds_per_query": float(np.median(some)), "images_per_second": float(np.median(rate))}
        for some, rate in zip(seconds, rates, strict=True)
    ]


def _columns(row: dict[str, Any]) -> dict[str, str]:
    """A row of the table, as text."""
    cells = {"run": row["run"]}
    for name, value in row["figures"].items():
        if name.startswith(("recall@", "precision@")) or name in FIGURES:
            interval = row["intervals"].get(name)
            spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            cells[name] = f"{value:.3f}{spread}"
    difference = row["difference_to_first"].get("map")
    cells["mAP less the first's"] = (
        f"{difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}, "
        f"p {difference['p_value']:.2g})"
        if difference
        else ""
    )
    cells["dimensions"] = str(row["dimensions"])
    cells["model, MB"] = f"{row['model_MB']:.1f}"
    cells["s per query"] = f"{row['seconds_per_query']:.4f}"
    cells["images/s"] = f"{row['images_per_second']:.0f}"
    return cells


def _markdown(rows: list[dict[str, Any]]) -> str:
    """The table with a column a run: runs are few, and figures many."""
    from cbir_tf.evaluation.table import markdown

    columns = [_columns(row) for row in rows]
    names = list(dict.fromkeys(name for each in columns for name in each))
    lines = [[name, *(each.get(name, "") for each in columns)] for name in names]
    return markdown(lines[0], lines[1:])


def _write(folder: Path, rows: list[dict[str, Any]], table: str) -> None:
    from cbir_tf.plots.comparison import comparison_plot

    columns = [_columns(row) for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for each in columns for name in each)))
    writer.writeheader()
    writer.writerows(columns)
    ranks = sorted(
        int(name.removeprefix("recall@"))
        for name in rows[0]["figures"]
        if name.startswith("recall@") and all(name in row["figures"] for row in rows)
    )
    series = {
        figure: {row["run"]: [_with_interval(row, f"{figure}@{k}") for k in ranks] for row in rows}
        for figure in ("recall", "precision")
    }
    plot = comparison_plot(folder / "comparison.png", ranks, series)
    write_text(folder / "comparison.md", table + "\n")
    write_text(folder / "comparison.csv", buffer.getvalue())
    write_text(folder / "comparison.json", json.dumps(rows, indent=2, ensure_ascii=False))
    write_text(folder / "comparison.html", _page(columns, plot))


def _with_interval(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    value = row["figures"][name]
    low, high = row["intervals"].get(name, (value, value))
    return value, low, high


def _page(columns: list[dict[str, str]], plot: Path) -> str:
    """One page that needs nothing else: the table and the plot."""
    names = list(dict.fromkeys(name for each in columns for name in each))
    rows = "\n".join(
        f"<tr><th scope=row>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(each.get(name, ''))}</td>" for each in columns)
        + "</tr>"
        for name in names[1:]
    )
    heads = "".join(f"<th scope=col>{html.escape(each['run'])}</th>" for each in columns)
    picture = base64.b64encode(plot.read_bytes()).decode()
    title = f"Comparison of {len(columns)} runs"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: auto; max-width: 75rem; padding: 1rem }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #8884; padding: .3rem .8rem; text-align: right }}
th:first-child {{ text-align: left }}
img {{ background: #fff; max-width: 100% }}
</style>
<h1>{title}</h1>
<div><table><thead><tr><th></th>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<p>In brackets: 95 % intervals, by resampling the queries; differences are of the same queries.</p>
<img src="data:image/png;base64,{picture}" alt="Recall and precision by number of neighbours">
</html>
"""
