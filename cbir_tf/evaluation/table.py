"""Metrics as Markdown tables, aligned so that they can be read in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from cbir_tf.errors import LISTED


def format_table(result: dict[str, Any]) -> str:
    """The metrics over all queries, with their intervals if there are any.

    map@k is left out: as its denominator stays R it is at most k / R, and beside precision@k of
    nearly 1 a value of nearly 0 reads as a failure. It stays in the result.

    Args:
        result: what `evaluate` returned.

    Returns:
        A title line, an empty line, and a Markdown table.
    """
    intervals = result["intervals"]
    header = ["figure", "value", *(["95 % interval"] if intervals else [])]
    rows = []
    for name, value in result["figures"].items():
        if name.startswith("map@"):
            continue
        row = [name, f"{value:.4f}"]
        if intervals:
            low, high = intervals[name]
            row.append(f"{low:.4f} to {high:.4f}")
        rows.append(row)
    left_out = f", {result['left_out']} left out with nothing relevant" * bool(result["left_out"])
    of_queries, of_gallery = (
        f"{result[split]} " if split in result else "" for split in ("split", "gallery_split")
    )
    title = (
        f"{result['protocol']}: {result['queries']} {of_queries}queries{left_out}, "
        f"{result['gallery']} {of_gallery}images in the gallery, "
        f"{result['metric']} distance{steps(result)}"
    )
    return f"{title}\n\n{markdown(header, rows)}"


def steps(result: Mapping[str, Any]) -> str:
    """The steps of the search beyond plain distances, and the depth of its rankings."""
    if not result.get("search"):
        return ""
    all_ranks = result["depth"] >= result["gallery"] - 1
    return f"; {result['search']}" + ("" if all_ranks else f", {result['depth']} ranks of each")


def format_classes(
    result: dict[str, Any], names: Sequence[str] | None = None, most: int | None = None
) -> str:
    """The metrics by class, a Markdown table with a row for each class, the worst first.

    Args:
        result: what `evaluate` returned.
        names: metrics to show, by the last of which the classes are sorted, equal ones by the
            one before it; None: all, which makes a wide table, sorted by MAP@R.
        most: classes to show; None: all. Where there are more, a line above the table tells so.
    """
    by = ["map_at_r"] if names is None else names[::-1]
    names = list(result["figures"]) if names is None else names
    classes = sorted(
        result["per_class"].items(), key=lambda each: (*(each[1][name] for name in by), each[0])
    )
    rows = [
        [name, str(figures["queries"]), *(f"{figures[each]:.4f}" for each in names)]
        for name, figures in classes[:most]
    ]
    table = markdown(["class", "queries", *names], rows)
    if len(rows) == len(classes):
        return table
    return f"the {len(rows)} worst of {len(classes):,} classes by {by[0]}:\n\n{table}"


def format_accuracy(result: dict[str, Any], split: str) -> str:
    """A line with the accuracy of a trained classifier, and its interval if there is one.

    Args:
        result: accuracy, interval (low and high, or None) and number of images.
        split: split of the images.
    """
    interval = result["interval"]
    between = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    images = f"{result['images']} {split} images"
    return f"classifier: accuracy {result['accuracy']:.4f}{between}, {images}"


def format_classifiers(result: dict[str, Any]) -> str:
    """Accuracies of classifiers fitted to the vectors: a title line and a Markdown table.

    Args:
        result: what `cbir_tf.evaluation.classifier_comparison.classify` returned.
    """
    title = (
        f"{result['test']} test images, fitted to {result['training']} training images of "
        f"{result['dimensions']} dimensions; parameters by {result['folds']}-fold "
        "cross-validation; accuracy of the most frequent class alone "
        f"{result['most_frequent_class']:.4f}"
    )
    if result["left_out"]:
        names, count = list(result["left_out"]), sum(of for _, of in result["left_out"].values())
        more = f" and {len(names) - LISTED} others" if len(names) > LISTED else ""
        title += (
            f"; left out for want of two training images, with their {count} test images: "
            f"{', '.join(names[:LISTED])}{more}"
        )
    rows = []
    for each in result["classifiers"]:
        interval = each.get("interval")
        rows.append(
            [
                each["classifier"],
                f"{each['accuracy']:.4f}",
                f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
                f"{each['macro_f1']:.4f}",
                f"{each['cross_validation']:.4f}",
                ", ".join(f"{key} {value}" for key, value in each["parameters"].items()),
                f"{each['seconds']:.1f}",
            ]
        )
    header = ["classifier", "accuracy", "95 % interval", "macro F1", "cross-validated"]
    return f"{title}\n\n{markdown([*header, 'parameters', 'seconds'], rows)}"


def format_trials(document: Mapping[str, Any]) -> str:
    """The trials of a hyper-parameter search, best first: a title line and a Markdown table.

    Args:
        document: monitor, direction, number of the best trial, keys of the search space, and
            trials as `cbir_tf.tuning.study.trial_rows` returns them.
    """
    sign = 1 if document["direction"] == "minimize" else -1
    order = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
    trials = sorted(
        document["trials"],
        key=lambda row: (
            order[row["state"]],
            sign * (row["value"] or 0),
            row["number"] != document["best"],
            row["number"],
        ),
    )
    counts = ", ".join(
        f"{count} {state}"
        for state in order
        if (count := sum(row["state"] == state for row in trials))
    )
    rows = []
    for row in trials:
        parameters = [row["parameters"].get(key, "") for key in document["space"]]
        state = f"as trial {row['repeats']}" if "repeats" in row else row["state"]
        rows.append(
            [
                str(row["number"]),
                "" if row["value"] is None else f"{row['value']:.4f}",
                *(f"{each:.4g}" if isinstance(each, float) else str(each) for each in parameters),
                f"{row['best_epoch']} of {row['epochs']}" if "epochs" in row else "",
                f"{row['seconds']:.0f}" if "seconds" in row else "",
                state,
            ]
        )
    header = ["trial", document["monitor"], *document["space"], "best epoch", "seconds", "state"]
    return f"{len(trials)} trials: {counts}\n\n{markdown(header, rows)}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table, its first column aligned to the left, the others to the right.

    Args:
        header: a name for each column.
        rows: the cells of each row; a vertical bar in a cell is escaped.

    Example:
        >>> print(markdown(["class", "map"], [["a|b", "0.5"]]))
        | class   |   map |
        |:--------|------:|
        | a\|b    |   0.5 |
    """
    names, *cells = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    alignment = ["left", *["right"] * (len(names) - 1)] if cells else None
    return tabulate(cells, names, "pipe", colalign=alignment, disable_numparse=True)
