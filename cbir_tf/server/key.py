"""The API key that every request must bring."""

from __future__ import annotations

import os

from cbir_tf.errors import UserError

KEY = "CBIR_TF_API_KEY"
"""Environment variable."""


def key_of_environment() -> str | None:
    """The key; None where the variable is not set.

    Raises:
        UserError: it is set to what no request can bring.
    """
    key = os.environ.get(KEY)
    if key is None:
        return None
    if not key.strip():
        raise UserError(f"{KEY}: set, but empty; unset it to serve without a key, or give one")
    if key != key.strip() or not key.isprintable():
        raise UserError(f"{KEY}: begins or ends with blanks, or has line breaks; leave them out")
    return key
