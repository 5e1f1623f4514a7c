"""One client of a service, from an address of this machine."""

from __future__ import annotations

import http.client
import io
import json
import socket

import numpy as np
from PIL import Image

KEY = "the right key"
ATTACKER, OTHER = "127.0.0.1", "127.0.0.2"


def photo(side: int = 300, seed: int = 0) -> bytes:
    """A small JPEG."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(content, "JPEG")
    return content.getvalue()


def connected(port: int, source: str = ATTACKER, seconds: float = 30) -> socket.socket:
    """A connection from one of this machine's addresses."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), seconds, (source, 0))
    except OSError:
        if source == ATTACKER:
            raise
        connection = socket.create_connection(("127.0.0.1", port), seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def form(picture: bytes, **fields: str) -> tuple[bytes, str]:
    """A form with a picture, and its media type."""
    parts = [
        f'--bound\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = b"".join([*parts, head, picture, b"\r\n--bound--\r\n"])
    return body, "multipart/form-data; boundary=bound"


class Client:
    """One keep-alive connection.

    Args:
        port: of the service.
        source: address that it comes from.
        key: that it sends.
    """

    def __init__(self, port: int, source: str = ATTACKER, key: str = KEY) -> None:
        self._port, self._source, self._key = port, source, key
        self._connection: http.client.HTTPConnection | None = None

    def __call__(
        self, method: str, path: str, body: bytes = b"", media_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of an answer; once more if the connection had been closed meanwhile."""
        headers = {"X-API-Key": self._key}
        if body:
            headers["Content-Type"] = media_type
        for attempt in (1, 2):
            is_new = self._connection is None
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._port)
                    self._connection.sock = connected(self._port, self._source)
                self._connection.request(method, path, body or None, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if is_new or attempt == 2:
                    raise
        raise AssertionError

    def search_by_id(self, **fields: object) -> tuple[int, bytes]:
        """Search from a stored image."""
        body = json.dumps({"id": "image-0000", **fields}).encode()
        return self("POST", "/search", body)

    def search(self, picture: bytes) -> tuple[int, bytes]:
        """Search for a picture."""
        return self("POST", "/search", *form(picture))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
