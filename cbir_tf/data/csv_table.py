"""Tables as spreadsheets and other programs write them: any delimiter, the usual encodings."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.progress import logger

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"
# What text of another encoding looks like when it is read as Windows-1252: UTF-8 (Ã¼), three
# accented letters in a row (Cyrillic, Greek), or signs that are never part of a word.
_DOUBTFUL = re.compile(
    r"[\xc2\xc3][\x80-\xbf]|[\xc0-\xff]{3}|[\xfe\xff]{2}|(?<!\w)[\u2019\u201d\xbb](?=\w)"
    r"|[\u0192\u2020-\u2022\u02c6\u2030\u2039\u203a\u02dc\xa1-\xa6\xa8\xac\xae\xaf\xb1\xb6\xb9\xbc-\xbf\xd7\xf7](?=\w)"
)


class _Strict(csv.excel):
    """A quotation mark that is never closed is an error, and does not swallow the rest."""

    skipinitialspace = True
    strict = True


class NotATableError(UserError):
    """The file is not a table, or not one with the wanted columns."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        line: its number in the file, counted from 1; of its last line where it has several.
        cells: one for each column, without blanks around; empty where the line is shorter.
    """

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table with a line of names.

    Attributes:
        path: of the file.
        columns: their names, without blanks around, in NFC; unique but for empty ones.
        rows: those with a cell that is not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def plain_name(column: str) -> str:
    """The name of a column without case, blanks and punctuation, to be compared.

    Example:
        >>> plain_name(" File_Name ")
        'filename'
    """
    return re.sub(r"[\W_]+", "", nfc(column)).casefold()


def read_table(path: Path, names: Collection[str]) -> Table:
    """Read a table with a line of names.

    The delimiter is a comma, semicolon, tab or vertical bar: the one that the line `sep=;` of
    spreadsheets names, otherwise the one with which the line of names has most of `names`. The
    encoding is UTF-8, or UTF-16 or UTF-32 with a byte order mark, or Windows-1252 (a warning says
    so).

    Args:
        path: the file.
        names: of columns to look for, as `plain_name` has them.

    Raises:
        NotATableError: no text in these encodings, or no CSV.
        UserError: the file is missing or unreadable, a column is there twice, or a line has more
            cells than the table has columns.
    """
    text, separator = _without_separator_line(_decoded(path))
    delimiter = separator or _delimiter(text, names)
    skipped = 1 if separator else 0
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    reader = csv.reader(io.StringIO(text, newline=""), _Strict, delimiter=delimiter)
    try:
        for cells in reader:
            stripped = [each.strip() for each in cells]
            if not columns:
                columns = _columns(path, stripped) if any(stripped) else ()
                continue
            line = reader.line_num + skipped
            extra = [each for each in stripped[len(columns) :] if each]
            if extra:
                raise UserError(
                    f"{path} line {line}: {extra[0][:80]!r} is in no column, the first line names "
                    f"{len(columns)}; put cells that contain the delimiter into quotation marks"
                )
            if any(stripped):
                missing = [""] * (len(columns) - len(stripped))
                rows.append(Row(line, tuple([*stripped, *missing][: len(columns)])))
    except csv.Error as error:
        raise NotATableError(
            f"{path} line {reader.line_num + skipped}: cannot be read as CSV: {error}; correct the "
            "quotation marks, or save it as CSV in UTF-8"
        ) from None
    return Table(path, columns, tuple(rows))


def _columns(path: Path, cells: list[str]) -> tuple[str, ...]:
    columns = tuple(map(nfc, cells))
    twice = [each for each in columns if each and columns.count(each) > 1]
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} is there twice; rename or remove one")
    return columns


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such manifest; check data.path") from None
    except OSError as error:
        raise UserError(
            f"{path}: could not be read: {error.strerror or error}; check the file"
        ) from None
    if content.startswith(_SPREADSHEETS):
        raise NotATableError(f"{path}: in a spreadsheet's own format; save it as CSV in UTF-8")
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refusal = NotATableError(
            f"{path} line {line}: not text in {encoding.removesuffix('-sig').upper()}, nor in "
            "Windows-1252; save it as CSV in UTF-8"
        )
        if encoding != "utf-8":
            raise refusal from None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise refusal from None
    if "\0" in text or _DOUBTFUL.search(text):
        raise refusal
    words = re.findall(r"\w*[^\x00-\x7f]\w*", text)
    logger.warning(
        "%s: not in UTF-8; read as Windows-1252, for example %r; if that is wrong, save it as CSV "
        "in UTF-8",
        path,
        words[0],
    )
    return text


def _encoding(content: bytes) -> str:
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return name
    zeros = [content[place:1000:2].count(0) for place in (0, 1)]
    if any(zeros):  # ASCII characters in UTF-16 have a zero byte before or after
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    return "utf-8"


def _without_separator_line(text: str) -> tuple[str, str]:
    """The text without a first line such as sep=; and its delimiter, empty if there is none."""
    match = re.match(r'"?sep=([^\n\r])"?[ \t,;]*(\r\n|\n|\r|\Z)', text, re.I)
    return (text[match.end() :], match[1]) if match else (text, "")


def _delimiter(text: str, names: Collection[str]) -> str:
    """The delimiter that gives the first line most known names, then most cells."""

    def known_and_all(delimiter: str) -> tuple[int, int]:
        try:
            lines = csv.reader(io.StringIO(text, newline=""), _Strict, delimiter=delimiter)
            cells = next(filter(any, lines), [])
        except csv.Error:
            return 0, 0
        return sum(plain_name(each) in names for each in cells), len(cells)

    best = max(_DELIMITERS, key=known_and_all)  # the first of those alike
    # In a table of one column a comma is part of a path.
    return best if known_and_all(best)[1] > 1 else _NO_DELIMITER
