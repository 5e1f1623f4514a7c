"""Images with annotations in COCO's format, labelled by their most frequent category."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.config.data import Coco, Data
from cbir_tf.data.coco_annotations import Category, plain, read_annotations
from cbir_tf.data.entries import SPLIT_NAMES, Entry, image_set
from cbir_tf.data.folder_source import check_folder, files_below, is_unicode
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.remote import local
from cbir_tf.types import ImageSet

log = logging.getLogger(__name__)

_SPLIT_WORD = re.compile("|".join(f"(?<![a-z]){each}(?![a-z])" for each in SPLIT_NAMES), re.I)


@dataclass(frozen=True)
class _Image:
    """An image with annotations: its file name and split as listed, its categories."""

    name: str
    split: str
    categories: tuple[Category, ...]

    @property
    def category(self) -> Category:
        """The category with most annotations in the image."""
        return self.categories[0]


def coco(data: Data) -> ImageSet:
    """The annotated images of COCO or of a data set in its format; the others are only counted.

    The label is the category with most annotations in the image; in case of a tie, the category of
    the larger total area, then of the smaller id (`coco_annotations.by_frequency`). With
    data.coco.level: supercategory it is the super-category of that category. The metadata:

        category          the category above
        categories        all categories of the image, the most frequent first: dog,person
        supercategory     super-category of the category
        supercategories   all super-categories of the image, in the same order: animal,person

    An id is the path below data.path. A listed image whose file is missing stays in the set under
    its file name; the inspection then reports it as damaged.

    If there are several files, and the name or the folder of each names another split, as
    instances_train2014.json and instances_val2014.json, they give the split.

    Raises:
        UserError: the folder or a file was not found, a file is malformed or inconsistent, none of
            its images was found, or data.coco selects no category.
    """
    assert data.path is not None  # checked by the configuration
    root = local(data.path)
    check_folder(root, "check data.path")
    files = [local(each) for each in data.annotations] or _annotation_files(root)
    splits = [_split_of(each) for each in files]
    images, wider = _read(files, splits)
    images = _selected(images, wider, data.coco)
    own_split = all(splits) and len(set(splits)) > 1
    entries = [
        Entry(
            path,
            each.category.name if data.coco.level == "category" else each.category.supercategory,
            each.split if own_split else "",
            _metadata(each),
        )
        for each, path in zip(images, _paths(root, images), strict=True)
    ]
    return image_set(root, entries)


def _metadata(image: _Image) -> dict[str, str | float]:
    columns = {
        "category": image.category.name,
        "categories": ",".join(each.name for each in image.categories),
        "supercategory": image.category.supercategory,
        # A dict keeps the first of each in order.
        "supercategories": ",".join({each.supercategory: None for each in image.categories}),
    }
    return {name: text for name, text in columns.items() if text.strip(",")}


# --- annotation files ---------------------------------------------------------------------------


def _annotation_files(root: Path) -> list[Path]:
    """The instances file of a folder, or the instances files of its splits."""
    found = sorted(root.glob("annotations/instances_*.json"))
    if not found:
        raise UserError(
            f"{root}: has no annotations/instances_*.json; name the file in data.annotations"
        )
    splits = [_split_of(each) for each in found]
    same_but_for_split = len({_SPLIT_WORD.sub("", each.stem) for each in found}) == 1
    if len(found) > 1 and not (same_but_for_split and len(set(splits)) == len(found)):
        names = ", ".join(each.name for each in found)
        raise UserError(
            f"{found[0].parent}: contains {names}; name one of them in data.annotations"
        )
    return found


def _split_of(file: Path) -> str:
    """The split in the name of an instances file or of its folder; empty: none."""
    return _split_in(file.stem) or _split_in(file.parent.name)


def _split_in(name: str) -> str:
    words = {SPLIT_NAMES[each.lower()] for each in _SPLIT_WORD.findall(name)}
    return words.pop() if len(words) == 1 else ""


def _read(files: Sequence[Path], splits: Sequence[str]) -> tuple[list[_Image], dict[str, str]]:
    """The images with annotations, and the super-category of each category by name."""
    images = []
    wider: dict[str, str] = {}
    for file, split in zip(files, splits, strict=True):
        annotations = read_annotations(file)
        for each in annotations.categories:
            known = wider.setdefault(each.name, each.supercategory)
            if known != each.supercategory:
                raise UserError(
                    f"{file}: the category {each.name!r} has the super-category "
                    f"{each.supercategory!r}, in another file {known!r}; correct one of them"
                )
        listed = annotations.images.items()
        images += [_Image(name, split, found) for name, found in listed if found]
        without = sum(not found for _, found in listed)
        if without == len(listed):
            raise UserError(
                f"{file}: none of the {without} images has an annotation; check data.annotations"
            )
        if without:
            log.info("%s: %d of %d images without annotations left out", file, without, len(listed))
    return images, wider


# --- selection ----------------------------------------------------------------------------------


def _selected(images: list[_Image], wider: Mapping[str, str], options: Coco) -> list[_Image]:
    """The images of the configured categories."""
    counts = Counter(each.category.name for each in images)
    chosen = _chosen(counts, wider, options)
    kept = [each for each in images if each.category.name in chosen]
    if not kept:
        raise UserError("data.coco: no image has one of the chosen categories; choose others")
    if len(kept) < len(images):
        log.info("%d of %d images have one of the chosen categories", len(kept), len(images))
    return kept


def _chosen(counts: Mapping[str, int], wider: Mapping[str, str], options: Coco) -> set[str]:
    """The names of the configured categories.

    Args:
        counts: number of images by category.
        wider: super-category by category.
        options: the selection.
    """
    if (
        options.level == "supercategory"
        or options.supercategories
        or options.categories_per_supercategory
    ):
        without = [name for name in counts if not wider[name]]
        if without:
            raise UserError(
                f"data.coco: the category {without[0]!r} has no supercategory; add it to the file, "
                "or choose by level: category and categories"
            )
    if options.categories:
        return set(_known("categories", options.categories, wider))
    names = [name for name in wider if counts[name]]
    if options.supercategories:
        asked = _known("supercategories", options.supercategories, wider.values())
        names = [name for name in names if wider[name] in asked]
    members = defaultdict(list)
    for name in sorted(names, key=lambda name: -counts[name]):  # ties stay in order of id
        members[wider[name]].append(name)
    return {
        name for each in members.values() for name in each[: options.categories_per_supercategory]
    }


def _known(key: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    names, known = [plain(each) for each in names], sorted(set(known))
    for name in names:
        if name not in known:
            raise UserError(f"data.coco.{key}: no {name!r}; {nearest(name, known)}")
    return names


# --- files --------------------------------------------------------------------------------------


def _paths(root: Path, images: Sequence[_Image]) -> list[str]:
    """The path of each image below the folder; of a missing image, its file name.

    Raises:
        UserError: all are missing, a name fits several files, or several images are one file.
    """
    same_name: dict[str, list[str]] = {nfc(_last(each.name)): [] for each in images}
    for path in files_below(root):
        if is_unicode(path) and nfc(_last(path)) in same_name:
            same_name[nfc(_last(path))].append(path)
    paths, missing = [], []
    for each in images:
        found = [path for path in same_name[nfc(_last(each.name))] if _ends(path, each.name)]
        if not found:
            missing.append(each.name)
        paths.append(_only(root, each, found) if found else each.name)
    if len(missing) == len(images):
        raise UserError(
            f"{root}: none of the {len(images)} images was found, for example {missing[0]!r}; set "
            "data.path to the folder of the images"
        )
    path, times = Counter(paths).most_common(1)[0]
    if times > 1:
        raise UserError(f"{root}: {path!r} is listed {times} times; keep one of the images")
    return paths


def _only(root: Path, image: _Image, found: list[str]) -> str:
    """The file of an image, out of those with its name."""
    same = [path for path in found if nfc(path) == nfc(image.name)]
    if same:
        return min(same, key=lambda path: path != image.name)
    if len(found) > 1:
        # If the files of each split are numbered from 1, only their folders differ.
        parts = {path: path.split("/")[:-1] for path in found}
        of_split = [path for path in found if image.split in map(_split_in, parts[path])]
        found = of_split if image.split and of_split else found
    if len(found) > 1:
        raise UserError(
            f"{root}: {image.name!r} could be {found[0]!r} or {found[1]!r}; set data.path to the "
            "folder of the images"
        )
    return found[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _ends(path: str, name: str) -> bool:
    return f"/{nfc(path)}".endswith(f"/{nfc(name)}")
