"""A verified release put where others find it: seen there whole or not at all, never replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.publishing.publish_github import publish_to_github
from cbir_tf.publishing.publish_hub import publish_to_hub
from cbir_tf.publishing.verify import Description
from cbir_tf.releases.manifest import MANIFEST, read_manifest
from cbir_tf.releases.registry import Entry, Reference, Registry
from cbir_tf.storage.addresses import address_of, is_mirrored, path_of
from cbir_tf.storage.files import cannot_write, replacing, sha256, user_errno
from cbir_tf.storage.remote import local, send

Publish = Callable[[Path, Reference, str], str]
"""Sends a release's folder to a place; returns the address that it is fetched from."""

HUB = "hf://"
GITHUB = "github:"


def publish(folder: Path, to: str, registry: Registry) -> Entry:
    """Send a release somewhere, then note it in a registry.

    An interrupted call is gone on with by the same one. A release that is there already, byte for
    byte, is left as it is.

    Args:
        folder: of a release that has been verified.
        to: a folder, or s3://bucket/folder, which get one named NAME-VERSION; hf://owner/name;
            or github:owner/repository.
        registry: gets its entry last.

    Raises:
        UserError: another release of this name and version is there or in the registry, or the
            place cannot be reached or written to.
    """
    description = Description.load(folder)
    reference = description.reference
    entry = Entry(
        name=reference.name,
        version=reference.version,
        address=to,
        sha256=sha256(folder / MANIFEST),
        licence=description.licence,
    )
    registry.check_free(entry)
    address = _publisher(to)(folder, reference, to)
    entry = entry.model_copy(update={"address": _relative(address, registry.file.parent)})
    registry.add(entry)
    return entry


def _publisher(to: str) -> Publish:
    if to.startswith(HUB):
        return publish_to_hub
    if to.startswith(GITHUB):
        return publish_to_github
    return _publish_to_folder


def _relative(address: str, beside: Path) -> str:
    """An address as the registry has it: a folder below its own from there."""
    if "://" in address:
        return address
    place, beside = Path(address).resolve(), beside.resolve()
    return str(place.relative_to(beside)) if place.is_relative_to(beside) else str(place)


def _publish_to_folder(folder: Path, reference: Reference, to: str) -> str:
    """Into a folder, or one of S3 by way of its mirror."""
    place = path_of(to) / reference.folder_name
    if is_mirrored(place):
        local(place / MANIFEST, missing_ok=True)
    if place.resolve() != folder.resolve():
        is_there = _is_there(folder, place)
        # A copy puts right what was damaged there since; from S3 all would have to be fetched.
        if not (is_there and is_mirrored(place)):
            copy_release(folder, place)
    if is_mirrored(place):
        send(place)
    return address_of(place)


def _is_there(folder: Path, place: Path) -> bool:
    """Whether a place holds this release.

    Raises:
        UserError: it holds another.
    """
    manifest = place / MANIFEST
    if not manifest.is_file():
        return False
    if manifest.read_bytes() != (folder / MANIFEST).read_bytes():
        raise UserError(
            f"{address_of(place)}: another release of this name and version is there; a version is "
            "never replaced: pack with a higher --version"
        )
    logger.info("%s: is there already", address_of(place))
    return True


def copy_release(folder: Path, place: Path) -> None:
    """Copy a release, its manifest last; what an interrupted copy has left is not copied again.

    Raises:
        UserError: it cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if user_errno(error):
            raise cannot_write(place, error) from error
        raise
    digests = read_manifest(folder / MANIFEST, folder) | {MANIFEST: sha256(folder / MANIFEST)}
    for name, digest in digests.items():
        target = place / name
        if target.is_file() and sha256(target) == digest:
            continue
        with replacing(target) as temporary:
            shutil.copyfile(folder / name, temporary)
            os.chmod(temporary, 0o644)
