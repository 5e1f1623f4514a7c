"""Conditions on stored images, compiled to SQL with parameters.

A condition is one comparison; with several conditions, an image must meet all of them:

    label=rose,tulip     any of several; quote a value with a comma: label="lily, day",rose
    label!=rose          none of them
    year>=2020           numbers are compared as numbers, text as text
    tags~cat,dog         any of several among the comma-separated values of a metadata column:
                         `tags=cat` matches cat only, `tags~cat` also cat,sofa
    split=test, id=..., path=..., and every metadata column by its name
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence

from cbir_tf.errors import UserError, nearest

COLUMNS = ("id", "path", "label", "split")
_CONDITION = re.compile(
    r"(?P<name>[^=<>!~]+?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<values>.*)", re.S
)

Value = str | float


def compile_conditions(
    conditions: Sequence[str], class_names: Sequence[str], metadata_names: Collection[str]
) -> tuple[str, list[Value]]:
    """An SQL expression over the table of features, and its parameters.

    Args:
        conditions: as above.
        class_names: class names by label.
        metadata_names: the store's metadata columns.

    Raises:
        UserError: not a comparison, an unknown column or class, or an order comparison of labels.

    Example:
        >>> compile_conditions(["label=b,c", "year>=2020"], "abc", ["year"])[1]
        [1, 2, 'year', 'year', 2020.0]
    """
    parts: list[str] = []
    parameters: list[Value] = []
    for condition in conditions:
        expression, values = _compile(condition, class_names, metadata_names)
        parts.append(f"({expression})")
        parameters += values
    return " AND ".join(parts) or "1", parameters


def _compile(
    condition: str, class_names: Sequence[str], metadata_names: Collection[str]
) -> tuple[str, list[Value]]:
    match = _CONDITION.fullmatch(condition.strip())
    if match is None:
        raise UserError(
            f"where {condition!r}: not a comparison; write it as label=rose,tulip or year>=2020"
        )
    name, operator, text = match["name"].strip(), match["operator"], match["values"]
    if name not in COLUMNS and name not in metadata_names:
        known = [*COLUMNS, *sorted(metadata_names)]
        raise UserError(f"where {condition!r}: no column {name!r}; {nearest(name, known)}")
    values = _values(condition, text) if operator in ("=", "!=") else [text]
    if operator == "~" and name in COLUMNS:
        raise UserError(f"where {condition!r}: an image has one {name}; use =")
    if name == "label":
        return _labels(condition, operator, values, class_names)
    if name in COLUMNS:
        return _comparison(name, [], operator, list(values))
    # Not json_extract: in its paths a name cannot hold a quotation mark.
    column = "(SELECT value FROM json_each(metadata) WHERE key = ?)"
    if operator == "~":
        return _any_of(column, name, listed(text))
    return _comparison(column, [name], operator, list(map(_number, values)))


def _values(condition: str, text: str) -> list[str]:
    """The comma-separated values; quotation marks protect a comma, as in a CSV file."""
    try:
        (values,) = csv.reader([text], skipinitialspace=True, strict=True) if text else [[""]]
    except csv.Error as error:
        raise UserError(f"where {condition!r}: {error}; close the quotation marks") from None
    return [each.strip() for each in values]


def listed(value: Value) -> list[str]:
    """The comma-separated values of a column, without surrounding spaces and empty values."""
    return [each.strip(" ") for each in str(value).split(",") if each.strip(" ")]


def _any_of(column: str, name: str, values: Sequence[str]) -> tuple[str, list[Value]]:
    # The text as a JSON array, whose items its commas separate.
    items = f"""'[' || replace(json_quote(CAST({column} AS TEXT)), ',', '","') || ']'"""
    marks = ", ".join("?" * len(values))
    expression = f"EXISTS (SELECT 1 FROM json_each({items}) WHERE trim(value) IN ({marks}))"
    return expression, [name, *values]


def _labels(
    condition: str, operator: str, values: Sequence[str], class_names: Sequence[str]
) -> tuple[str, list[Value]]:
    if operator not in ("=", "!="):
        raise UserError(f"where {condition!r}: labels have no order; use = or !=")
    for value in values:
        if value not in class_names:
            advice = nearest(value, list(class_names))
            raise UserError(f"where {condition!r}: no class {value!r}; {advice}")
    return _comparison("label", [], operator, [list(class_names).index(each) for each in values])


def _comparison(
    column: str, of_column: list[Value], operator: str, values: list[Value]
) -> tuple[str, list[Value]]:
    if operator in ("=", "!="):
        marks = ", ".join("?" * len(values))
        if operator == "=":
            return f"{column} IN ({marks})", [*of_column, *values]
        # An image without a value in the column meets != too.
        absent = f"{column} IS NULL OR {column} NOT IN ({marks})"
        return absent, [*of_column, *of_column, *values]
    # SQLite orders every number before every text, so only values of one type are compared.
    kinds = "('text')" if isinstance(values[0], str) else "('integer', 'real')"
    expression = f"typeof({column}) IN {kinds} AND {column} {operator} ?"
    return expression, [*of_column, *of_column, *values]


def _number(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text
