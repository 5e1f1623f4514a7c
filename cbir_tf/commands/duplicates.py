"""duplicates: images of a folder or of a run's store that are there again."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.remote import fetch_missing
from cbir_tf.types import UNLABELLED, Embeddings, ImageSet

if TYPE_CHECKING:
    from cbir_tf.data.duplicate_groups import Copy
    from cbir_tf.data.inspection import Inspection

COPIES = ("exact", "near", "similar")
GROUPS_DRAWN = 20
IMAGES_DRAWN = 10
PICTURE_SIDE = 224

_EPILOG = """\
One line an image on standard output, tab-separated: number of the group, kind, difference from the
one to keep, width x height, bytes, path. The kinds:
  keep     the picture of most pixels in the group, then the largest file, then the first by name
  exact    the same bytes as one before it in its group
  near     the same picture by its difference hash, scaled, compressed or recoloured; the difference
           is the number of bits, of 256
  similar  in the group by its embedding alone; the difference is the distance of the embeddings
Groups are connected: of three, the first may be like the second and the second like the third.
Nothing is ever deleted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    where = parser.add_mutually_exclusive_group(required=True)
    # Appending, as of two folders argparse would silently take the second.
    where.add_argument(
        "--images",
        action="append",
        type=path_of,
        metavar="DIR",
        help="every image below a folder, or those its manifest.csv lists; needs no run",
    )
    where.add_argument(
        "--run",
        action="append",
        type=path_of,
        metavar="DIR",
        help="the images extracted into a run",
    )
    parser.add_argument(
        "--distance",
        type=_distance,
        help="with --run: also those whose embeddings are at most so far apart (search.metric)",
    )
    parser.add_argument(
        "--grid",
        type=path_of,
        metavar="PNG",
        help=f"draw the {GROUPS_DRAWN} largest groups here, up to {IMAGES_DRAWN} images of each",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.epilog = _EPILOG


def main(arguments: argparse.Namespace) -> None:
    """Find the groups, print them, draw them."""
    for name in ("images", "run"):
        if len(getattr(arguments, name) or []) > 1:
            raise UserError(f"--{name} is given more than once; look at one after the other")
    from cbir_tf.data.inspection import inspect_images

    if arguments.run is None:
        if arguments.distance is not None:
            raise UserError("--distance compares embeddings; give --run DIR in place of --images")
        inspection = inspect_images(_images_below(arguments.images[0]))
        groups = find_groups(inspection)
    else:
        run = Run.open(arguments.run[0])
        images, embeddings = _stored_images(run)
        inspection = inspect_images(images)
        groups = find_groups(inspection, embeddings, run.config.search.metric, arguments.distance)
    if arguments.json:
        result = {
            "images": len(inspection.images),
            "damaged": dict(inspection.damaged),
            "groups": groups,
        }
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        for number, group in enumerate(groups, 1):
            for each in group:
                print(number, *_columns(each), sep="\t")
    logger.info("%s", _summary(len(inspection.images), groups))
    if arguments.grid:
        _draw(arguments.grid, inspection, groups)
        logger.info("%s", arguments.grid)


def find_groups(
    inspection: Inspection,
    embeddings: Embeddings | None = None,
    metric: str = "cosine",
    distance: float | None = None,
) -> list[list[dict[str, Any]]]:
    """The groups of duplicates, ready for JSON, in the order of `duplicate_groups`.

    Args:
        inspection: the images.
        embeddings: of these images, and perhaps of others.
        metric: of the distance between embeddings.
        distance: images whose embeddings are at most so far apart belong together, too; None: the
            embeddings say nothing.
    """
    from cbir_tf.data.duplicate_groups import duplicate_groups

    if embeddings is None or distance is None:
        return [
            [_described(inspection, each) for each in group]
            for group in duplicate_groups(inspection)
        ]
    from cbir_tf.search.distances import between, find_metric, pairs_within
    from cbir_tf.search.index import positions_of

    arithmetic = find_metric(metric)
    vectors = embeddings.vectors[positions_of(inspection.images.ids, embeddings.ids)]
    groups = []
    for group in duplicate_groups(inspection, pairs_within(arithmetic, vectors, distance)):
        prepared = arithmetic.prepare(vectors[[each.position for each in group]])
        apart = between(arithmetic, prepared[:1], prepared).tolist()
        groups.append(
            [_described(inspection, each, far) for each, far in zip(group, apart, strict=True)]
        )
    return groups


def _described(inspection: Inspection, copy: Copy, distance: float | None = None) -> dict[str, Any]:
    source = inspection.images.sources[copy.position]
    return {
        "kind": copy.kind,
        "id": str(inspection.images.ids[copy.position]),
        "path": address_of(source) if isinstance(source, Path) else None,
        "width": copy.width,
        "height": copy.height,
        "bytes": copy.size,
        "digest": str(inspection.digests[copy.position]),
        "bits": copy.bits,
        "distance": None if distance is None else round(distance, 6),
    }


def _images_below(folder: Path) -> ImageSet:
    from cbir_tf.data.sources import images_in_folder

    images = images_in_folder(folder)
    return _without_links(images.ids.tolist(), images.sources)


def _stored_images(run: Run) -> tuple[ImageSet, Embeddings]:
    """The images in a run's store, and their embeddings."""
    from cbir_tf.data.sources import all_images
    from cbir_tf.features.store import FeatureStore

    with FeatureStore.open(run.features) as store:
        records, embeddings = store.records(), store.embeddings()
    if not records:
        raise UserError(f"{run.features}: empty; run extract.py --run {run.folder}")
    encoded: dict[str, Path | bytes] = {}
    if any(each.path is None for each in records):
        images = all_images(run.config.data)
        encoded = dict(zip(images.ids.tolist(), images.sources, strict=True))
    fetch_missing(each.path for each in records if each.path)
    sources = [each.path or encoded.get(each.id, b"") for each in records]
    return _without_links([each.id for each in records], sources), embeddings


def _without_links(ids: Sequence[str], sources: Sequence[Path | bytes]) -> ImageSet:
    """The images, each file once: who takes a link for a copy may delete what it leads to."""
    places = [
        os.path.realpath(source) if isinstance(source, Path) else id_
        for id_, source in zip(ids, sources, strict=True)
    ]
    linked = [isinstance(source, Path) and source.is_symlink() for source in sources]
    rows: dict[str, int] = {}
    for row in np.argsort(linked, kind="stable").tolist():  # the files themselves first
        rows.setdefault(places[row], row)
    kept = sorted(rows.values())
    if len(kept) < len(ids):
        logger.info("%d links to other images passed over", len(ids) - len(kept))
    count = len(kept)
    return ImageSet(
        ids=np.array([ids[row] for row in kept]),
        sources=tuple(sources[row] for row in kept),
        labels=np.full(count, UNLABELLED),
        split=np.full(count, ""),
        class_names=(),
    )


def _columns(image: dict[str, Any]) -> list[str]:
    """What the epilog promises of one image."""
    size = f"{image['width']}x{image['height']}"
    return [image["kind"], _difference(image), size, str(image["bytes"]), _one_line(image)]


def _difference(image: dict[str, Any]) -> str:
    match image["kind"]:
        case "keep":
            return "-"
        case "similar":
            return f"{image['distance']:.4f}"
    return str(image["bits"])


def _one_line(image: dict[str, Any]) -> str:
    """Path or id, with what would break the line or its columns written as \\n, \\t."""
    name = image["path"] or image["id"]
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def _summary(images: int, groups: Sequence[Sequence[dict[str, Any]]]) -> str:
    copies = [each for group in groups for each in group if each["kind"] != "keep"]
    if not copies:
        return f"no duplicates among {_count(images, 'image')}"
    counts = Counter(each["kind"] for each in copies)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in COPIES if counts[kind])
    megabytes = sum(each["bytes"] for each in copies) / 1e6
    found = _count(len(groups), "group")
    return f"{found} among {images} images; beside those to keep {kinds}: {megabytes:.1f} MB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _draw(path: Path, inspection: Inspection, groups: Sequence[Sequence[dict[str, Any]]]) -> None:
    """The largest groups, the image to keep first."""
    from cbir_tf.plots.grids import Member, group_grid

    sources = dict(zip(inspection.images.ids.tolist(), inspection.images.sources, strict=True))
    rows = []
    for group in groups[:GROUPS_DRAWN]:
        rows.append(
            [
                Member(_pixels(sources[each["id"]]), _heading(each, len(group)), _caption(each))
                for each in group[:IMAGES_DRAWN]
            ]
        )
    shown = f"{GROUPS_DRAWN} largest of " if len(groups) > GROUPS_DRAWN else ""
    title = f"{shown}{_count(len(groups), 'group')} of duplicates"
    group_grid(path, rows, title)


def _pixels(source: Path | bytes) -> np.ndarray | None:
    from cbir_tf.data.decode import ImageError, decode_original

    try:
        return decode_original(source, PICTURE_SIDE)
    except ImageError:  # gone in the meantime
        return None


def _heading(image: dict[str, Any], group_size: int) -> str:
    match image["kind"]:
        case "keep" if group_size > IMAGES_DRAWN:
            return f"keep; {IMAGES_DRAWN} of {group_size}"
        case "near":
            return f"near, {image['bits']} bits"
        case "similar":
            return f"similar, {image['distance']:.4f}"
    return str(image["kind"])


def _caption(image: dict[str, Any]) -> str:
    """Name, folder, size."""
    from cbir_tf.plots.style import clean

    place = Path(image["id"])
    size = f"{image['width']} x {image['height']}, {image['bytes'] / 1e3:.0f} kB"
    folder = "" if place.parent == Path() else str(place.parent)
    return "\n".join([clean(place.name), clean(folder), size])


def _distance(text: str) -> float:
    distance = float(text)
    if not 0 <= distance < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a distance is 0 or more")
    return distance


_distance.__name__ = "distance"  # as argparse names it in its error
