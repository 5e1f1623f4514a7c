"""What every section of the configuration is made of."""

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
    """A run is opened from other folders than the one it was started in."""
    return path.expanduser().resolve()


Place = Annotated[
    Path, BeforeValidator(checked), AfterValidator(absolute), PlainSerializer(address_of)
]
"""A path, or an address of S3, which is a path of the mirror until it is written down again."""

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
