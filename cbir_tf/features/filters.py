"""Conditions on stored images.

A condition is one comparison; with several conditions, an image must meet all of them:

    label=rose,tulip     any of several; quote a value with a comma: label="lily, day",rose
    label!=rose          none of them; an image without a value meets this too
    label=               no value: unlabelled
    year>=2020           an order: of numbers in a column of numbers, otherwise of text
    tags~cat,dog         any of several among the comma-separated values of a metadata column:
                         `tags=cat` matches cat only, `tags~cat` also cat,sofa
    gallery=holidays     of a further folder; gallery=run are the run's own images
    split=test, id=..., path=..., and every metadata column by its name

A metadata column is one of numbers if each of its values is a number or written as one
(`cbir_tf.data.text.number_of`); numbers are compared exactly, whatever their length. Any other
column is text, and 0012 is not 12. Text is compared in Unicode NFC.
"""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbir_tf.data.text import nfc, number_of, text_of
from cbir_tf.errors import UserError, nearest
from cbir_tf.types import UNLABELLED

COLUMNS = ("id", "path", "label", "split", "gallery")
Value = str | float

_CONDITION = re.compile(
    r"(?P<name>[^=<>!~]+?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<values>.*)", re.S
)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_DATE = re.compile(r"[0-9]{4}([-/][0-9]{2}([-/][0-9]{2}([T ].*)?)?)?", re.S)


@dataclass(frozen=True)
class Condition:
    """One comparison, of a column that the store has.

    Attributes:
        text: as the user wrote it.
        name: of the column.
        operator: =, !=, >=, <=, >, < or ~.
        values: in NFC; one for an order, one or several otherwise.
    """

    text: str
    name: str
    operator: str
    values: tuple[str, ...]


def rows_meeting(
    conditions: Sequence[str],
    class_names: Sequence[str],
    metadata_names: Collection[str],
    cells_of: Callable[[str], list[Any]],
) -> np.ndarray:
    """Which images meet all conditions.

    Args:
        conditions: as above.
        class_names: class names by label.
        metadata_names: the store's metadata columns.
        cells_of: the values of a column in all N images, None where there is none: the values of
            all tell a column of numbers from one of text. Of label, the numbers.

    Returns:
        (N,) bool.

    Raises:
        UserError: as `parse_conditions` and `meeting`.

    Example:
        >>> columns = {"label": [0, 1, -1], "year": [2020, 2019, None]}
        >>> rows_meeting(["label!=a", "year!=2020"], "ab", ["year"], columns.__getitem__).tolist()
        [False, True, True]
    """
    kept = np.ones(len(cells_of("label")), dtype=bool)
    for each in parse_conditions(conditions, class_names, metadata_names):
        cells = cells_of(each.name)
        if each.name == "label":
            kept &= np.isin(cells, labels_meeting(each, class_names))
        else:
            kept &= meeting(each, cells)
    return kept


def parse_conditions(
    conditions: Sequence[str], class_names: Sequence[str], metadata_names: Collection[str]
) -> list[Condition]:
    """Conditions as the user writes them, checked.

    Args:
        conditions: as above.
        class_names: class names by label.
        metadata_names: the store's metadata columns.

    Raises:
        UserError: not a comparison, an unknown column or class, or an order comparison of labels.

    Example:
        >>> parse_conditions(["label=b,c", "year>=2020"], "abc", ["year"])[0].values
        ('b', 'c')
    """
    known = [*COLUMNS, *sorted(map(nfc, metadata_names))]
    names = set(map(nfc, class_names))
    return [_parse(each, names, known) for each in conditions]


def column_of(condition: str) -> str | None:
    """The column that a condition is about; None: it is no comparison.

    Example:
        >>> column_of("year >= 2020")
        'year'
    """
    match = _CONDITION.fullmatch(condition.strip())
    return None if match is None else nfc(match["name"].strip())


def _parse(text: str, class_names: Collection[str], columns: Sequence[str]) -> Condition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"where {text!r}: not a comparison; write it as label=rose,tulip or year>=2020"
        )
    name, sign = nfc(match["name"].strip()), match["operator"]
    if name not in columns:
        raise UserError(f"where {text!r}: no column {name!r}; {nearest(name, columns)}")
    if sign == "~" and name in COLUMNS:
        raise UserError(f"where {text!r}: an image has one {name}; use =")
    if sign == "~":
        values = tuple(listed(match["values"]))
    elif sign in _ORDERS and not match["values"].startswith('"'):
        values = (nfc(match["values"]),)
    else:
        values = _values(text, match["values"])
    if name == "label" and sign not in ("=", "!="):
        raise UserError(f"where {text!r}: labels have no order; use = or !=")
    if sign in _ORDERS and len(values) != 1:
        raise UserError(f"where {text!r}: {sign} compares with one value; give one")
    if name == "label":
        for value in values:
            if value and value not in class_names:
                advice = nearest(value, sorted(class_names))
                raise UserError(f"where {text!r}: no class {value!r}; {advice}")
    return Condition(text, name, sign, values)


def _values(condition: str, text: str) -> tuple[str, ...]:
    """The comma-separated values; quotation marks protect a comma, as in a CSV file."""
    try:
        (values,) = csv.reader([text], skipinitialspace=True, strict=True) if text else [[""]]
    except csv.Error as error:
        raise UserError(f"where {condition!r}: {error}; close the quotation marks") from None
    return tuple(nfc(each.strip()) for each in values)


def listed(value: Value) -> list[str]:
    """The comma-separated values of a column, without surrounding spaces and empty values.

    Example:
        >>> listed("cat, sofa,"), listed(7)
        (['cat', 'sofa'], ['7'])
    """
    return [nfc(each.strip(" ")) for each in text_of(value).split(",") if each.strip(" ")]


def labels_meeting(condition: Condition, class_names: Sequence[str]) -> list[int]:
    """The labels that meet a condition on label; -1 is the unlabelled images'."""
    names = [*map(nfc, class_names), ""]
    named = [each in condition.values for each in names]
    labels = [*range(len(class_names)), UNLABELLED]
    return [
        label
        for label, is_named in zip(labels, named, strict=True)
        if is_named is (condition.operator == "=")
    ]


def meeting(condition: Condition, cells: Sequence[Value | None]) -> np.ndarray:
    """Which images meet a condition on any other column.

    Args:
        condition: a parsed one.
        cells: (N,) values of the column in all N images; None or empty text where there is none.

    Returns:
        (N,) bool.

    Raises:
        UserError: an order of numbers in a column of text, or of text in a column of numbers.

    Example:
        >>> (year,) = parse_conditions(["year!=2020"], [], ["year"])
        >>> meeting(year, [2020, 2021, None]).tolist()
        [False, True, True]
    """
    distinct, met = set(cells), set[Value | None]()
    present = [cell for cell in distinct if cell is not None and cell != ""]
    if condition.operator == "~":
        wanted = set(condition.values)
        met = {cell for cell in present if not wanted.isdisjoint(listed(cell))}
    elif condition.operator in _ORDERS:
        met = _ordered(condition, present)
    else:
        met = _equal(condition, present)
        met |= {cell for cell in (None, "") if "" in condition.values}
        if condition.operator == "!=":
            met = distinct - met
    return np.fromiter((cell in met for cell in cells), dtype=bool, count=len(cells))


def _equal(condition: Condition, present: Sequence[Value]) -> set[Value | None]:
    """The values that are one of the condition's."""
    numbers = _numbers(condition, present)
    if numbers is None:
        return {cell for cell in present if nfc(text_of(cell)) in condition.values}
    wanted = {number_of(each) for each in condition.values} - {None}
    return {cell for cell, number in zip(present, numbers, strict=True) if number in wanted}


def _ordered(condition: Condition, present: Sequence[Value]) -> set[Value | None]:
    """The values on the condition's side of its value."""
    (value,), holds = condition.values, _ORDERS[condition.operator]
    numbers, asked = _numbers(condition, present), number_of(value)
    where = f"where {condition.text!r}:"
    if numbers is not None:
        if asked is None:
            raise UserError(f"{where} {condition.name} is a column of numbers; give a number")
        pairs = zip(present, numbers, strict=True)
        return {cell for cell, number in pairs if holds(number, asked)}
    texts = {cell: nfc(text_of(cell)) for cell in present}
    # Text in order of its characters puts 9 after 10; only dates are written for that order.
    is_name = condition.name in COLUMNS
    if asked is not None and not is_name and not all(map(_DATE.fullmatch, texts.values())):
        text = min(text for text in texts.values() if number_of(text) is None)
        raise UserError(
            f"{where} {condition.name} is a column of text, as {text[:80]!r} is not written as a "
            "number; correct the column, or compare with = or !="
        )
    return {cell for cell, text in texts.items() if holds(text, value)}


def _numbers(condition: Condition, present: Sequence[Value]) -> list[Any] | None:
    """The number of each value if the column is one of numbers."""
    if condition.name in COLUMNS:
        return None
    numbers = [number_of(cell) for cell in present]
    return None if None in numbers else numbers
