"""Metrics at several levels of a class hierarchy, for example category and super-category."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.evaluation.metrics import evaluate
from cbir_tf.storage.addresses import path_of
from cbir_tf.types import UNLABELLED, Embeddings

Levels = Mapping[str, Mapping[str, str]]
"""Level -> class -> the class's name at that level: {"super-category": {"dog": "animal"}}."""


def evaluate_levels(
    queries: Embeddings,
    gallery: Embeddings | None,
    levels: Levels,
    class_names: Sequence[str],
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """`evaluate` at each level: an item is relevant if its class has the query's name there.

    The ranking is the same at every level; only the relevance differs.

    Args:
        queries: labelled embeddings.
        gallery: as for `evaluate`.
        levels: name of every class, by level.
        class_names: class names by label.
        options: the other arguments of `evaluate`.

    Returns:
        Level -> what `evaluate` returns.

    Raises:
        UserError: as `evaluate`, or a level has no name for a class.

    Example:
        >>> found = Embeddings(list("abc"), [[1, 0], [4, 1], [0, 1]], [0, 1, 1])
        >>> levels = {"kingdom": {"cat": "animal", "dog": "animal"}}
        >>> results = evaluate_levels(found, None, levels, ["cat", "dog"], k=(1,))
        >>> results["kingdom"]["figures"]["map"]
        1.0
    """
    results = {}
    for level, name_of in levels.items():
        names = sorted(set(name_of.values()))
        numbers = _numbers(level, name_of, names, class_names, [queries, gallery])
        at_level = [
            None if each is None else Embeddings(each.ids, each.vectors, numbers[each.labels])
            for each in (queries, gallery)
        ]
        assert at_level[0] is not None
        results[level] = evaluate(at_level[0], at_level[1], class_names=names, **options)
    return results


def _numbers(
    level: str,
    name_of: Mapping[str, str],
    names: Sequence[str],
    class_names: Sequence[str],
    embeddings: Sequence[Embeddings | None],
) -> np.ndarray:
    """(C + 1,) number at the level by label; the last entry is for unlabelled images."""
    used = {label for each in embeddings if each is not None for label in each.labels.tolist()}
    missing = [
        name for label, name in enumerate(class_names) if label in used and name not in name_of
    ]
    if missing:
        raise UserError(f"level {level!r} has no name for the class {missing[0]!r}; add it")
    index = {name: number for number, name in enumerate(names)}
    numbers = [index[name_of[name]] if name in name_of else UNLABELLED for name in class_names]
    return np.array([*numbers, UNLABELLED])


def read_levels(path: str | Path) -> dict[str, dict[str, str]]:
    """Levels from a CSV file: the first column is the class, each further one a level.

    Args:
        path: a file such as ``class,super-category`` and a line for each class.

    Raises:
        UserError: the file could not be read or has no level, or a line has an empty cell or too
            many cells.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "levels.csv"
        ...     _ = path.write_text("class,kingdom\\ncat,animal\\n", encoding="utf-8")
        ...     read_levels(path)
        {'kingdom': {'cat': 'animal'}}
    """
    path = path_of(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [list(map(nfc, row)) for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: could not be read ({error}); check the file") from None
    if len(header) < 2 or len(set(header)) < len(header) or not rows:
        raise UserError(
            f"{path}: expected a line such as class,super-category and a line for each class; "
            "correct it"
        )
    levels: dict[str, dict[str, str]] = {level: {} for level in header[1:]}
    for row in rows:
        if len(row) != len(header) or not all(cell.strip() for cell in row):
            raise UserError(f"{path}: {','.join(row)[:80]!r} lacks a name in a column; add it")
        if row[0] in levels[header[1]]:
            raise UserError(f"{path}: the class {row[0]!r} is listed twice; delete one")
        for level, name in zip(header[1:], row[1:], strict=True):
            levels[level][row[0]] = name
    return levels
