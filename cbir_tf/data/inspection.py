"""Inspection of every image before a run: damage, digest and difference hash."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cbir_tf.data.decode import ImageError, open_image
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import progress
from cbir_tf.storage.addresses import address_of
from cbir_tf.storage.files import replacing, sha256
from cbir_tf.types import UNLABELLED, ImageSet

log = logging.getLogger(__name__)

HASH_WORDS = 4
_HASH_SIDE = 16
_DECODED = (64, 64)  # a JPEG decoded at a smaller size has another hash than a rescaled copy
_NOTICEABLE = 2  # gray levels of 255: smaller steps are compression noise on an even background
_LISTED = 20
_RESTART = "run cbir train with --restart"
_COLUMNS = ("id", "path", "label", "split", "digest", "hash", "damage")


@dataclass(frozen=True, eq=False)
class Inspection:
    """The images that can be decoded, and the digest and hash of each.

    Attributes:
        images: the N images that are not damaged, in the order of inspection.
        damaged: id and reason of each damaged image.
        digests: (N,) SHA-256 of each image's encoded bytes, hexadecimal.
        hashes: (N, 4) uint64, the 256 bits of each `difference_hash`.
    """

    images: ImageSet
    damaged: tuple[tuple[str, str], ...]
    digests: np.ndarray
    hashes: np.ndarray


def inspect_images(images: ImageSet) -> Inspection:
    """Read and decode each image once, in parallel; leave out images that cannot be decoded.

    Shows progress; memory holds a few small images, independent of N.

    Raises:
        UserError: no training image, or no image at all, could be decoded.
    """
    digests: list[str] = []
    hashes: list[np.ndarray] = []
    damaged: list[tuple[str, str]] = []
    whole = np.ones(len(images), dtype=bool)
    with progress(total=len(images), description="inspecting") as bar:
        for number, found in enumerate(in_parallel(_look, images.sources)):
            if isinstance(found, str):
                damaged.append((str(images.ids[number]), found))
                whole[number] = False
            else:
                digests.append(found[0])
                hashes.append(found[1])
            bar.update()
    inspection = Inspection(
        images.take(whole),
        tuple(damaged),
        np.array(digests, dtype="U64"),
        np.array(hashes, dtype=np.uint64).reshape(-1, HASH_WORDS),
    )
    _report_damage(images, inspection)
    return inspection


def _look(source: Path | bytes) -> tuple[str, np.ndarray] | str:
    """Digest and difference hash of an image, or the reason why it could not be decoded."""
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        picture = open_image(content, at_least=_DECODED)
    except ImageError as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return sha256(content), difference_hash(picture)


def difference_hash(picture: Image.Image) -> np.ndarray:
    """The 256-bit difference hash of an image: where brightness increases from left to right.

    The image is scaled to 17 x 16 gray pixels; each bit compares two horizontal neighbours. Scaled,
    compressed or recoloured copies differ in few bits, unrelated images in about 110. Steps of up
    to 2 in 255 are ignored as compression noise on an even background. An image of fewer pixels
    than the hash has bits gets an empty hash: it has too little detail to compare.

    Args:
        picture: RGB.

    Returns:
        (4,) uint64.
    """
    if picture.width <= _HASH_SIDE or picture.height < _HASH_SIDE:
        return np.zeros(HASH_WORDS, dtype=np.uint64)
    small = picture.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BILINEAR)
    brighter = np.diff(np.asarray(small).astype(np.int16), axis=1) > _NOTICEABLE
    return np.packbits(brighter).view(">u8").astype(np.uint64)


def _report_damage(images: ImageSet, inspection: Inspection) -> None:
    damaged = inspection.damaged
    if not damaged:
        return
    for name, reason in damaged[:_LISTED]:
        log.warning("left out: %s: %s", name, reason)
    log.warning("%d of %d images cannot be decoded and are left out", len(damaged), len(images))
    left = inspection.images
    if not len(left) or ((images.split == "train").any() and not (left.split == "train").any()):
        what = "training images" if len(left) else "images"
        raise UserError(
            f"data: none of the {what} can be decoded; check the files, the first of "
            f"{len(damaged)} is {damaged[0][0]!r}: {damaged[0][1]}"
        )


# --- the table of a run's images ----------------------------------------------------------------


def write_image_table(path: Path, inspection: Inspection) -> None:
    """Write the images of a run, and the damaged ones, as CSV.

    Columns: id; path (empty for images that are not files); label (class name, or empty); split;
    digest; hash; damage. A damaged image has only its id and the reason.

    Raises:
        UserError: the file cannot be written.
    """
    images = inspection.images
    names = (*images.class_names, "")  # label -1 is the last one
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(
            (name, address_of(source) if isinstance(source, Path) else "", names[label], *rest, "")
            for name, source, label, *rest in zip(
                images.ids,
                images.sources,
                images.labels,
                images.split,
                inspection.digests,
                (words.tobytes().hex() for words in inspection.hashes.astype(">u8")),
                strict=True,
            )
        )
        writer.writerows((name, *[""] * 5, reason) for name, reason in inspection.damaged)


def read_image_table(path: Path, images: ImageSet, has_split: bool = True) -> Inspection:
    """The inspection that `write_image_table` wrote, without reading the images again.

    Args:
        path: the table.
        images: the inspected images, loaded again; in any order.
        has_split: compare the splits too; otherwise the images get those of the table.

    Raises:
        UserError: the table is missing or damaged, or has other images, labels or splits.
    """
    rows = _read_rows(path)
    images = _as_recorded(images, rows)
    if not has_split:
        recorded = [rows[name]["split"] if name in rows else "" for name in images.ids.tolist()]
        images = replace(images, split=np.array(recorded))
    changed = _first_change(images, rows)
    if changed is not None:
        raise UserError(f"{path}: {changed} since; restore the data, or {_RESTART}")
    whole = np.array([not rows[each]["damage"] for each in images.ids.tolist()], dtype=bool)
    left = images.take(whole)
    kept = [rows[each] for each in left.ids.tolist()]
    hashes = b"".join(bytes.fromhex(row["hash"]) for row in kept)
    return Inspection(
        left,
        tuple((name, row["damage"]) for name, row in rows.items() if row["damage"]),
        np.array([row["digest"] for row in kept], dtype="U64"),
        np.frombuffer(hashes, dtype=">u8").astype(np.uint64).reshape(-1, HASH_WORDS),
    )


def recorded_images(path: Path, images: ImageSet) -> ImageSet:
    """The undamaged images of a table, with the labels and splits they had in training.

    Images added since training are left out and missing images are skipped, both with a line in the
    log: an image added to the data must not move others from one split to another.

    Args:
        path: the table.
        images: the current images of the source, in any split.

    Raises:
        UserError: the table is missing or damaged, or none of its images was found.
    """
    rows = _read_rows(path)
    images = _as_recorded(images, rows)
    ids = images.ids.tolist()
    new = sorted(set(ids) - rows.keys())
    gone = sorted(name for name, row in rows.items() if not row["damage"] and name not in set(ids))
    for names, what in ((new, "new since training, left out"), (gone, "gone since training")):
        if names:
            log.warning("%d of the images %s, the first %s", len(names), what, names[0])
    kept = images.take(np.array([name in rows and not rows[name]["damage"] for name in ids], bool))
    if not len(kept):
        raise UserError(f"{path}: none of its {len(rows)} images was found; {_RESTART}")
    found = [rows[name] for name in kept.ids.tolist()]
    names = sorted({nfc(row["label"]) for row in rows.values()} - {""} | set(images.class_names))
    numbers = {name: number for number, name in enumerate(names)} | {"": UNLABELLED}
    return replace(
        kept,
        labels=np.array([numbers[nfc(row["label"])] for row in found]),
        split=np.array([row["split"] for row in found]),
        class_names=tuple(names),
    )


def recorded_splits(path: Path) -> dict[str, str]:
    """The split of each undamaged image of a table, by id.

    Raises:
        UserError: the table is missing or damaged.
    """
    return {name: row["split"] for name, row in _read_rows(path).items() if not row["damage"]}


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The complete rows of a table by id."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = {row["id"]: row for row in reader if None not in row.values()}
        sound = tuple(reader.fieldnames or ()) == _COLUMNS and all(
            row["damage"] or len(bytes.fromhex(row["hash"])) == 8 * HASH_WORDS
            for row in rows.values()
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {_RESTART}") from error
    except (ValueError, KeyError, csv.Error):
        sound = False
    if not sound:
        raise UserError(f"{path}: not a table of images, or damaged; {_RESTART}")
    return rows


def _as_recorded(images: ImageSet, rows: Mapping[str, Mapping[str, str]]) -> ImageSet:
    """The images with the ids of the table, where these are in another Unicode form."""
    ids = images.ids.tolist()
    others = {nfc(name): name for name in rows.keys() - set(ids)}
    recorded = [name if name in rows else others.pop(nfc(name), name) for name in ids]
    return images if recorded == ids else replace(images, ids=np.array(recorded))


def _first_change(images: ImageSet, rows: dict[str, dict[str, str]]) -> str | None:
    """The change of the first image that differs from its row; None: no change."""
    ids = images.ids.tolist()
    # An added or removed image can change the split of others: report the cause first.
    new = set(ids) - rows.keys()
    if new:
        return f"{min(new)!r} was added"
    gone = {name for name, row in rows.items() if not row["damage"]} - set(ids)
    if gone:
        return f"{min(gone)!r} was removed"
    names = (*images.class_names, "")
    for name, label, split in zip(ids, images.labels.tolist(), images.split.tolist(), strict=True):
        row = rows[name]
        if not row["damage"] and (nfc(row["label"]), row["split"]) != (names[label], split):
            return f"{name!r} was given another label or split"
    return None
