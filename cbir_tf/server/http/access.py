"""Who may ask, and how often: checked before a request reaches its route."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Collection

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cbir_tf.config.server import Server
from cbir_tf.server.http.errors import RequestError, error_answer, retry_after

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class AccessControl:
    """ASGI middleware: the origin, the rate of a client, the API key, the requests in flight.

    Args:
        app: the application behind it.
        settings: rates and limits.
        key: that every request must bring; None: no key is needed.
        open_paths: of the page, the documentation and the health checks, for which neither key nor
            rate is checked.
        open_folder: a path below which all is open, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Server,
        key: str | None,
        open_paths: Collection[str],
        open_folder: str,
    ) -> None:
        self.app = app
        self.key = None if key is None else key.encode()
        self.open_paths, self.open_folder = set(open_paths), f"{open_folder}/"
        self.max_in_flight, self.in_flight = settings.max_in_flight, 0
        self.rate = _rate(settings)
        self.limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._check(scope, Headers(scope=scope))
        except RequestError as error:
            await error_answer(error)(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse what must not reach a route.

        Raises:
            RequestError: 401, 403, 429 or 503.
        """
        if scope["method"] not in SAFE_METHODS and _is_from_elsewhere(headers):
            raise RequestError(403, "a page of another origin may not do this")
        path = scope["path"]
        if path in self.open_paths or path.startswith(self.open_folder):
            return
        await self._check_rate((scope.get("client") or ("unknown",))[0])
        self._check_key(headers)
        if self.in_flight >= self.max_in_flight:
            raise RequestError(503, "too many requests at a time; try again", retry_after(1))

    async def _check_rate(self, client: str) -> None:
        if self.rate is None or await self.limiter.hit(self.rate, client):
            return
        window = await self.limiter.get_window_stats(self.rate, client)
        wait = retry_after(window.reset_time - time.time())
        raise RequestError(429, f"too many requests; come back in {wait['Retry-After']} s", wait)

    def _check_key(self, headers: Headers) -> None:
        if self.key is None:
            return
        given = headers.get("x-api-key")
        if given is None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(given.encode("latin-1"), self.key):
            raise RequestError(
                401,
                "the API key is missing or wrong; send it as X-API-Key",
                {"WWW-Authenticate": "Bearer"},
            )


def _rate(settings: Server) -> RateLimitItemPerSecond | None:
    """At most `burst` requests in any window of burst / rate seconds, rounded up to whole ones."""
    if not settings.rate:
        return None
    seconds = max(1, math.ceil(settings.burst / settings.rate))
    return RateLimitItemPerSecond(max(settings.burst, round(settings.rate * seconds)), seconds)


def _is_from_elsewhere(headers: Headers) -> bool:
    """Whether a page of another origin makes the request, by what its browser sends.

    Behind a proxy the Host header may be another than the browser's; where a browser tells itself
    that the page is of the same origin, which no page can forge, that decides.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site != "same-site":
        return site not in ("same-origin", "none")
    own = headers.get("host", "").lower()
    return origin is not None and origin.partition("://")[2].lower() != own
