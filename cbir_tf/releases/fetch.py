"""Releases in the cache of this machine: complete and with the right digests, or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cbir_tf.errors import UserError, first_line
from cbir_tf.progress import logger, progress
from cbir_tf.releases.manifest import MANIFEST, check_digest, check_files, read_manifest
from cbir_tf.releases.registry import Entry, Reference, Registry
from cbir_tf.storage.addresses import address_of, is_mirrored, path_of
from cbir_tf.storage.files import cache_folder, new_folder
from cbir_tf.storage.remote import local

TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20  # bytes held in memory

Get = Callable[[str, Path], None]
"""Downloads or copies the file of a release with a name to a path."""


def fetch(reference: Reference, registry: Path | None = None) -> Path:
    """The folder of a release in the cache, downloaded if it is not there yet.

    Digests are checked at every call: the manifest's against the registry, the files' against the
    manifest.

    Args:
        reference: name and version.
        registry: file of the registry; None: `registry_file`.

    Raises:
        UserError: no such release, it could not be downloaded, or a digest differs.
    """
    listed = Registry.load(registry)
    entry = listed.find(reference)
    folder = _place(entry)
    if not folder.is_dir():
        logger.info("fetching %s from %s", reference, entry.address)
        _fetch(entry, source_of(entry.address, listed.file.parent), folder)
    try:
        check_files(folder, entry.sha256)
    except UserError as error:
        raise UserError(f"{error}; delete the folder, then repeat the command") from None
    return folder


def is_fetched(entry: Entry) -> bool:
    """Whether a release is in the cache."""
    return _place(entry).is_dir()


def locate(what: str, registry: Path | None = None) -> tuple[Path, str | None]:
    """The folder of a release on this machine, and the digest of its manifest.

    Args:
        what: NAME@VERSION, which is fetched, or a folder, whose digest is not known (None).
        registry: file of the registry; None: `registry_file`.

    Raises:
        UserError: as `fetch`, or the folder is an address that could not be read.
    """
    if "@" not in what or Path(what).exists():
        return local(what), None
    reference = Reference.of(what)
    return fetch(reference, registry), Registry.load(registry).find(reference).sha256


def source_of(address: str, beside: Path) -> Get:
    """A function that gets the files of a release from where it was published.

    Args:
        address: a folder, or an address s3://, https:// or hf://.
        beside: the folder that a relative one starts from.

    Raises:
        UserError: an address of another kind, or a folder on S3 that could not be read.
    """
    if address.startswith(("https://", "http://")):
        return partial(_download, address)
    if address.startswith("hf://"):
        return partial(_from_hub, address)
    folder = path_of(address)
    if not folder.is_absolute():
        folder = beside / folder
    if is_mirrored(folder):
        local(folder)
    return partial(_copy, folder)


def _place(entry: Entry) -> Path:
    return cache_folder() / "releases" / f"{entry.reference.folder_name}-{entry.sha256[:12]}"


def _fetch(entry: Entry, get: Get, folder: Path) -> None:
    where = entry.address
    with new_folder(folder) as scratch:
        get(MANIFEST, scratch / MANIFEST)
        check_digest(scratch / MANIFEST, entry.sha256, where)
        names = read_manifest(scratch / MANIFEST, where)
        for name in progress(names, len(names), f"fetching {entry.reference}", "files"):
            get(name, scratch / name)
            check_digest(scratch / name, names[name], where)


def _copy(folder: Path, name: str, to: Path) -> None:
    try:
        shutil.copyfile(folder / name, to)
    except FileNotFoundError:
        raise UserError(
            f"{address_of(folder)}: not a release: {name} is missing; check the address"
        ) from None


def _download(address: str, name: str, to: Path) -> None:
    import pooch
    import requests

    url = f"{address.rstrip('/')}/{urllib.parse.quote(name)}"
    try:
        pooch.HTTPDownloader(chunk_size=CHUNK, timeout=TIMEOUT)(url, to, None)
    except requests.HTTPError as error:
        raise UserError(
            f"{url}: could not be downloaded ({first_line(error)}); repeat the command"
        ) from error
    except requests.RequestException as error:
        raise UserError(
            f"{url}: could not be downloaded: {first_line(error)}; check the network"
        ) from error


def _from_hub(address: str, name: str, to: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"{address}: needs huggingface_hub; pip install 'cbir-tf[hub]'") from None
    repository, _, revision = address.removeprefix("hf://").partition("@")
    with tempfile.TemporaryDirectory(dir=to.parent.parent) as scratch:
        try:
            file = hf_hub_download(
                repository,
                name,
                revision=revision or None,
                local_dir=scratch,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        except Exception as error:  # of its HTTP client, which changes by release
            raise UserError(
                f"{address}: {name} could not be downloaded ({first_line(error)}); check the "
                "address "
                "and the network"
            ) from error
        os.replace(file, to)
