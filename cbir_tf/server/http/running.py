"""From a run to a process that answers, until it is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from filelock import FileLock, Timeout

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.logs import log_json_lines
from cbir_tf.server.pipeline.service import Service

BACKLOG = 1024


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
    """Marks the application as draining when it is to end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: object) -> None:
        """Ctrl-C and the like: running requests end, new ones are refused."""
        self._app.state.draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def serve(run: Run, config: Config, listening: socket.socket, key: str | None) -> None:
    """Answer until SIGINT or SIGTERM; running requests have `server.request_timeout` to end.

    Raises:
        UserError: as `Service`.
    """
    service = Service(run, config)
    log_json_lines()
    host, port = listening.getsockname()[:2]
    if key is None and not host.startswith("127.") and host != "::1":
        logger.warning(
            "listening on %s without a key: anyone who reaches it may add and remove", host
        )
    app = make_app(service, key, host)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=round(config.server.request_timeout),
            timeout_keep_alive=30,
        ),
        app,
    )
    # uvicorn raises the signal again once it has ended; here that is the end.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}  {len(service.gallery)} images; Ctrl-C ends it", flush=True)
    server.run(sockets=[listening])
