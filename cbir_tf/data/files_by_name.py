"""Files by names that a list gives them, which may be written otherwise than on the disk."""

from __future__ import annotations

import os
import posixpath
from functools import cache
from pathlib import Path

from cbir_tf.data.text import nfc


class FilesByName:
    """Finds files by path: with backslashes as on Windows, in either Unicode form.

    Args:
        root: the folder that relative paths count from.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.abspath(root)
        self._real_root = os.path.realpath(root)
        self._real = cache(os.path.realpath)
        self._entries = cache(_entries)

    def find(self, written: str) -> tuple[str, Path]:
        """Id and path of a file, whether or not it is there.

        Args:
            written: its path; relative to the root, or absolute.

        Returns:
            The id: its path below the root with forward slashes; of a file elsewhere, the path as
            written, without needless parts. The path: as on the disk.
        """
        slashed = written.replace("\\", "/")
        names = [slashed] if os.sep == "\\" else list(dict.fromkeys([written, slashed]))
        found = {name: self._on_disk(os.path.join(self.root, name)) for name in names}
        name = next((name for name in names if found[name]), slashed)
        path = found[name] or os.path.normpath(os.path.join(self.root, name))
        below = self._below_root(path, os.path.isabs(name))
        if below is not None:
            return below.replace(os.sep, "/"), Path(self.root, below)
        return posixpath.normpath(name.replace(os.sep, "/")), Path(path)

    def _below_root(self, path: str, through_links: bool) -> str | None:
        """The path of a file relative to the root; None for a file elsewhere."""
        places = [path]
        if through_links:  # the root may have been reached through a link, or the file
            folder, last = os.path.split(path)
            places.append(os.path.join(self._real(folder), last))
        for place in places:
            for root in (self.root, self._real_root):
                if place.startswith(os.path.join(root, "")):
                    return os.path.relpath(place, root)
        return None

    def _on_disk(self, path: str) -> str | None:
        """The path of the file as on the disk; None if there is none."""
        path = os.path.normpath(path)
        # os.path, as pathlib raises an error if a name is too long for the file system.
        if os.path.isfile(path):
            return path
        if path.isascii():
            return None
        folder, name = os.path.split(path)
        inside = self._folder_on_disk(folder)
        found = None if inside is None else self._entries(inside).get(nfc(name))
        path = os.path.join(inside or "", found or "")
        return path if found and os.path.isfile(path) else None

    def _folder_on_disk(self, path: str) -> str | None:
        if os.path.isdir(path):
            return path
        parent, name = os.path.split(path)
        if parent == path:
            return None
        inside = self._folder_on_disk(parent)
        found = None if inside is None else self._entries(inside).get(nfc(name))
        return None if inside is None or found is None else os.path.join(inside, found)


def _entries(folder: str) -> dict[str, str]:
    """Names in a folder by their composed form."""
    try:
        return {nfc(name): name for name in sorted(os.listdir(folder), reverse=True)}
    except OSError:
        return {}
