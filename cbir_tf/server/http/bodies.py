"""The fields of request bodies, in JSON or in a form."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from cbir_tf.data.text import nfc
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.pipeline.queries import Steps

_DATA_ADDRESS = re.compile(r"data:image/[\w.+-]+;base64,")


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if match := _DATA_ADDRESS.match(value):
        value = value[match.end() :]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("base64image: not base64 of a picture") from None


_UNFINDABLE = ("Cc", "Cs", "Zl", "Zp")


def _findable(field: str, text: str) -> str:
    """Text that a condition can find again, as these have no outer blanks; in Unicode NFC."""
    if any(unicodedata.category(each) in _UNFINDABLE for each in text):
        raise ValueError(f"{field} has control characters, or is not Unicode; leave them out")
    if text != text.strip():
        raise ValueError(f"{field} begins or ends with blanks; leave them out")
    return nfc(text)


Base64 = Annotated[bytes, BeforeValidator(_from_base64), WithJsonSchema({"type": "string"})]
File = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]


class Body(BaseModel):
    """The fields of a request; their docstrings are the documentation's."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PictureBody(Body):
    """A picture, in a form or in JSON."""

    base64image: Base64 | None = None
    """The picture in base64 (JPEG, PNG, WebP, BMP or GIF), in JSON."""
    file: File | None = None
    """The picture, in a form."""

    @property
    def picture(self) -> bytes | None:
        """The encoded picture."""
        return self.base64image if self.file is None else self.file

    def one_of(self, *names: str) -> None:
        """Check that exactly one of some fields is given.

        Raises:
            RequestError: none, or several.
        """
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            options = f"{', '.join(names[:-1])} and {names[-1]}"
            got = " and ".join(given) or "none of them"
            raise RequestError(422, f"give one of {options}; got {got}")


class QueryBody(PictureBody):
    """A picture, or a stored image."""

    id: str | None = Field(None, max_length=4096)
    """Of a stored image, in place of a picture; it is not one of its own neighbours."""


class SearchBody(QueryBody):
    """A search."""

    k: int | None = Field(None, ge=1)
    """Neighbours; the run's search.k if not given."""
    where: tuple[Annotated[str, Field(max_length=1000)], ...] = Field((), max_length=32)
    """Search only images that meet all of these: label=rose,tulip or year>=2020, by label, split,
    id or a column of metadata, or tags~cat where that column is a list as cat,dog."""
    re_ranking: Literal["none", "query_expansion", "k_reciprocal"] | None = None
    """none, query_expansion or k_reciprocal; the run's search.re_ranking if not given."""
    two_step: Literal["none", "knn", "svm"] | None = None
    """Predict the class of the query first, then search the images of that class: none, knn or svm;
    the run's search.two_step if not given."""
    position: bool = False
    """Add the point of the query on the map."""

    @field_validator("where", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("k", mode="before")
    @classmethod
    def _no_bool(cls, value: Any) -> Any:
        if isinstance(value, bool):  # which Python counts among the numbers
            raise ValueError(f"k: should be a whole number, got {str(value).lower()}")
        return value

    def steps(self) -> Steps:
        """How to search."""
        return Steps(self.k, self.where, self.re_ranking, self.two_step)


class ExplainBody(QueryBody):
    """A query and one of its neighbours."""

    match: str = Field(max_length=4096)
    """Id of the stored image to compare it with."""


class AdditionBody(PictureBody):
    """A picture to be added."""

    label: str | None = Field(None, min_length=1, max_length=200)
    """Name of its class, which may be new; without control characters and outer blanks."""
    metadata: dict[str, str | int | float] = Field({}, max_length=64)
    """Further columns to filter by: text or numbers by name."""

    @field_validator("label")
    @classmethod
    def _findable_label(cls, value: str | None) -> str | None:
        return None if value is None else _findable("label:", value)

    @field_validator("metadata", mode="before")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError('metadata: not JSON; write it as {"year": 2020}') from None
        if not isinstance(value, dict):
            raise ValueError('metadata: not a JSON object; write it as {"year": 2020}')
        return dict(_column(name, each) for name, each in value.items())


def _column(name: str, value: Any) -> tuple[str, str | int | float]:
    """A column of metadata."""
    if not re.fullmatch(r"\w[\w .-]{0,63}", name) or name != name.strip():
        raise ValueError(f"metadata: no column can be called {name!r}")
    if name in ("id", "path", "label", "split"):
        raise ValueError(f"metadata: {name} is a column of its own; choose another name")
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError(f"metadata: {name} should be text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"metadata: {name} should be a finite number")
    if len(str(value)) > 1000:
        raise ValueError(f"metadata: {name} is longer than 1000 characters")
    if isinstance(value, str):
        value = _findable(f"metadata: {name}", value)
    return nfc(name), value


def documented(kind: type[Body], *one_of: str) -> dict[str, Any]:
    """For the documentation: a body in JSON or as a form.

    Args:
        kind: of body.
        one_of: fields of which a request has exactly one.
    """
    schema = kind.model_json_schema()
    content = {}
    for media_type, other in (("multipart/form-data", "base64image"), ("application/json", "file")):
        fields = {name: each for name, each in schema["properties"].items() if name != other}
        choice = [name for name in one_of if name != other]
        for name in choice:  # null, as what is not given, is no choice
            about = fields[name]
            fields[name] = {**about["anyOf"][0], "description": about["description"]}
        required = [{"required": [name]} for name in choice]
        alternatives = {"oneOf": required} if len(required) > 1 else {"allOf": required}
        content[media_type] = {"schema": {**schema, "properties": fields, **alternatives}}
    return {"requestBody": {"required": True, "content": content}}
