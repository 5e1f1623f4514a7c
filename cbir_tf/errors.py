"""The one exception that means: the user's input is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 12


class UserError(Exception):
    """What is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and ends with status 2.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint naming what the user may have meant: the nearest name, else those there are."""
    names = [str(each) for each in names]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = [f"... ({len(names)} in all)"] if len(names) > LISTED else []
    return f"choose one of: {', '.join(names[:LISTED] + more)}"


def first_line(error: Exception) -> str:
    """What an error of another package says, as a part of our one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
