"""Keys and defaults of older versions: still read, under their new names, and still kept to."""

from __future__ import annotations

from functools import cache
from typing import Any

from cbir_tf.errors import UserError
from cbir_tf.progress import logger

RENAMED = {
    "plots.projection": "plots.layout",
    "server.batch": "server.max_batch_size",
    "server.mapped": "server.map_max_images",
    "server.megabytes": "server.max_request_megabytes",
    "server.megapixels": "server.max_megapixels",
    "server.most_neighbours": "server.max_neighbours",
    "server.seconds": "server.request_timeout",
    "server.thumbnail": "server.thumbnail_size",
    "server.waiting": "server.max_in_flight",
}
"""Old dotted key -> new dotted key, both of the same section."""

FORMER_DEFAULTS = {"training.monitor": "val_recall@1"}
"""Default of earlier versions by dotted key, where it was another one."""


def rename_keys(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Nested values with every old key under its new name; logs which keys those are.

    Args:
        values: sections by name; not changed.
        where: origin of the values, for the log and for errors.

    Raises:
        UserError: both the old and the new name of a key are given.

    Example:
        >>> rename_keys({"plots": {"projection": "pca", "queries": 3}}, "old.yaml")
        {'plots': {'queries': 3, 'layout': 'pca'}}
    """
    result, found = dict(values), []
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        inner, new_key = result.get(section), new.rpartition(".")[2]
        if not isinstance(inner, dict) or key not in inner:
            continue
        if new_key in inner:
            raise UserError(f"{where}: {old} is the old name of {new}; leave out {old}")
        inner = dict(inner)
        inner[new_key] = inner.pop(key)
        result[section] = inner
        found.append(f"{old} is now {new}")
    if found:
        _log_once(f"{where}: renamed keys, still read: {', '.join(found)}")
    return result


def rename_override(override: str) -> str:
    """A `section.key=value` with the key's new name; logs it if the name is an old one.

    Example:
        >>> rename_override("plots.projection=pca")
        'plots.layout=pca'
        >>> rename_override("search.k=3")
        'search.k=3'
    """
    key, equals, value = override.partition("=")
    if key not in RENAMED:
        return override
    _log_once(f"{override!r}: {key} is now {RENAMED[key]}; the old name is still read")
    return f"{RENAMED[key]}{equals}{value}"


@cache
def _log_once(line: str) -> None:
    """A run's file is read several times by one command."""
    logger.info("%s", line)
