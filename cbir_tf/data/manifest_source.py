"""Images from a manifest: a table with a line for each image."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from cbir_tf.data.csv_table import NotATableError, Row, Table, plain_name, read_table
from cbir_tf.data.entries import SPLIT_NAMES, Entry
from cbir_tf.data.files_by_name import FilesByName
from cbir_tf.data.text import column_values, nfc
from cbir_tf.errors import UserError
from cbir_tf.progress import logger

PATH_NAMES = (
    "path", "filepath", "filename", "file", "relativepath",
    "imagepath", "imagefile", "imagefilename", "imagename", "image", "imgpath", "img",
    "picture", "photo",
)  # fmt: skip
"""What the column of paths may be called, as `plain_name` has it; the first of several counts."""
LABEL_NAMES = ("label", "classname", "class", "labelname", "categoryname", "category", "target")
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "fold")
"""Any but the first is one of splits only if it has nothing but names of splits."""
MAX_MISSING = 0.5
_LISTED = 20
_IMAGE = re.compile(r"\.(jpe?g|png|webp|bmp|gif|tiff?)\Z", re.I)


@dataclass(frozen=True)
class _Columns:
    """Places of the columns in a table; None: there is none."""

    path: int
    label: int | None
    split: int | None
    others: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Line:
    """What a line says of an image; the metadata is text as written."""

    number: int
    id: str
    source: Path
    label: str
    split: str
    metadata: Mapping[str, str]


def read_manifest(manifest: Path, max_missing: float = MAX_MISSING) -> list[Entry]:
    """The images that a manifest lists.

    Columns: a path, relative to the manifest or absolute, and perhaps a label, a split and further
    columns, which are metadata (`cbir_tf.data.text.column_values`). Names of columns may be written
    in any case and by a synonym; a list of paths needs none. An id is the path below the manifest's
    folder, with forward slashes; of a file elsewhere, the path as written: ../other/1.jpg, or an
    absolute one. A path with backslashes is read as one of Windows, unless there is a file of that
    name.

    Listed files that are missing are counted and stay in the list, so that the others keep their
    splits; reading the images then leaves them out. A file that is listed again is one image.

    Raises:
        NotATableError: it is no list of images: not CSV, without a column of paths, or without a
            file that is there.
        UserError: it is missing, a line is incomplete or wrong, lines contradict one another, or
            more than the share `max_missing` of the files is missing.
    """
    table = _with_names(read_table(manifest, {*PATH_NAMES, *LABEL_NAMES, *SPLIT_COLUMNS}))
    columns = _columns(table)
    files = FilesByName(manifest.parent)
    lines = [_line(manifest, columns, files, row) for row in table.rows]
    if not lines:
        raise NotATableError(f"{manifest}: lists no images; add a line for each image")
    lines = _each_image_once(manifest, lines)
    _check_missing(manifest, lines, max_missing)
    metadata = _metadata(lines)
    return [
        Entry(each.id, each.label, each.split, values, each.source)
        for each, values in zip(lines, metadata, strict=True)
    ]


# --- columns ------------------------------------------------------------------------------------


def _with_names(table: Table) -> Table:
    """The table, with a name for the only column where the first line is an image already."""
    if len(table.columns) != 1 or not _IMAGE.search(table.columns[0]):
        return table
    return Table(table.path, ("path",), (Row(1, table.columns), *table.rows))


def _columns(table: Table) -> _Columns:
    names = [plain_name(each) for each in table.columns]
    path = _place(names, PATH_NAMES)
    if path is None:
        first = ",".join(table.columns)[:200]
        advice = "is the first line an image? " if _IMAGE.search(" ".join(table.columns)) else ""
        raise NotATableError(
            f"{table.path}: the first line must name the columns path,label[,split]; it is "
            f"{first!r}; {advice}write the names above the images"
        )
    label = _place(names, LABEL_NAMES)
    split = _place(names, SPLIT_COLUMNS[:1])
    if split is None:
        split = _synonym_of_split(table, names)
    places = {"path": path, "label": label, "split": split}
    renamed = [
        f"{table.columns[place]!r} as {name}"
        for name, place in places.items()
        if place is not None and table.columns[place] != name
    ]
    if renamed:
        logger.info("%s: read %s", table.path, ", ".join(renamed))
    others = tuple(
        (place, name)
        for place, name in enumerate(table.columns)
        if name and place not in places.values()
    )
    if "id" in dict(others).values():
        logger.warning(
            "%s: conditions on id are on the ids of the images, not on the column 'id'; rename the "
            "column to filter by it",
            table.path,
        )
    return _Columns(path, label, split, others)


def _place(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(each) for each in wanted if each in names), None)


def _synonym_of_split(table: Table, names: Sequence[str]) -> int | None:
    place = _place(names, SPLIT_COLUMNS[1:])
    if place is None:
        return None
    values = {row.cells[place].lower() for row in table.rows} - {""}
    return place if values and values <= SPLIT_NAMES.keys() else None


# --- lines --------------------------------------------------------------------------------------


def _line(manifest: Path, columns: _Columns, files: FilesByName, row: Row) -> _Line:
    where = f"{manifest} line {row.line}"
    written = row.cells[columns.path]
    if not written or posixpath.normpath(written) == ".":
        raise UserError(f"{where}: the path is empty; write one, or remove the line")
    if "\0" in written:
        raise UserError(f"{where}: {written[:80]!r} can be no path; correct it")
    split = "" if columns.split is None else row.cells[columns.split]
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(
            f"{where}: no split {split!r}; write train, validation or test, or leave it empty"
        )
    id_, source = files.find(written)
    return _Line(
        row.line,
        id_,
        source,
        "" if columns.label is None else nfc(row.cells[columns.label]),
        SPLIT_NAMES.get(split.lower(), ""),
        {name: row.cells[place] for place, name in columns.others if row.cells[place]},
    )


def _each_image_once(manifest: Path, lines: Sequence[_Line]) -> list[_Line]:
    """One line for each file; lines that contradict one another in label or split are refused."""
    first: dict[str, _Line] = {}
    again, differing = 0, []
    for line in lines:
        place = os.path.normpath(line.source)
        known = first.setdefault(place, line)
        if known is line:
            continue
        again += 1
        for what, here, there in (
            ("label", known.label, line.label),
            ("split", known.split, line.split),
        ):
            if here and there and here != there:
                raise UserError(
                    f"{manifest} lines {known.number} and {line.number}: {line.id!r} has the "
                    f"{what} {here!r} and the {what} {there!r}; keep one of the lines"
                )
        if any(known.metadata.get(name, value) != value for name, value in line.metadata.items()):
            differing.append(line)
        first[place] = _Line(
            known.number,
            min(known.id, line.id, key=os.path.isabs),  # the same whichever comes first
            known.source,
            known.label or line.label,
            known.split or line.split,
            {**line.metadata, **known.metadata},
        )
    if again:
        logger.info("%s: %d lines list a file again", manifest, again)
    if differing:
        logger.warning(
            "%s: %d lines list a file again with other metadata, which is left out, the first is "
            "line %d: %s",
            manifest,
            len(differing),
            differing[0].number,
            differing[0].id,
        )
    return list(first.values())


def _metadata(lines: Sequence[_Line]) -> list[dict[str, str | float]]:
    """The metadata of each line, numbers in those columns that have nothing else."""
    result: list[dict[str, str | float]] = [{} for _ in lines]
    for name in dict.fromkeys(name for line in lines for name in line.metadata):
        rows = [row for row, line in enumerate(lines) if name in line.metadata]
        values = column_values([lines[row].metadata[name] for row in rows])
        for row, value in zip(rows, values, strict=True):
            result[row][name] = value
    return result


def _check_missing(manifest: Path, lines: Sequence[_Line], max_missing: float) -> None:
    missing = [each.id for each in lines if not os.path.isfile(each.source)]
    if not missing:
        return
    found = f"{manifest}: {len(missing)} of {len(lines)} files were not found"
    if len(missing) > max_missing * len(lines):
        kind = NotATableError if len(missing) == len(lines) else UserError
        raise kind(f"{found}, the first {missing[0]!r}; {_advice(manifest, missing[0])}")
    for each in missing[:_LISTED]:
        logger.warning("not found, left out: %s", each)
    logger.warning("%s and are left out", found)


def _advice(manifest: Path, missing: str) -> str:
    if re.match(r"[a-z][a-z0-9+.-]+:/", missing, re.I):
        return "download the images, and write the paths of the files"
    if PureWindowsPath(missing).drive and os.name != "nt":
        return f"it is a path of Windows; write paths relative to {manifest.parent}"
    parent = manifest.parent.resolve().parent
    if os.path.isfile(parent / missing):
        return f"they are relative to {parent}: move the manifest there"
    return (
        f"write paths relative to {manifest.parent}, or absolute ones; the largest share that may "
        "be missing is data.max_missing"
    )
