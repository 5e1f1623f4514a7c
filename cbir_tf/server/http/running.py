"""From a run to a process that answers, until it is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.logs import log_json_lines
from cbir_tf.server.pipeline.service import Service

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address, which no one answers yet.

    Raises:
        UserError: it is taken, not this machine's, or not to be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Inherited by connections. asyncio's own loop does not set it for such sockets, as uvloop
        # does, and a body would wait 40 ms until the client has acknowledged the answer's head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise UserError(
            f"{host} port {port}: {reason.lower()}; choose another --host or --port"
        ) from None


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Keep other services from changing a run; the system lets go of it whenever the process ends.

    Raises:
        UserError: another one does.
    """
    with ExitStack() as stack:
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock

            flock(stack.enter_context(open(run.folder / "serving.lock", "ab")), LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{run.folder}: another service is changing it; end that one, or start this one "
                "with server.read_only=true"
            ) from None
        except (ImportError, OSError):  # Windows, or a disk where nothing can be locked or written
            pass
        yield


class _Server(uvicorn.Server):
    """Tells the service when it is to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: object) -> None:
        """Ctrl-C and the like: those who are running end, no one else is let in."""
        self._service.draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def serve(run: Run, config: Config, listening: socket.socket, key: str | None) -> None:
    """Answer until SIGINT or SIGTERM, then end what is running, for `server.seconds` at most.

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
    server = _Server(
        uvicorn.Config(
            make_app(service, key, host),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=round(config.server.seconds),
            timeout_keep_alive=30,
        ),
        service,
    )
    # uvicorn raises the signal again once it has ended, which is how others stop it.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}  {len(service.gallery)} images; Ctrl-C ends it", flush=True)
    server.run(sockets=[listening])
