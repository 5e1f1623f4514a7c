"""Bodies of requests: read up to a limit, then taken apart; nothing of them reaches the disk.

A body is JSON, or multipart/form-data with the picture as its `file`. Both have the same fields: in
JSON the picture is in base64, in a form `where` may be there several times and metadata are JSON.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cbir_tf.config.parsing import explain
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.http.forms import form_parts

_DATA_ADDRESS = re.compile(r"data:image/[\w.+-]+;base64,")


class Body(BaseModel):
    """Fields of a request; attribute docstrings are what the documentation says of them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PictureBody(Body):
    """A picture, one way or another."""

    base64image: str | None = None
    """The picture in base64 (JPEG, PNG, WebP, BMP or GIF), in JSON."""
    file: bytes | None = Field(None, json_schema_extra={"format": "binary"})
    """The picture, in a form."""

    def picture(self) -> bytes:
        """The picture's bytes.

        Raises:
            RequestError: it is given twice or is no base64.
        """
        if self.file is not None and self.base64image is not None:
            raise RequestError(422, "a picture is given twice: leave out file or base64image")
        if self.file is not None:
            return self.file
        text = self.base64image or ""
        if match := _DATA_ADDRESS.match(text):
            text = text[match.end() :]
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(422, "base64image: not base64 of a picture") from None


class QueryBody(PictureBody):
    """A picture, or a stored image."""

    id: str | None = Field(None, max_length=4096)
    """Of a stored image, in place of a picture; it is not among its own neighbours."""

    def given(self) -> list[str]:
        """Which of the ways to name a picture were used; it has to be one."""
        ways = {"file": self.file, "base64image": self.base64image, "id": self.id}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none of them"
            raise RequestError(422, f"give one of file, base64image and id; got {what}")
        return given


class SearchBody(QueryBody):
    """A search."""

    k: int | None = Field(None, ge=1)
    """Neighbours wanted; the run's search.k if not given."""
    where: tuple[Annotated[str, Field(max_length=1000)], ...] = Field((), max_length=32)
    """Search only images that meet all of these: label=rose,tulip or year>=2020, by label, split,
    id, path or a column of metadata, or tags~cat where that column is a list as cat,dog."""
    re_ranking: Literal["none", "query_expansion", "k_reciprocal"] | None = None
    """none, query_expansion or k_reciprocal; the run's search.re_ranking if not given."""
    two_step: Literal["none", "knn", "svm"] | None = None
    """Say first of which class the query is, then look among the images of that class: none, knn or
    svm; the run's search.two_step if not given."""
    position: bool = False
    """Say also where the query is on the map."""

    @field_validator("where", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class ExplainBody(QueryBody):
    """A query and one of its neighbours."""

    match: str = Field(max_length=4096)
    """Id of the stored image that it is compared with."""


class AdditionBody(PictureBody):
    """A picture to be added."""

    label: str | None = Field(None, min_length=1, max_length=200)
    """Name of its class; a new one is fine."""
    metadata: dict[str, str | float] = Field({}, max_length=64)
    """Further columns to filter by: text or numbers by name."""

    @field_validator("metadata", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('metadata: not JSON; write it as {"year": 2020}') from None

    @field_validator("metadata")
    @classmethod
    def _columns(cls, value: dict[str, str | float]) -> dict[str, str | float]:
        for name, each in value.items():
            if not re.fullmatch(r"\w[\w .-]{0,63}", name) or name != name.strip():
                raise ValueError(f"metadata: no column can be called {name!r}")
            if name in ("id", "path", "label", "split"):
                raise ValueError(f"metadata: {name} is a column of its own; choose another name")
            if len(str(each)) > 1000:
                raise ValueError(f"metadata: {name} is longer than 1000 characters")
        return value


SomeBody = TypeVar("SomeBody", bound=Body)


async def read_body(chunks: AsyncIterator[bytes], megabytes: float, seconds: float) -> bytes:
    """A request's body.

    Raises:
        RequestError: it is too large, or takes too long to come.
    """
    content, most = bytearray(), int(megabytes * 1e6)
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                content += chunk
                if len(content) > most:
                    raise RequestError(413, f"more than {megabytes:g} MB; send a smaller picture")
    except TimeoutError:
        raise RequestError(408, f"the request took more than {seconds:g} s to arrive") from None
    return bytes(content)


def parse(kind: type[SomeBody], body: bytes, content_type: str) -> SomeBody:
    """The fields of a body; nothing waits, but a large one takes its time.

    Raises:
        RequestError: neither JSON nor a form, or fields that are unknown, missing or impossible.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json":
        fields = _json(body)
    elif media == "multipart/form-data":
        fields = _form(body, content_type)
    else:
        raise RequestError(
            415, "send application/json, or multipart/form-data with the picture as its file"
        )
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RequestError(422, _shortened(explain(error, kind))) from None


def _shortened(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:500]}..."


def _json(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, 'not a JSON object; write it as {"base64image": "...", "k": 5}')
    if "file" in fields:
        raise RequestError(422, "file: goes with multipart/form-data; in JSON use base64image")
    return fields


def _form(body: bytes, content_type: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, content in form_parts(body, content_type):
        if name == "file":
            if name in fields:
                raise RequestError(422, "file: one picture at a time")
            fields[name] = content
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise RequestError(422, f"{name}: not text in UTF-8") from None
        if name == "where":
            fields.setdefault(name, []).append(text)
        elif text:  # an empty field of a page's form was left out
            fields[name] = text
    return fields
