"""Text as people and other programs write it: one Unicode form, and which text is a number."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

# No leading zero, plus sign, blank, underscore or digit of another script; an exponent has a sign
# and two digits, as programs write it: 0012, 1_000 and 5E3 are codes, 1e-05 is a number.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]{2,3})?")
_EXACT = 2**53
"""Integers up to here are exact in every program that reads JSON (RFC 7493, section 2.2)."""


def nfc(text: str) -> str:
    """The text in Unicode's composed form (NFC), in which names are compared.

    macOS and some archives write an accent as a character of its own.

    Example:
        >>> nfc("Cafe\\u0301") == "Caf\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def forms(text: str) -> tuple[str, ...]:
    """The text as it is, and in those of Unicode's two forms in which it is another.

    Example:
        >>> len(forms("cafe")), len(forms("caf\u00e9"))
        (1, 2)
    """
    return tuple(dict.fromkeys([text, nfc(text), unicodedata.normalize("NFD", text)]))


def number_of(value: str | float) -> Decimal | None:
    """The exact number of a value; None for text that is not written as a number would be.

    Args:
        value: text, or a number.

    Example:
        >>> number_of("12") == number_of(12.0)
        True
        >>> print(number_of("0012"), number_of("5E3"), number_of("1_000"))
        None None None
    """
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, float):
        return Decimal(float.__repr__(value)) if math.isfinite(value) else None
    return Decimal(value)


def text_of(value: str | float) -> str:
    """A value as text: text as it is, an integer without a decimal point.

    Example:
        >>> text_of(2020.0), text_of(0.5), text_of("0012")
        ('2020', '0.5', '0012')
    """
    return value if isinstance(value, str) else str(value).removesuffix(".0")


def column_values(cells: Sequence[str]) -> list[str | float]:
    """The values of a column: numbers if every cell is written as a number would be, else text.

    Text also where a number would lose digits, as an id of twenty digits does.

    Args:
        cells: all cells of the column that are not empty.

    Example:
        >>> column_values(["2", "0.5"]), column_values(["12", "0012"])
        ([2, 0.5], ['12', '0012'])
    """
    numbers = [number for cell in cells if (number := _number(cell)) is not None]
    return list(numbers) if len(numbers) == len(cells) else list(cells)


def _number(text: str) -> float | None:
    """The number if it keeps all digits of the text."""
    exact = number_of(text)
    if exact is None:
        return None
    if text.lstrip("-").isdigit():
        return int(exact) if abs(exact) < _EXACT else None
    number = float(text)
    return number if number_of(number) == exact else None
