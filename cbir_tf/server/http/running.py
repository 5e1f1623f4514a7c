"""From a run to a process that answers, until it is told to end."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI
from filelock import FileLock, Timeout

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.connections import BoundedConnection, Connections
from cbir_tf.server.http.logs import log_json_lines
from cbir_tf.server.pipeline.service import Service

BACKLOG = 1024
MOST_FILES = 65_536
LAST_SECONDS = 5.0
"""For threads to end, after all requests have."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, whose connections wait until a server accepts them.

    Raises:
        UserError: the address is taken, not this machine's, or impossible.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio's own loop does not set it on such sockets, as uvloop
        # does, and a body would wait 40 ms for the acknowledgement of the answer's head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise UserError(
            f"{host} port {port}: {reason.lower()}; choose another --host or --port"
        ) from None


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Keep other services from changing a run; the lock ends with the process, however it ends.

    Raises:
        UserError: another service holds the lock.
    """
    lock = FileLock(run.folder / "serving.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{run.folder}: another service is changing it; end that one, or start this one "
            "with server.read_only=true"
        ) from None
    except (OSError, NotImplementedError):  # a disk that is read only or has no locks
        pass
    try:
        yield
    finally:
        lock.release()


class _Server(uvicorn.Server):
    """Marks the application as draining when it is to end, and ends whatever is still running."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, most_seconds: float) -> None:
        super().__init__(config)
        self._app, self._most_seconds = app, most_seconds

    def handle_exit(self, sig: int, frame: object) -> None:
        """Ctrl-C and the like: running requests end, new ones are refused."""
        if not self._app.state.draining:
            self._app.state.draining = True
            # A thread that waits for a disk that does not answer would keep the process for ever.
            # Nothing is lost: what has been answered is on the disk.
            ending = threading.Timer(self._most_seconds, os._exit, (0,))
            ending.daemon = True
            ending.start()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def _open_files() -> int | None:
    """How many files this process may have open, made as many as it may; None: any number."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def serve(run: Run, config: Config, listening: socket.socket, key: str | None) -> None:
    """Answer until SIGINT or SIGTERM; running requests have `server.request_timeout` to end.

    Before the first answer everything has been done once that takes longer the first time.

    Raises:
        UserError: as `Service`.
    """
    service = Service(run, config)
    service.warm_up()
    log_json_lines()
    host, port = listening.getsockname()[:2]
    if key is None and not host.startswith("127.") and host != "::1":
        logger.warning(
            "listening on %s without a key: anyone who reaches it may add and remove", host
        )
    app = make_app(service, key, host)
    settings = config.server
    connections = Connections(settings, _open_files())
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(BoundedConnection, connections),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.request_timeout),
            timeout_keep_alive=math.ceil(settings.idle_timeout) + 1,  # `BoundedConnection` is first
        ),
        app,
        settings.request_timeout + LAST_SECONDS,
    )
    # uvicorn raises the signal again once it has ended; here that is the end.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}  {len(service.gallery)} images; Ctrl-C ends it", flush=True)
    server.run(sockets=[listening])
