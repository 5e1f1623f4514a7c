"""Inspection of every image before a run: damage, digest and difference hash."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cbir_tf.data.decode import ImageError, open_image
from cbir_tf.errors import UserError
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import progress
from cbir_tf.storage.addresses import address_of
from cbir_tf.storage.files import replacing, sha256
from cbir_tf.types import UNLABELLED, ImageSet

log = logging.getLogger(__name__)

HASH_WORDS = 4
_HASH_SIDE = 16
_DECODED = (64, 64)  # JPEGs decoded any smaller hash differently from a rescaled copy
_NOTICEABLE = 2  # gray levels of 255: less is the noise of compression on an even ground
_LISTED = 20
_RESTART = "train again with --restart"
_COLUMNS = ("id", "path", "label", "split", "digest", "hash", "damage")


@dataclass(frozen=True, eq=False)
class Inspection:
    """The images that can be decoded, and the digest and hash of each.

    Attributes:
        images: N images, none of them damaged, in the order of those inspected.
        damaged: id and reason of every image left out.
        digests: (N,) SHA-256 of each image's encoded bytes, hexadecimal.
        hashes: (N, 4) uint64, the 256 bits of each `difference_hash`.
    """

    images: ImageSet
    damaged: tuple[tuple[str, str], ...]
    digests: np.ndarray
    hashes: np.ndarray


def inspect_images(images: ImageSet) -> Inspection:
    """Read and decode every image once, in parallel; leave out those that cannot be decoded.

    Shows progress; memory is a few small images, whatever N.

    Raises:
        UserError: no training image could be decoded, or no image at all.
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
    """Digest and difference hash of an image, or the reason why it has none."""
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        picture = open_image(content, at_least=_DECODED)
    except ImageError as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return sha256(content), difference_hash(picture)


def difference_hash(picture: Image.Image) -> np.ndarray:
    """The 256 bits of a picture's difference hash: where it gets brighter from left to right.

    The picture is scaled to 17 x 16 gray pixels; each bit compares two neighbours. Copies that
    were scaled, compressed or recoloured differ in few bits, unrelated pictures in about 110. A
    step of up to 2 in 255 counts as none, being the noise of compression on an even ground. A
    picture of fewer pixels than the hash has bits gets an empty one: it has no detail to compare.

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
        log.warning("damaged, left out: %s: %s", name, reason)
    log.warning("%d of %d images are damaged and left out", len(damaged), len(images))
    left = inspection.images
    if not len(left) or ((images.split == "train").any() and not (left.split == "train").any()):
        what = "training images" if len(left) else "images"
        raise UserError(
            f"none of the {what} can be decoded; the first of {len(damaged)} damaged is "
            f"{damaged[0][0]!r}: {damaged[0][1]}"
        )


# --- the table of a run's images ----------------------------------------------------------------


def write_image_table(path: Path, inspection: Inspection) -> None:
    """Record the images a run uses, and those left out, as CSV.

    Columns: id; path (empty for images that are no files); label (the class name, or empty);
    split; digest; hash; damage. Of a damaged image there is the id and the reason.

    Raises:
        UserError: the file cannot be written.
    """
    images = inspection.images
    names = (*images.class_names, "")  # label -1 counts from the end
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


def read_image_table(path: Path, images: ImageSet) -> Inspection:
    """The inspection that `write_image_table` recorded, without looking at the images again.

    Args:
        path: the table.
        images: the images that were inspected, loaded again; in any order.

    Raises:
        UserError: there is no such table, it is damaged, or it is of other images, labels or
            splits.
    """
    rows = _read_rows(path)
    changed = _first_change(images, rows)
    if changed is not None:
        raise UserError(f"{path}: {changed} since; put the data back as they were, or {_RESTART}")
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

    Images added since training are left out and missing ones are skipped, both with a line in the
    log: an image added to the data must not move others from one split to another.

    Args:
        path: the table.
        images: the source's images as they are now, in any split.

    Raises:
        UserError: there is no such table, it is damaged, or none of its images was found.
    """
    rows = _read_rows(path)
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
    names = sorted({row["label"] for row in rows.values()} - {""} | set(images.class_names))
    numbers = {name: number for number, name in enumerate(names)} | {"": UNLABELLED}
    return replace(
        kept,
        labels=np.array([numbers[row["label"]] for row in found]),
        split=np.array([row["split"] for row in found]),
        class_names=tuple(names),
    )


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by id, each complete."""
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


def _first_change(images: ImageSet, rows: dict[str, dict[str, str]]) -> str | None:
    """The change of the first image that differs from its row; None: no change."""
    ids = images.ids.tolist()
    # A photo more or less moves others to another split: it is the cause, and named first.
    new = set(ids) - rows.keys()
    if new:
        return f"{min(new)!r} was added"
    gone = {name for name, row in rows.items() if not row["damage"]} - set(ids)
    if gone:
        return f"{min(gone)!r} was removed"
    names = (*images.class_names, "")
    for name, label, split in zip(ids, images.labels.tolist(), images.split.tolist(), strict=True):
        row = rows[name]
        if not row["damage"] and (row["label"], row["split"]) != (names[label], split):
            return f"{name!r} was given another label or split"
    return None
