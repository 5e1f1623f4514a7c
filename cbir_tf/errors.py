"""The exception for mistakes in the user's input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 12


class UserError(Exception):
    """A mistake in the user's input: what, where and how to correct it, in one line.

    The command line prints it without a traceback and ends with status 2.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest of the known names, or a list of them.

    Example:
        >>> nearest("cosin", ["cosine", "euclidean"])
        "did you mean 'cosine'?"
    """
    names = [str(each) for each in names]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = [f"... ({len(names)} in all)"] if len(names) > LISTED else []
    return f"choose one of: {', '.join(names[:LISTED] + more)}"


def first_line(error: Exception) -> str:
    """The first line of another package's error, as part of a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
