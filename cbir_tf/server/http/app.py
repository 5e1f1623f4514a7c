"""The ASGI application of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse

from cbir_tf.server.http import health, routes
from cbir_tf.server.http.access import AccessControl
from cbir_tf.server.http.documentation import FILES, add_documentation
from cbir_tf.server.http.errors import add_error_handlers
from cbir_tf.server.http.request_log import RequestLog
from cbir_tf.server.http.security_headers import DOCUMENTATION, SecurityHeaders
from cbir_tf.server.pipeline.service import Service

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
PAGE = Path(__file__).parents[1] / "page"
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


def make_app(service: Service, key: str | None = None, address: str = "127.0.0.1") -> FastAPI:
    """The application.

    Args:
        service: answers its requests; closed when the application ends.
        key: that every request must bring, but for those of the page; None: no key is needed.
        address: it listens on, which is a host name of it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    page = {"/": PAGE / "index.html"} | {f"/{each.name}": each for each in _page_files()}
    hosts = (*LOOPBACK, *service.settings.hosts, f"[{address}]" if ":" in address else address)
    open_paths = [*page, *DOCUMENTATION, "/openapi.json", *health.OPEN_PATHS]
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        static_url=FILES,
        title=f"cbir-tf, {service.config.name}",
        description="Image retrieval: find the images most like a picture.",
        version="1",
        redirect_slashes=False,
        lifespan=lifespan,
        servers=[{"url": "."}],  # where the documentation is, also behind a proxy
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(RequestLog, metrics=service.metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(
                AccessControl,
                settings=service.settings,
                key=key,
                open_paths=open_paths,
                open_folder=FILES,
            ),
        ],
    )
    app.state.service, app.state.key_needed, app.state.draining = service, key is not None, False
    app.include_router(routes.router, dependencies=[] if key is None else [routes.DOCUMENTED_KEY])
    app.include_router(health.router)
    for path, file in page.items():
        app.add_api_route(
            path, _answer_with(file), methods=["GET", "HEAD"], include_in_schema=False
        )
    add_documentation(app)
    add_error_handlers(app)
    return app


def _page_files() -> list[Path]:
    return [each for each in sorted(PAGE.iterdir()) if each.suffix in MEDIA_TYPES]


def _answer_with(file: Path) -> Callable[[Request], Awaitable[FileResponse]]:
    async def answer(_: Request) -> FileResponse:
        headers = {"Cache-Control": "no-cache"}
        return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=headers)

    return answer
