"""COCO's annotation files (instances_*.json): the categories in each image, checked.

The format: https://cocodataset.org/#format-data, object detection.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from types import UnionType
from typing import Any

from cbir_tf.data.folder_source import is_unicode
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError

_KEPT = frozenset(
    {"images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "area"}
    | {"name", "supercategory"}
)
_LARGEST_AREA = 1e15  # in pixels; larger areas are impossible, and would lose digits in a sum


@dataclass(frozen=True)
class Category:
    """A category of the file; the super-category is empty if there is none."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class Annotations:
    """The content of one annotation file.

    Attributes:
        categories: all categories in order of id, with unique names.
        images: categories annotated in each image, the most frequent first (`by_frequency`), by
            file name: a normalised relative path with forward slashes, without leading "..".
    """

    categories: tuple[Category, ...]
    images: dict[str, tuple[Category, ...]]


def by_frequency(annotations: Iterable[tuple[int, float]]) -> list[int]:
    """The category ids of an image's annotations, the most frequent first.

    Ties are broken by the larger total area, then by the smaller id.

    Args:
        annotations: category id and area in pixels of each annotation; in any order.

    Example:
        >>> by_frequency([(1, 20.0), (7, 5.0), (7, 5.0), (3, 20.0)])
        [7, 1, 3]
    """
    areas: dict[int, list[float]] = defaultdict(list)
    for category, area in annotations:
        areas[category].append(area)
    # fsum, as a plain sum depends on the order of its terms.
    return sorted(areas, key=lambda each: (-len(areas[each]), -math.fsum(areas[each]), each))


def read_annotations(path: Path) -> Annotations:
    """Read an instances file.

    A crowd (iscrowd: 1, many objects in one outline) counts as one annotation; an annotation
    without area has area 0. Outlines are dropped while parsing, so that the memory needed is about
    twice the file's size: 0.9 GB and 15 seconds for the 450 MB of instances_train2014.json.

    Raises:
        UserError: the file is missing, not JSON, not in this format, or inconsistent.
    """
    content = _parse(path)
    categories = _categories(content, path)
    names = _file_names(content, path)
    annotated: dict[int | str, list[tuple[int, float]]] = {image: [] for image in names}
    for item in _items(content, "annotations", path):
        where = f"{path}: annotation {item.get('id', '')}".rstrip()
        image = _value(item, "image_id", int | str, where)
        category = _value(item, "category_id", int, where)
        if image not in annotated:
            raise UserError(f"{where}: there is no image {image!r}; correct image_id or images")
        if category not in categories:
            raise UserError(
                f"{where}: there is no category {category!r}; correct category_id or categories"
            )
        annotated[image].append((category, _area(item, where)))
    return Annotations(
        tuple(categories[each] for each in sorted(categories)),
        {
            names[image]: tuple(categories[each] for each in by_frequency(found))
            for image, found in annotated.items()
        },
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=_slim)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of annotations; check data.annotations") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}; check the file") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: not an object with images, annotations and categories; check data.annotations"
        )
    return content


def _slim(values: dict[str, Any]) -> dict[str, Any]:
    """The values needed of an object, without the outlines, which make up most of the file."""
    return {name: value for name, value in values.items() if name in _KEPT}


def _categories(content: dict[str, Any], path: Path) -> dict[int, Category]:
    categories: dict[int, Category] = {}
    names: set[str] = set()
    for number, item in enumerate(_items(content, "categories", path)):
        where = f"{path}: categories[{number}]"
        id_, name = _value(item, "id", int, where), plain(_value(item, "name", str, where))
        for known, what in ((categories, id_), (names, name)):
            if what in known:
                raise UserError(f"{where}: there is another category {what!r}; rename one")
        wider = _value(item, "supercategory", str, where) if item.get("supercategory") else ""
        categories[id_] = Category(id_, name, plain(wider))
        names.add(name)
    return categories


def plain(name: str) -> str:
    """A category's name for use in comma-separated lists, in NFC: commas become semicolons."""
    return nfc(" ".join(name.replace(",", ";").split()))


def _file_names(content: dict[str, Any], path: Path) -> dict[int | str, str]:
    """File name by image id."""
    names: dict[int | str, str] = {}
    for number, item in enumerate(_items(content, "images", path)):
        where = f"{path}: images[{number}]"
        id_ = _value(item, "id", int | str, where)
        if id_ in names:
            raise UserError(f"{where}: another image has the id {id_!r}; give each its own")
        names[id_] = _file_name(_value(item, "file_name", str, where), where)
    if not names:
        raise UserError(f"{path}: lists no images; check data.annotations")
    seen: set[str] = set()
    for name in names.values():
        if name in seen:
            raise UserError(f"{path}: {name!r} is listed twice; keep one of the images")
        seen.add(name)
    return names


def _file_name(name: str, where: str) -> str:
    """The name as a normalised relative path with forward slashes, below the images' folder."""
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "../")) or path in (".", "..") or PureWindowsPath(path).drive:
        raise UserError(
            f"{where}: file_name {name!r} is not below the images' folder; write it relative to "
            "data.path (a link to a file elsewhere is allowed)"
        )
    return path


def _items(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise UserError(f"{path}: has no list of {key}; is it one of COCO's instances_*.json?")
    return items


def _value(item: dict[str, Any], key: str, kind: type | UnionType, where: str) -> Any:
    """A required integer or text."""
    value = item.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        but = f", but {repr(value)[:80]}" if key in item else ""
        raise UserError(f"{where}: has no {key}{but}; add it")
    if isinstance(value, str) and (not value.strip() or "\0" in value or not is_unicode(value)):
        raise UserError(f"{where}: {key} should be text, is {value[:80]!r}; correct it")
    return value


def _area(item: dict[str, Any], where: str) -> float:
    area = item.get("area") or 0
    if not isinstance(area, (int, float)) or not 0 <= area < _LARGEST_AREA:
        raise UserError(f"{where}: area should be a number of pixels, is {area!r}; correct it")
    return float(area)
