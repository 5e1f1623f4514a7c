"""A comparison of runs as Markdown, as CSV and as a self-contained HTML page.

All take the document that `cbir compare --json` prints:

    {"split": ..., "gallery_split": ..., "protocol": ...,
     "runs": [{"run": name, "queries": number, "left_out": number, "gallery": number,
               "figures": {name: value}, "intervals": {name: [low, high]},
               "dimensions": of the vectors searched, "model_MB": size of the model file,
               "seconds_per_query": {"median", "low", "high"}, "images_per_second": the same,
               "search": its steps beyond plain distances, absent where there are none,
               "difference_to_first": {figure: fields of `Difference`}}, ...]}
"""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping
from typing import Any

from cbir_tf.evaluation.table import markdown

# Metrics at each rank and of whole rankings in the table; CSV and JSON have all of them.
BY_RANK = ("recall", "precision", "ndcg")
WHOLE = ("map", "map_at_r", "ndcg", "centroid_accuracy")
COMPARED = ("recall@1", "map", "map_at_r")

NOTE = (
    "In brackets: 95 % intervals by resampling the queries; p: p-value of the difference on the "
    "same queries. Seconds per query from the bytes of a picture to its neighbours, images per "
    "second from files to vectors: medians, in brackets 10th to 90th percentile, measured in turns."
)


def ranks_of(document: Mapping[str, Any]) -> list[int]:
    """The ranks k of the metrics, ascending."""
    names = document["runs"][0]["figures"]
    return sorted(int(name.partition("@")[2]) for name in names if name.startswith("recall@"))


def title_of(document: Mapping[str, Any]) -> str:
    """Protocol, queries and gallery in one line."""
    first = document["runs"][0]
    left_out = f", {first['left_out']} left out with nothing relevant" * bool(first["left_out"])
    return (
        f"{document['protocol']}: {first['queries']} {document['split']} queries{left_out}, "
        f"{first['gallery']} {document['gallery_split']} images in the gallery"
    )


def comparison_markdown(document: Mapping[str, Any]) -> str:
    """A title line, a table with a column for each run, and a note."""
    header, *rows = [[name, *cells] for name, cells in _rows(document)]
    return f"{title_of(document)}\n\n{markdown(header, rows)}\n\n{NOTE}"


def comparison_csv(document: Mapping[str, Any]) -> str:
    """A row for each run: every metric with the ends of its interval, sizes and speeds."""
    rows = [_flat(row) for row in document["runs"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {name: row[name] for name in ("run", "queries", "gallery", "dimensions", "model_MB")}
    cells |= {name: row[name] for name in ("search", "depth") if name in row}
    for name in ("seconds_per_query", "images_per_second"):
        cells |= {name: row[name]["median"]}
        cells |= {f"{name}_{end}": row[name][end] for end in ("low", "high")}
    for name, value in row["figures"].items():
        low, high = row["intervals"].get(name, ("", ""))
        cells |= {name: value, f"{name}_low": low, f"{name}_high": high}
    for name, difference in row["difference_to_first"].items():
        cells |= {
            f"{name}_less_first": difference["mean"],
            f"{name}_less_first_low": difference["low"],
            f"{name}_less_first_high": difference["high"],
            f"{name}_less_first_p": difference["p_value"],
        }
    return cells


def _rows(document: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The lines of the table: a name, and a cell for each run."""
    runs = document["runs"]
    figures = [f"{name}@{k}" for name in BY_RANK for k in ranks_of(document)] + list(WHOLE)
    lines = [("run", [row["run"] for row in runs])]
    lines += [(name, [_figure(row, name) for row in runs]) for name in figures]
    lines += [
        (f"{name} minus the first", [_difference(row, name) for row in runs])
        for name in COMPARED
        if any(name in row["difference_to_first"] for row in runs)
    ]
    if any("search" in row for row in runs):
        lines.append(("search", [row.get("search", "plain") for row in runs]))
    return [
        *lines,
        ("metric", [row["metric"] for row in runs]),
        ("dimensions searched", [str(row["dimensions"]) for row in runs]),
        ("model, MB", [f"{row['model_MB']:.1f}" for row in runs]),
        ("seconds per query", [_speed(row["seconds_per_query"], "{:.4f}") for row in runs]),
        ("images per second", [_speed(row["images_per_second"], "{:.0f}") for row in runs]),
    ]


def _figure(row: Mapping[str, Any], name: str) -> str:
    if name not in row["figures"]:
        return ""
    interval = row["intervals"].get(name)
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{row['figures'][name]:.3f}{spread}"


def _difference(row: Mapping[str, Any], name: str) -> str:
    found = row["difference_to_first"].get(name)
    if not found:
        return ""
    p_value = "p < .001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}; {p_value})"


def _speed(values: Mapping[str, float], form: str) -> str:
    low, median, high = (form.format(values[name]) for name in ("low", "median", "high"))
    return f"{median} ({low} to {high})"


def comparison_page(document: Mapping[str, Any], picture: bytes) -> str:
    """A self-contained page with the table and the plot.

    Args:
        document: as above.
        picture: the plot as PNG.
    """
    (_, names), *lines = _rows(document)
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in lines
    )
    encoded = base64.b64encode(picture).decode()
    title = f"{len(names)} runs compared" if len(names) > 1 else names[0]
    return _PAGE.format(
        title=html.escape(title),
        what=html.escape(title_of(document)),
        heads=heads,
        body=body,
        note=html.escape(NOTE),
        picture=encoded,
    )


def _cell(text: str) -> str:
    """The value, and the part in brackets in small print."""
    value, bracket, rest = text.partition(" (")
    small = f" <small>({html.escape(rest)}</small>" if bracket else ""
    return f"{html.escape(value)}{small}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem }}
h1 {{ font-size: 1.5rem; margin: .5rem 0 }}
p {{ max-width: 50rem }}
.table {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #8884; padding: .3rem .8rem; text-align: right;
  white-space: nowrap }}
th:first-child {{ text-align: left }}
thead th {{ border-bottom: 2px solid #8888; max-width: 20rem; overflow-wrap: anywhere;
  vertical-align: bottom; white-space: normal }}
tbody th {{ font-weight: normal }}
small {{ opacity: .7 }}
img {{ background: #fff; border-radius: 6px; height: auto; margin-top: 1rem; max-width: 100% }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{what}</p>
<div class="table" tabindex="0" role="region" aria-label="Figures of each run">
<table>
<thead><tr><th></th>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
<p>{note}</p>
<img src="data:image/png;base64,{picture}"
  alt="Recall and precision by number of neighbours, and mAP by images per second, for each run">
</body>
</html>
"""
