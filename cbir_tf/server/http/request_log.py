"""A line of log and a count for every request, and an answer for those that fail."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbir_tf.server.http.errors import RequestError, error_answer, retry_after
from cbir_tf.server.http.logs import write_line
from cbir_tf.server.prometheus_metrics import Metrics

COUNTED_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "DELETE")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

log = logging.getLogger("cbir_tf.server")


class RequestLog:
    """ASGI middleware that names, logs and counts requests.

    Args:
        app: the application behind it.
        metrics: where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        # Not uuid4, which waits for the operating system, and for Python's lock after that.
        own = f"{random.getrandbits(64):016x}"
        request_id = given if _REQUEST_ID.fullmatch(given) else own

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        self.metrics.running.inc()
        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # it was still running server.request_timeout after Ctrl-C
            error = RequestError(503, "the service is ending", retry_after(5))
            await error_answer(error)(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if not status:
                text = f"the service failed; its log has the cause, under request {request_id}"
                await error_answer(RequestError(500, text))(scope, receive, send_with_id)
        finally:
            self.metrics.running.dec()
            self._record(scope, request_id, status, time.perf_counter() - start)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in COUNTED_METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        write_line(
            "info",
            "request",
            request=request_id,
            method=scope["method"],
            route=route,
            path=scope["path"][:300],
            status=status,
            ms=round(1e3 * seconds, 2),
            client=(scope.get("client") or ("",))[0],
        )
