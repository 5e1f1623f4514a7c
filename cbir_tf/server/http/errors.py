"""Errors as answers: every refusal is {"error": "what is wrong and how to mend it"}."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cbir_tf.server.errors import (
    ImageNotFoundError,
    InvalidQueryError,
    NotPossibleError,
    NotStoredError,
    PictureTooLargeError,
    ServiceError,
    UnavailableError,
)

STATUS: dict[type[ServiceError], int] = {
    ImageNotFoundError: 404,
    NotPossibleError: 409,
    PictureTooLargeError: 413,
    InvalidQueryError: 422,
    UnavailableError: 503,
    NotStoredError: 507,
}


GIVEN_UP = 499
"""Status, in the log, of a request whose client closed the connection, as nginx has it."""


class RequestError(Exception):
    """A request that is refused for its HTTP: its body, its key, its rate.

    Attributes:
        status: of the answer.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers)


def retry_after(seconds: float) -> dict[str, str]:
    """The header that tells a client when to come back.

    Example:
        >>> retry_after(0.2)
        {'Retry-After': '1'}
    """
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def error_answer(error: RequestError) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": str(error)}, error.status, error.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Turn every error below the middleware into an answer."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return error_answer(error)

    @app.exception_handler(ServiceError)
    async def not_answered(_: Request, error: ServiceError) -> JSONResponse:
        headers = retry_after(1) if isinstance(error, UnavailableError) else {}
        return error_answer(RequestError(STATUS[type(error)], str(error), headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return error_answer(RequestError(422, f"{first['loc'][-1]}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path[:200]}: {str(error.detail).lower()}; see /docs"
        return error_answer(RequestError(error.status_code, text, error.headers or {}))
