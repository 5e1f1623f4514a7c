"""Proxies that have a service below a path of theirs, as many who host one do."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

BELOW = "/tools/photos"
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 32m;
    location {below}/ {{ proxy_pass {service}/; }}
  }}
}}
"""
"""Two lines of it matter, the last two; nginx then calls the service by its own address as Host."""
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "host")


class _Forward(BaseHTTPRequestHandler):
    """Passes requests below the path on without it, under the service's own Host."""

    service: str
    protocol_version = "HTTP/1.1"

    def handle_one_way(self) -> None:
        if not self.path.startswith(f"{BELOW}/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        connection = http.client.HTTPConnection(urlsplit(self.service).netloc)
        connection.request(self.command, self.path.removeprefix(BELOW), body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_HOP_BY_HOP, "content-length", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_POST = do_DELETE = handle_one_way

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def plain(service: str, _: Path) -> Iterator[str]:
    """The address of a service below a path of a small proxy of Python's library."""
    handler = type("Forward", (_Forward,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def nginx(service: str, folder: Path) -> Iterator[str]:
    """The same of nginx, where it is installed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "conf").write_text(
        NGINX.format(folder=folder, port=port, below=BELOW, service=service)
    )
    command = [str(shutil.which("nginx")), "-p", str(folder), "-c", str(folder / "conf")]
    process = subprocess.Popen([*command, "-e", str(folder / "errors")])
    try:
        for _ in range(100):
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}{BELOW}"
    finally:
        process.terminate()
        process.wait()
