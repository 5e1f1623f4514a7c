"""What goes wrong with a request, in words and with its HTTP status."""

from __future__ import annotations

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


def impossible(error: UserError) -> RequestError:
    """A value that cannot be; options are named as in the request, not as on the command line."""
    text = " ".join(str(error).split())
    return RequestError(422, text.replace("--where", "where").replace("--split", "split"))
