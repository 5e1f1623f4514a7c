"""From a request to the fields of its body; nothing of it reaches the disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from cbir_tf.config.parsing import explain
from cbir_tf.config.server import Server
from cbir_tf.server.http.bodies import Body
from cbir_tf.server.http.errors import GIVEN_UP, RequestError

MAX_FIELDS = 100
MAX_FIELD_BYTES = 2**20
MAX_PREAMBLE_BYTES = 2**16

SomeBody = TypeVar("SomeBody", bound=Body)


def body_of(kind: type[SomeBody]) -> Callable[[Request], Awaitable[SomeBody]]:
    """A FastAPI dependency: the body of a request, in JSON or as a form.

    It raises a RequestError for a body that is too large or too slow, that is neither JSON nor a
    form, or whose fields are unknown, missing or impossible.
    """

    async def read(request: Request) -> SomeBody:
        settings: Server = request.app.state.service.settings
        try:
            async with asyncio.timeout(settings.request_timeout):
                return await _read(kind, request, settings.max_request_megabytes)
        except TimeoutError:
            limit = f"{settings.request_timeout:g} s"
            raise RequestError(408, f"the request took more than {limit} to arrive") from None
        except ClientDisconnect:
            text = "the connection was closed before the request's end"
            raise RequestError(GIVEN_UP, text) from None

    return read


async def _read(kind: type[SomeBody], request: Request, max_megabytes: float) -> SomeBody:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        content = bytearray()
        async for chunk in _bounded(request, max_megabytes):
            content += chunk
        # A large picture in base64 would keep the event loop.
        return await run_in_threadpool(lambda: _validated(kind, _json(bytes(content))))
    if media_type == "multipart/form-data":
        return _validated(kind, await _form(request, max_megabytes))
    raise RequestError(
        415, "send application/json, or multipart/form-data with the picture as its file"
    )


async def _bounded(request: Request, max_megabytes: float) -> AsyncGenerator[bytes, None]:
    """The chunks of a body.

    Raises:
        RequestError: they are too large.
    """
    error = RequestError(413, f"more than {max_megabytes:g} MB; send a smaller picture")
    most, received = int(max_megabytes * 1e6), 0
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise error
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise error
        yield chunk


def _validated(kind: type[SomeBody], fields: dict[str, Any]) -> SomeBody:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        text = explain(error, kind)
        raise RequestError(422, text if len(text) <= 500 else f"{text[:500]}...") from None


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


async def _without_preamble(
    chunks: AsyncGenerator[bytes, None], content_type: str
) -> AsyncGenerator[bytes, None]:
    """A form from its first boundary on: what RFC 2046 allows before it, the parser does not.

    Raises:
        RequestError: more than 64 KB before it.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    # The line break before a boundary is part of it, but for one that begins the body.
    delimiter, held, found = b"\r\n--" + boundary, b"\r\n", False
    async for chunk in chunks:
        if found:
            yield chunk
            continue
        held += chunk
        place = held.find(delimiter)
        if 0 <= place <= MAX_PREAMBLE_BYTES:
            found = True
            yield held[place + 2 :]
        elif len(held) > MAX_PREAMBLE_BYTES:
            raise RequestError(400, "not a form: it does not begin with its boundary")
    if not found:
        yield held[2:]


class _FormParser(MultiPartParser):
    """Starlette's parser, all in memory as the body is bounded, which notices forms cut short."""

    spool_max_size = 2**40
    is_complete = False

    def on_end(self) -> None:
        self.is_complete = True


async def _form(request: Request, max_megabytes: float) -> dict[str, Any]:
    parser = _FormParser(
        request.headers,
        _without_preamble(
            _bounded(request, max_megabytes), request.headers.get("content-type", "")
        ),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, f"not a form: {error.message.rstrip('.').lower()}") from None
    if not parser.is_complete:
        raise RequestError(400, "not a form: it is cut short")
    return await _fields(form)


async def _fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                text = f"{name!r} is a file; the picture goes in the field 'file', the rest is text"
                raise RequestError(422, text)
            fields[name] = await value.read()
        elif name == "file":
            raise RequestError(422, "file: not a file; send it with a file name")
        elif name == "where":
            fields.setdefault(name, []).append(value)
        elif value:  # an empty field of a page's form is one that was left out
            fields[name] = value
    return fields
