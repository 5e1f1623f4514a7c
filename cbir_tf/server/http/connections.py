"""Connections that are bounded before anything else looks at them.

Their number, in all and of one client, the size of a request's head, and the time that a client may
keep one waiting. What arrives after a request's head is bounded by `cbir_tf.server.http.access`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import defaultdict
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from cbir_tf.config.server import Server

MAX_HEAD_BYTES = 32 * 1024
MAX_PIPELINED = 16
GRACE = 2.0
"""Seconds after Ctrl-C for a request to arrive whose head has arrived."""
LONGEST_TURN = 15.0
"""Seconds that a client is behind at most, however much it has sent."""
OWN_FILES = 128
"""Open files that the service itself needs."""


def client_of(address: str) -> str:
    """Who an address stands for: of IPv6, where one client has 2^64 addresses, their network.

    Example:
        >>> client_of("127.0.0.1"), client_of("2001:db8::1"), client_of("::ffff:10.0.0.1")
        ('127.0.0.1', '2001:db8::/64', '10.0.0.1')
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


class Turns:
    """When each client may do something again, so that it does not do more than at some rate.

    Args:
        rate: a second; 0: any.
        ahead: seconds' worth of it that may be done at once.
    """

    def __init__(self, rate: float, ahead: float) -> None:
        self._rate, self._ahead = rate, ahead
        self._free_at: dict[str, float] = {}

    def wait(self, client: str, number: float, now: float) -> float:
        """Seconds to wait after doing it so many times."""
        if not self._rate:
            return 0.0
        if client not in self._free_at:
            self._free_at = {who: each for who, each in self._free_at.items() if each > now}
        free_at = max(now, self._free_at.get(client, now)) + number / self._rate
        self._free_at[client] = min(free_at, now + self._ahead + LONGEST_TURN)
        return max(0.0, free_at - now - self._ahead)


class Connections:
    """The open connections of a service, by client.

    A further one is always accepted: it takes the place of the one that has waited longest for its
    client, of the same client if that has its share, else of the client that has most.

    Args:
        settings: how many there may be, and how long each may wait.
        open_files: most that the system allows; None: any number.
    """

    def __init__(self, settings: Server, open_files: int | None = None) -> None:
        self.most = settings.max_connections
        if open_files is not None:
            self.most = max(1, min(self.most, open_files - OWN_FILES))
        self.most_of_one = max(1, round(settings.client_share * self.most))
        self.idle_timeout = settings.idle_timeout
        self._opened = Turns(settings.rate, settings.burst / settings.rate if settings.rate else 0)
        megabytes = settings.max_pending_megabytes * settings.client_share
        self._received = Turns(1e6 * megabytes if settings.rate else 0, 0.25)
        self._of: dict[str, dict[BoundedConnection, None]] = defaultdict(dict)
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, connection: BoundedConnection) -> bool:
        """Count a connection, closing another one if there are too many; whether it may stay."""
        own = self._of[connection.owner]
        if len(own) >= self.most_of_one:
            full: dict[BoundedConnection, None] | None = own
        elif self._number >= self.most:
            full = max(self._of.values(), key=len)
        else:
            full = None
        if full is not None:
            waiting = [each for each in full if each.waiting_since is not None]
            if not waiting:
                return False
            longest = min(waiting, key=lambda each: each.waiting_since or 0)
            self.remove(longest)
            longest.abort()
        self._of[connection.owner][connection] = None
        self._number += 1
        return True

    def delay(self, owner: str, now: float) -> float:
        """Seconds until one more connection of a client is listened to: they have its rate, too."""
        return min(self.idle_timeout, self._opened.wait(owner, 1, now))

    def rest(self, owner: str, received: int, now: float) -> float:
        """Seconds not to read more of a client that has just sent so many bytes.

        In a second it may send its share of `max_pending_megabytes`.
        """
        return min(1.0, self._received.wait(owner, received, now))

    def remove(self, connection: BoundedConnection) -> None:
        """Count a connection no more; ones that are not counted are ignored."""
        own = self._of.get(connection.owner, {})
        if connection in own:
            del own[connection]
            self._number -= 1
        if not own:
            self._of.pop(connection.owner, None)


class _Flow(FlowControl):
    """Reading that can be held up, whatever the application wants to read."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class BoundedConnection(HttpToolsProtocol):
    """A connection to uvicorn that does not wait for ever, nor collect without end.

    Args:
        connections: where it is counted.
        config: of uvicorn, as the others.
    """

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._unparsed = 0  # bytes since a head or a piece of a body was last complete
        self._is_refused = self._has_begun = False
        self._unread = 0  # bytes of an answer, when last looked at
        self.owner = ""
        self.waiting_since: float | None = None

    # --- the client's side ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and begin to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.owner = client_of(self.client[0]) if self.client else ""
        if not self._all.add(self):
            self.refuse(503, "too many connections at a time; try again")
            return
        delay = self._all.delay(self.owner, self.loop.time())
        if delay:
            self._hold(delay)
        self._wait()

    def _hold(self, seconds: float) -> None:
        """Do not read for some time."""
        self.flow.pause_reading()
        self.flow.is_held = True  # type: ignore[attr-defined]
        self.loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        self.flow.is_held = False  # type: ignore[attr-defined]
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._all.remove(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, unless too much has that comes to nothing."""
        if self._is_refused or self.transport.is_closing():
            return
        if not self._has_begun and self._timer is not None:
            self._has_begun = True
            self._wait(self.waiting_since)  # once more, for the head
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_HEAD_BYTES:
            self.refuse(431, f"more than {MAX_HEAD_BYTES // 1024} KB of headers; send fewer")
        rest = self._all.rest(self.owner, len(data), self.loop.time())
        if rest > 0.01 and not self.transport.is_closing():
            self._hold(rest)

    def refuse(self, status: int, reason: str) -> None:
        """Answer without the application, once, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        content = b'{"error": "%s"}' % reason.encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.cycle is None or self.cycle.response_complete:  # else it would be in another answer
            self.transport.write(STATUS_LINE[status] + head % len(content) + content)
        self.transport.close()
        self.loop.call_later(GRACE, self.abort)  # also if the client does not read

    def abort(self) -> None:
        """Close without sending what is left."""
        self._is_refused = True
        if self.transport is not None:
            self.transport.abort()

    # --- the parser's side ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A further request, which is not even parsed once one has been refused."""
        if self._is_refused:
            raise ValueError("refused")
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        if not self._is_refused:
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """Hand a request to the application, if its head is not too large."""
        self._unparsed = 0
        if self._is_refused:
            return
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self.refuse(431, f"more than {MAX_HEAD_BYTES // 1024} KB of headers; send fewer")
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.refuse(429, "too many requests before the first answer; wait for it")
        else:
            self._stop_waiting()
            super().on_headers_complete()
            self.waiting_since = self.loop.time()  # for its body

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body for the application."""
        self._unparsed = 0
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived: now the client waits."""
        self._unparsed = 0
        if not self._is_refused:
            if not self.cycle.response_complete:
                self.waiting_since = None
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._has_begun = False
            self._wait()
        elif self.transport.is_closing():
            self._unread = self.transport.get_write_buffer_size()
            self._start_timer()

    # --- time -----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client has not read much of its answer: see that it goes on."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._start_timer()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self.waiting_since is None:
            self._stop_waiting()

    def _wait(self, since: float | None = None) -> None:
        self.waiting_since = self.loop.time() if since is None else since
        self._unread = self.transport.get_write_buffer_size()
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._all.idle_timeout, self._out_of_time)

    def _stop_waiting(self) -> None:
        self.waiting_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _out_of_time(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if 0 < unread < self._unread:  # the client reads its answer, if slowly
            self._unread = unread
            self._start_timer()
            return
        self._timer = None
        self.abort()

    def shutdown(self) -> None:
        """End with the service, once the running request has been answered."""
        super().shutdown()
        if self.waiting_since is not None:  # a body that is still on its way
            self.loop.call_later(GRACE, self._end_if_waiting)

    def _end_if_waiting(self) -> None:
        if self.waiting_since is not None and not self.transport.is_closing():
            self.abort()
