"""duplicates: duplicate images in a folder or in a run's feature store."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.storage.addresses import path_of

if TYPE_CHECKING:
    from cbir_tf.data.duplicate_images import DuplicateImage

COPIES = ("exact", "near", "similar")

_EPILOG = """\
Output: a line for each image, tab-separated: number of the group, kind, difference from the image
to keep, width x height, bytes, path. The kinds:
  keep     the image of most pixels in the group, then of the largest file, then the first by name
  exact    the same bytes as an earlier image of the group
  near     the same picture by difference hash, scaled, compressed or recoloured; the difference
           is the number of bits, of 256
  similar  in the group by its embedding alone; the difference is the distance of the embeddings
Groups are connected: two images of a group may be similar only through a third one.
No file is deleted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    where = parser.add_mutually_exclusive_group(required=True)
    # Appended, as argparse would silently use only the last of two folders.
    where.add_argument(
        "--images",
        action="append",
        type=path_of,
        metavar="DIR",
        help="check every image below a folder, or the images of its manifest.csv; needs no run",
    )
    where.add_argument(
        "--run",
        action="append",
        type=path_of,
        metavar="DIR",
        help="check the images in a run's feature store",
    )
    parser.add_argument(
        "--distance",
        type=_distance,
        help="with --run: also group images whose embeddings are at most this distance apart, by "
        "search.metric",
    )
    parser.add_argument(
        "--grid",
        type=path_of,
        metavar="PNG",
        help="file for a picture of the 20 largest groups, up to 10 images of each",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.epilog = _EPILOG


def main(arguments: argparse.Namespace) -> None:
    """Find the groups, print them, draw them."""
    for name in ("images", "run"):
        if len(getattr(arguments, name) or []) > 1:
            raise UserError(f"--{name} is given more than once; run the command once for each")
    from cbir_tf.retrieval.duplicate_search import duplicates_in_folder, duplicates_in_run

    if arguments.run is not None:
        found = duplicates_in_run(Run.open(arguments.run[0]), arguments.distance)
    elif arguments.distance is not None:
        raise UserError("--distance compares embeddings; give --run DIR in place of --images")
    else:
        found = duplicates_in_folder(arguments.images[0])
    inspection, groups = found.inspection, found.groups
    if arguments.json:
        document = {
            "images": len(inspection.images),
            "damaged": dict(inspection.damaged),
            "groups": [[asdict(each) for each in group] for group in groups],
        }
        print(json.dumps(document, ensure_ascii=False), flush=True)
    else:
        for number, group in enumerate(groups, 1):
            for each in group:
                print(number, *_columns(each), sep="\t")
    logger.info("%s", _summary(len(inspection.images), groups))
    if arguments.grid:
        from cbir_tf.plots.duplicate_grid import duplicate_grid

        logger.info("%s", duplicate_grid(arguments.grid, groups, inspection.images))


def _columns(image: DuplicateImage) -> list[str]:
    """The columns after the number of the group, see `_EPILOG`."""
    difference = {"keep": "-", "similar": f"{image.distance or 0:.4f}"}
    return [
        image.kind,
        difference.get(image.kind, str(image.bits)),
        f"{image.width}x{image.height}",
        str(image.bytes),
        _printable(image.path or image.id),
    ]


def _printable(name: str) -> str:
    """A name with line breaks, tabs and other unprintable characters escaped, as \\n or \\t."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def _summary(images: int, groups: Sequence[Sequence[DuplicateImage]]) -> str:
    copies = [each for group in groups for each in group if each.kind != "keep"]
    if not copies:
        return f"no duplicates among {_count(images, 'image')}"
    counts = Counter[str](each.kind for each in copies)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in COPIES if counts[kind])
    megabytes = sum(each.bytes for each in copies) / 1e6
    found = _count(len(groups), "group")
    return f"{found} among {images} images; besides those to keep {kinds}: {megabytes:.1f} MB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _distance(text: str) -> float:
    distance = float(text)
    if not 0 <= distance < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a distance is 0 or more")
    return distance


_distance.__name__ = "distance"  # argparse shows this name in its error
