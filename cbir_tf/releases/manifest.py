"""The manifest of a release: SHA256SUMS over all its files, as `sha256sum` writes and checks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cbir_tf.errors import UserError
from cbir_tf.storage.files import sha256, write_text

MANIFEST = "SHA256SUMS"
MOST_FILES = 100

# No folders, no hidden files: a name can lead nowhere else, on any system or server.
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")


def write_manifest(folder: Path) -> None:
    """Write the digests of all files of a folder, in order of their names.

    Raises:
        UserError: it could not be written.
    """
    digests = {each.name: sha256(each) for each in folder.iterdir() if each.name != MANIFEST}
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    write_text(folder / MANIFEST, "".join(lines))


def read_manifest(file: Path, where: str | Path) -> dict[str, str]:
    """Digests by file name.

    Args:
        file: the manifest.
        where: folder or address that an error names.

    Raises:
        UserError: missing, or not a manifest.
    """
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(f"{where}: not a release: {MANIFEST} is missing; check the place") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: {MANIFEST} could not be read ({error}); check its permissions"
        ) from None
    matches = [_LINE.fullmatch(line) for line in lines[: MOST_FILES + 1]]
    digests = {match[2]: match[1] for match in matches if match}
    if not 0 < len(digests) == len(lines) <= MOST_FILES or MANIFEST in digests:
        raise UserError(f"{where}: {MANIFEST} is damaged; fetch the release again")
    return digests


def check_digest(file: Path, digest: str, where: str | Path) -> None:
    """Raise a UserError unless a file of a release is there, byte for byte."""
    if not file.is_file():
        raise UserError(f"{where}: {file.name} is missing; fetch the release again")
    if sha256(file) != digest:
        raise UserError(
            f"{where}: {file.name} is not the file that was released (its SHA-256 differs); fetch "
            "the release again, and if that does not help, do not use it"
        )


def check_files(folder: Path, manifest_digest: str | None = None) -> Mapping[str, str]:
    """Check that a folder holds what its manifest lists, byte for byte, and nothing else.

    Args:
        folder: of a release.
        manifest_digest: SHA-256 of the manifest, from a registry; None: not known.

    Returns:
        Digests by file name.

    Raises:
        UserError: a file is missing, changed, or not in the manifest.
    """
    digests = read_manifest(folder / MANIFEST, folder)
    if manifest_digest is not None:
        check_digest(folder / MANIFEST, manifest_digest, folder)
    for name, digest in digests.items():
        check_digest(folder / name, digest, folder)
    further = sorted({each.name for each in folder.iterdir()} - {MANIFEST, *digests})
    if further:
        raise UserError(f"{folder}: {further[0]} is not in {MANIFEST}; take it out")
    return digests
