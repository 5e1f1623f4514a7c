"""Progress on standard error: a bar with rate and time left, and log lines that respect it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from cbir_tf.storage.addresses import as_addresses

Item = TypeVar("Item")

logger = logging.getLogger("cbir_tf")


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(as_addresses(self.format(record)), file=sys.stderr)


def log_to_standard_error() -> None:
    """Send the log lines of cbir_tf to standard error, above any progress bar."""
    if not logger.handlers:
        handler = _AboveTheBar()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def progress(
    items: Iterable[Item] | None = None,
    total: int | None = None,
    description: str = "",
    unit: str = "images",
    initial: int = 0,
) -> tqdm:
    """A tqdm bar on standard error; once a minute only where that is not a terminal."""
    return tqdm(
        items,
        total=total,
        desc=description,
        unit=f" {unit}",
        initial=initial,
        file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 60,
        dynamic_ncols=True,
    )
