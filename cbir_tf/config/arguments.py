"""Arguments of public functions: every form of plain meaning is accepted, any other is a UserError.

Each function gives the one form that the code behind it takes.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from cbir_tf.errors import UserError

Kind = TypeVar("Kind")
Value = TypeVar("Value")

_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


def whole_number(value: object, name: str, least: int | None = None) -> int:
    """A whole number, given as int, as float without a fraction or as text.

    Args:
        value: what was given.
        name: of the argument, for the message.
        least: the smallest allowed; None: any.

    Raises:
        UserError: anything else; True and False are no numbers.

    Example:
        >>> whole_number("5", "k"), whole_number(np.float32(3), "k")
        (5, 3)
    """
    single = _single(value)
    number: int | None = None
    if isinstance(single, str) and _WHOLE.fullmatch(single):
        number = int(single)
    elif isinstance(single, (int, float)) and not isinstance(single, bool):
        number = int(single) if math.isfinite(single) and single == int(single) else None
    if number is None:
        raise UserError(f"{name}={reprlib.repr(value)}: should be a whole number")
    if least is not None and number < least:
        raise UserError(f"{name}={number}: should be {least} or more")
    return number


def real_number(value: object, name: str) -> float:
    """A finite number, given as number or as text.

    Raises:
        UserError: anything else.

    Example:
        >>> real_number("0.2", "margin")
        0.2
    """
    single = _single(value)
    number = math.nan
    if isinstance(single, (int, float, str)) and not isinstance(single, bool):
        try:
            number = float(single)
        except ValueError:
            number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name}={reprlib.repr(value)}: should be a finite number")
    return number


def flag(value: object, name: str) -> bool:
    """True or False, and nothing that Python would take for one of them, as the text "false".

    Raises:
        UserError: anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise UserError(f"{name}={reprlib.repr(value)}: should be True or False")
    return bool(value)


def ranks(value: object, name: str = "k") -> tuple[int, ...]:
    """One rank or several, each a whole number from 1 on.

    Raises:
        UserError: anything else, or none.

    Example:
        >>> ranks(5), ranks(["1", 10])
        ((5,), (1, 10))
    """
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    found = tuple(whole_number(each, name, least=1) for each in several)
    if not found:
        raise UserError(f"{name}: is empty; give one rank or more")
    return found


def texts(value: object, name: str) -> tuple[str, ...]:
    """One text or several; None is none.

    Raises:
        UserError: anything else.

    Example:
        >>> texts("label=rose", "where"), texts(["a", "b"], "ids")
        (('label=rose',), ('a', 'b'))
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (str(value),)
    is_list = isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes))
    found = list(value) if is_list else [value]  # type: ignore[call-overload]
    if not all(isinstance(each, str) for each in found):
        raise UserError(f"{name}={reprlib.repr(value)}: should be text, or a list of texts")
    return tuple(map(str, found))


def one_of(value: object, choices: Iterable[str], name: str) -> str:
    """One of some names.

    Raises:
        UserError: another name, or no text.
    """
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{name}={reprlib.repr(value)}: choose one of: {', '.join(choices)}")
    return value


def of_kind(value: object, kind: type[Kind], name: str, advice: str) -> Kind:
    """A value of this kind alone.

    Raises:
        UserError: of another kind; the message ends with `advice`.
    """
    if not isinstance(value, kind):
        raise UserError(
            f"{name}: should be {kind.__name__}, got {type(value).__name__}; give {advice}"
        )
    return value


def mapping(value: Mapping[str, Value], name: str, advice: str) -> Mapping[str, Value]:
    """A mapping alone.

    Raises:
        UserError: of another kind; the message ends with `advice`.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: should be a mapping, got {type(value).__name__}; give {advice}")
    return value


def float_matrix(value: object, name: str) -> np.ndarray:
    """Vectors as (N, D) float32: an array, a tensor or lists of numbers; (D,) is one vector.

    Raises:
        UserError: not numbers, of unequal lengths, or of another shape.

    Example:
        >>> float_matrix([1, 2], "vectors").tolist()
        [[1.0, 2.0]]
    """
    try:
        array = np.asarray(value)
    except ValueError:  # of unequal lengths
        array = np.empty(0, dtype=object)
    matrix = array[np.newaxis] if array.ndim == 1 else array
    if array.dtype.kind not in "fiu" or matrix.ndim != 2:
        raise UserError(
            f"{name}: should be numbers of shape (vectors, dimension), got "
            f"{type(value).__name__} of {array.dtype} {array.shape}"
        )
    return np.asarray(matrix, dtype=np.float32)


def _single(value: object) -> object:
    """A NumPy scalar or an array of one number as Python's own."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return value.item()
    return value
