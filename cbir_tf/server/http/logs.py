"""Logs as lines of JSON on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from cbir_tf.storage.addresses import as_addresses


def write_line(level: str, message: str, **fields: Any) -> None:
    """Write one line: time, level, message and further fields."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "message": message, **fields}
    sys.stderr.write(json.dumps(line) + "\n")


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        trace = {}
        if record.exc_info:
            trace["trace"] = logging.Formatter().formatException(record.exc_info)
        write_line(record.levelname.lower(), as_addresses(record.getMessage()), **trace)


def log_json_lines() -> None:
    """Send the log of cbir_tf and uvicorn to standard error, as lines of JSON."""
    for name, level in (("cbir_tf", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [_JsonLines()]
        logger.setLevel(level)
        logger.propagate = False
