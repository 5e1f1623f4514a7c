"""What stands before every route: who may ask, how often, and what every answer carries.

An ASGI middleware of its own and not a stack of Starlette's, whose every layer costs a search as
much time as its JSON.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbir_tf.config.server import Server
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.http.logs import write_line
from cbir_tf.server.http.metrics import Metrics
from cbir_tf.server.http.rate_limit import RateLimit

COUNTED_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "DELETE")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN = ("/health", "/ready")
"""Routes that ask for no key, besides those of the page; they are not counted against a client."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

log = logging.getLogger("cbir_tf.server")


class Guard:
    """Checks requests, sets headers, writes a line of log and counts.

    Args:
        app: what answers.
        settings: hosts, rates and limits.
        metrics: where to count.
        key: that has to come with a request; None: none.
        page: paths that anyone may ask for.
        address: the service listens on, which is a name of it too.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Server,
        metrics: Metrics,
        key: str | None,
        page: Collection[str],
        address: str,
    ) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.key = None if key is None else key.encode()
        self.open = {*OPEN, *page}
        self.hosts = {each.lower() for each in (*LOOPBACK, *settings.hosts, address)}
        self.limit = RateLimit(settings.rate, settings.burst)
        self.running = 0
        metrics.running.set_function(lambda: self.running)
        # Ids for requests that bring none: unlike those of the process before, and counted.
        self.name, self.count = secrets.token_hex(4), itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is not HTTP goes by."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{self.name}{next(self.count):08x}"
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*_HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        self.running += 1
        try:
            self._check(scope, headers)
            await self.app(scope, receive, sending)
        except RequestError as error:
            await _refuse(sending, error)
        except asyncio.CancelledError:  # it took longer than there was time for it to end
            await _refuse(sending, RequestError(503, "the service is ending", 5))
        except Exception:
            log.exception("request %s failed", request_id)
            if not status:
                text = f"the service failed; its log says more of request {request_id}"
                await _refuse(sending, RequestError(500, text))
        finally:
            self.running -= 1
            seconds = time.perf_counter() - start
            # When what has been written is sent, at the end of this turn of the loop.
            later = asyncio.get_running_loop().call_soon
            later(self._record, scope, request_id, status, seconds)

    def _check(self, scope: Scope, headers: dict[bytes, str]) -> None:
        """Refuse what must not reach a route.

        Raises:
            RequestError: 400, 401, 403, 413, 429 or 503.
        """
        host = headers.get(b"host", "")
        if "*" not in self.hosts and _name_of(host) not in self.hosts:
            # Else any page could have its own name lead here and read what it likes.
            raise RequestError(
                403, f"not called {host[:100]!r} here; server.hosts says which names are"
            )
        origin = headers.get(b"origin")
        elsewhere = headers.get(b"sec-fetch-site") == "cross-site" or (
            origin is not None and origin.partition("://")[2].lower() != host.lower()
        )
        if elsewhere and scope["method"] not in SAFE_METHODS:
            raise RequestError(403, "a page of another origin may not do this")
        if scope["path"] in self.open:
            return
        self._check_key(headers)
        wait = self.limit.take((scope.get("client") or ("",))[0])
        if wait:
            raise RequestError(429, f"too many requests; come back in {wait:.1f} s", wait)
        if self.running > self.settings.waiting:
            raise RequestError(503, "too many requests at a time; come back in a second", 1)
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length[:20]) > self.settings.megabytes * 1e6:
            most = f"{self.settings.megabytes:g} MB"
            raise RequestError(413, f"more than {most}; send a smaller picture")

    def _check_key(self, headers: dict[bytes, str]) -> None:
        if self.key is None:
            return
        given = headers.get(b"x-api-key")
        if given is None:
            given = headers.get(b"authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("latin-1"), self.key):
            raise RequestError(401, "the API key is missing or wrong; send it as X-API-Key")

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in COUNTED_METHODS else "other"
        self.metrics.answered(method, route, status, seconds)
        # Not through logging, which would take as long as all other checks together.
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


def _name_of(host: str) -> str:
    """A host without its port."""
    name = re.sub(r":\d*$", "", host.lower())
    return name if name.startswith("[") or ":" not in name else ""


async def _refuse(send: Send, error: RequestError) -> None:
    headers: list[tuple[bytes, Any]] = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after))).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    content = json.dumps({"error": str(error)}).encode()
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
