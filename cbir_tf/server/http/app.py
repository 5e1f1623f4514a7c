"""The ASGI application of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from cbir_tf.server.http import answers
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.http.guard import Guard
from cbir_tf.server.http.reference import STYLE, reference_page
from cbir_tf.server.http.routes import api, json_answer
from cbir_tf.server.pipeline.service import Service

KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
}
DESCRIPTION = "Image retrieval: find the images most like a picture."


def make_app(service: Service, key: str | None = None, address: str = "127.0.0.1") -> Guard:
    """The application.

    Args:
        service: what it asks; closed when the application ends.
        key: that has to come with every request but those for the page; None: none.
        address: it listens on.
    """
    service.key_needed = key is not None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title=f"cbir-tf, {service.config.name}",
        description=DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    router = api(service)
    app.include_router(router)
    page = _page_files()
    _add_states(app, service)
    _add_page(app, page)
    _add_problems(app)
    return Guard(
        _shortened(app, router, "/search"),
        settings=service.settings,
        metrics=service.metrics,
        key=key,
        page=[*page, "/docs", "/docs.css", "/openapi.json"],
        address=f"[{address}]" if ":" in address else address,
    )


def _shortened(app: ASGIApp, router: APIRouter, path: str) -> ASGIApp:
    """An application, but for what answers one path, which is called without FastAPI's layers.

    It has no parameters but the request and raises nothing but `RequestError`, which the guard
    sees to. FastAPI's layers would take as long as the rest that the event loop has to do for a
    search.
    """
    (documented,) = (
        each for each in router.routes if isinstance(each, APIRoute) and each.path == path
    )
    answer = documented.endpoint

    async def shortened(scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("path"), scope.get("method")) != (path, "POST"):
            await app(scope, receive, send)
            return
        scope["route"] = documented  # the log names it
        response: Response = await answer(Request(scope, receive))
        await response(scope, receive, send)

    return shortened


def _add_states(app: FastAPI, service: Service) -> None:
    """/health, /ready, /metrics."""

    @app.get("/health", summary="Whether the process is there", response_model=answers.State)
    async def health() -> Response:
        return json_answer({"status": "ok"})

    @app.get(
        "/ready",
        summary="Whether searches are answered",
        responses={200: {"model": answers.State}, 503: {"model": answers.Problem}},
    )
    async def ready() -> Response:
        if service.draining:
            raise RequestError(503, "the service is ending", 5)
        return json_answer({"status": "ready"})

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of the page's files, by their address; read once."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in files("cbir_tf.server").joinpath("page").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind and file.is_file():
            found[f"/{file.name}"] = (file.read_bytes(), kind)
    found["/"] = found["/index.html"]
    return found


def _add_page(app: FastAPI, page: dict[str, tuple[bytes, str]]) -> None:
    """The page and the documentation: not part of what is documented."""
    headers = {"Cache-Control": "no-cache"}

    async def file(request: Request) -> Response:
        content, kind = page[request.url.path]
        return Response(content, 200, headers, kind)

    async def reference() -> Response:
        return Response(reference_page(app.openapi()), 200, headers, KINDS["html"])

    async def style() -> Response:
        return Response(STYLE, 200, headers, KINDS["css"])

    for path in page:
        app.add_api_route(path, file, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/docs", reference, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/docs.css", style, methods=["GET", "HEAD"], include_in_schema=False)


def _add_problems(app: FastAPI) -> None:
    """Every refusal is {"error": "in words"}."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: Any) -> Response:
        headers = {} if error.retry_after is None else {"Retry-After": f"{error.retry_after:.0f}"}
        return json_answer({"error": str(error)}, error.status, headers)

    @app.exception_handler(Exception)  # which the guard logs
    async def failed(_: Request, error: Any) -> Response:
        return json_answer({"error": "the service failed; its log says more"}, 500)

    @app.exception_handler(RequestValidationError)
    async def impossible(_: Request, error: Any) -> Response:
        first = error.errors()[0]
        return json_answer({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Any) -> Response:
        text = f"{request.method} {request.url.path[:200]}: {str(error.detail).lower()}; see /docs"
        return json_answer({"error": text}, error.status_code, error.headers or {})
