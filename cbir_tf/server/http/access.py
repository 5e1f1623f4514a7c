"""Who may ask, how often and how much: checked before a request reaches its route."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import Counter
from collections.abc import Collection

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbir_tf.config.server import Server
from cbir_tf.server.http.connections import client_of
from cbir_tf.server.http.errors import RequestError, error_answer, retry_after

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PIECE = 64 * 1024
"""Bytes of an answer that are handed on at a time, so that a slow client holds no more."""
SLOWED = 0.5
"""Seconds before a client that sends too many requests hears so."""
OPEN_RATE, OPEN_BURST = 50.0, 300
"""Least rate for what needs no key, so that the page always loads."""
FIRST_WAIT, MOST_BETWEEN, LONGEST_WAIT, FORGOTTEN = 0.05, 2.0, 30.0, 60.0
"""Seconds before the answer to a first wrong key, most between two answers, most before one, and
until wrong keys are forgotten."""


def asker(scope: Scope) -> str:
    """The client that a request is from."""
    return client_of((scope.get("client") or ("unknown",))[0])


class AccessControl:
    """ASGI middleware: the origin, the rate, the API key and the share of a client.

    Args:
        app: the application behind it.
        settings: rates and limits.
        key: that every request must bring; None: no key is needed.
        open_paths: of the page, the documentation and the health checks, for which no key is
            needed, and which have a rate of their own.
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
        self.rate = _rate(settings.rate, settings.burst)
        self.open_rate = _rate(
            settings.rate and max(OPEN_RATE, settings.rate), max(OPEN_BURST, settings.burst)
        )
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.wrong_keys = WrongKeys()
        self.requests = Share(settings.max_in_flight, settings.client_share, "requests")
        self.bytes = Share(
            int(1e6 * settings.max_pending_megabytes), settings.client_share, "megabytes"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, client = Headers(scope=scope), asker(scope)
        try:
            is_open = await self._check(scope, headers, client)
        except RequestError as error:
            await error_answer(error)(scope, receive, send)
            return
        if is_open:
            await self.app(scope, receive, send)
            return
        request = _Bounded(self, client, scope, receive, send)
        try:
            if not _has_body(headers):
                request.begin()
            await self.app(scope, request.receive, request.send)
        except RequestError as error:  # before it has reached the application
            await error_answer(error)(scope, receive, send)
        finally:
            request.end()

    async def _check(self, scope: Scope, headers: Headers, client: str) -> bool:
        """Refuse what must not reach a route; whether this is open to all.

        Raises:
            RequestError: 401, 403 or 429.
        """
        if scope["method"] not in SAFE_METHODS and _is_from_elsewhere(headers):
            raise RequestError(403, "a page of another origin may not do this")
        path = scope["path"]
        if path in self.open_paths or path.startswith(self.open_folder):
            await self._check_rate(self.open_rate, f"open {client}")
            return True
        await self._check_rate(self.rate, client)
        await self._check_key(scope, headers, client)
        return False

    async def _check_rate(self, rate: RateLimitItemPerSecond | None, client: str) -> None:
        if rate is None or await self.limiter.hit(rate, client):
            return
        window = await self.limiter.get_window_stats(rate, client)
        wait = retry_after(window.reset_time - time.time())
        await asyncio.sleep(SLOWED)
        raise RequestError(429, f"too many requests; come back in {wait['Retry-After']} s", wait)

    async def _check_key(self, scope: Scope, headers: Headers, client: str) -> None:
        if self.key is None:
            return
        given = headers.get("x-api-key")
        if given is None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
        if hmac.compare_digest(given.encode("latin-1"), self.key):
            return
        if given:
            await _pause(scope, self.wrong_keys.wait(client))
        raise RequestError(
            401,
            "the API key is missing or wrong; send it as X-API-Key",
            {"WWW-Authenticate": "Bearer"},
        )


class WrongKeys:
    """How long wrong keys wait for their answer: the longer, the more of them a client sends.

    All of a client's wait one after another, over all of its connections. A right key never waits.
    """

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, float]] = {}  # how many, and when the last is answered

    def wait(self, client: str) -> float:
        """Seconds for one more wrong key."""
        now = time.monotonic()
        if client not in self._of:
            self._of = {who: each for who, each in self._of.items() if now < each[1] + FORGOTTEN}
        number, until = self._of.get(client, (0, now))
        until = max(now, until) + min(FIRST_WAIT * 2.0**number, MOST_BETWEEN)
        until = min(until, now + LONGEST_WAIT)
        self._of[client] = min(number + 1, 10), until
        return until - now


class Share:
    """What all requests may have of something at a time, and what one client may.

    Args:
        most: in all.
        share: of it for one client.
        what: its name.
    """

    def __init__(self, most: int, share: float, what: str) -> None:
        self.most, self.most_of_one, self.what = most, max(1, round(share * most)), what
        self._of: Counter[str] = Counter()
        self._in_all = 0

    def take(self, client: str, number: int) -> None:
        """Count some more.

        Raises:
            RequestError: they are too many of this client, or in all; they are not counted then.
        """
        if self._in_all + number > self.most:
            raise RequestError(503, f"too many {self.what} at a time; try again", retry_after(1))
        if self._of[client] + number > self.most_of_one:
            text = f"too many {self.what} of yours at a time; wait for an answer"
            raise RequestError(429, text, retry_after(1))
        self._of[client] += number
        self._in_all += number

    def give_back(self, client: str, number: int) -> None:
        """Count some less."""
        self._in_all -= number
        self._of[client] -= number
        if not self._of[client]:
            del self._of[client]


class _Bounded:
    """One request's share, from its arrival to the end of its answer."""

    def __init__(
        self, access: AccessControl, client: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._access, self._client, self._scope = access, client, scope
        self._receive, self._send = receive, send
        self._has_begun = self._is_refused = False
        self._bytes = 0

    def begin(self) -> None:
        """The request has arrived, and is worked on from now on."""
        if not self._has_begun:
            self._access.requests.take(self._client, 1)
            self._has_begun = True

    def end(self) -> None:
        """It is answered, or given up."""
        if self._has_begun:
            self._access.requests.give_back(self._client, 1)
        self._access.bytes.give_back(self._client, self._bytes)

    async def receive(self) -> Message:
        """A piece of the body, which is counted."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._take_bytes(len(message.get("body", b"")))
            if not message.get("more_body", False):
                self.begin()
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer; as much of it at a time as the client reads."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            try:
                self._take_bytes(int(Headers(raw=message["headers"]).get("content-length", "0")))
            except RequestError as error:
                self._is_refused = True
                await error_answer(error)(self._scope, self._receive, self._send)
                return
        elif message["type"] == "http.response.body" and len(message.get("body", b"")) > PIECE:
            body = memoryview(message["body"])
            for start in range(0, len(body) - PIECE, PIECE):
                piece = bytes(body[start : start + PIECE])
                await self._send({**message, "body": piece, "more_body": True})
            rest = len(body) - 1 - (len(body) - 1) % PIECE
            message = {**message, "body": bytes(body[rest:])}
        await self._send(message)

    def _take_bytes(self, number: int) -> None:
        self._access.bytes.take(self._client, number)
        self._bytes += number


async def _pause(scope: Scope, seconds: float) -> None:
    """Let a client wait, but not beyond the service's end."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not scope["app"].state.draining:
        await asyncio.sleep(min(left, 0.5))


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _rate(rate: float, burst: int) -> RateLimitItemPerSecond | None:
    """At most `burst` requests in any window of burst / rate seconds, rounded up to whole ones."""
    if not rate:
        return None
    seconds = max(1, math.ceil(burst / rate))
    return RateLimitItemPerSecond(max(burst, round(rate * seconds)), seconds)


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
