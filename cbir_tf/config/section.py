"""Base class and shared types of the configuration's sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from cbir_tf.storage.addresses import address_of, checked


def absolute(path: Path) -> Path:
    """The absolute path: a run may be opened from another working directory than at its start."""
    return path.expanduser().resolve()


Place = Annotated[
    Path, BeforeValidator(checked), AfterValidator(absolute), PlainSerializer(address_of)
]
"""A path, or an S3 address: the path of its local mirror, which is dumped as the address again."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration; attribute docstrings are the help texts."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )
