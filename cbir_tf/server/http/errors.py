"""What goes wrong with a request, in words and with its HTTP status."""

from __future__ import annotations

from pathlib import Path

from cbir_tf.errors import UserError


class RequestError(Exception):
    """A request that cannot be answered, and why.

    Attributes:
        status: 4xx, or 503 and 507 for what the client cannot mend.
        retry_after: seconds after which the same request may succeed; None: no hint.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def impossible(error: UserError, folder: Path) -> RequestError:
    """A value that cannot be; as in a request, not as on the command line.

    Args:
        error: what is wrong.
        folder: of the run, which is no one's business.
    """
    text = " ".join(str(error).split()).replace("--where", "where")
    return RequestError(422, text.replace(f"{folder}/", "").replace(str(folder), "the run"))
