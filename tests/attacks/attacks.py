"""What people have tried to bring a service down with, each bounded in time and on this machine.

An attack is a function of the service and of an event that ends it. It sends what it can until
then, from one address. It is to be run in a process of its own, which leaves the other client its
processor time:

    python -m tests.attacks.attacks NAME PORT RUN_FOLDER

prints a line when it begins, ends with its standard input, and prints what it was answered.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import selectors
import socket
import sqlite3
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.attacks.client import KEY, Client, connected, form, photo


@dataclass
class Target:
    """A service.

    Attributes:
        port: where it answers.
        folder: of its run.
    """

    port: int
    folder: Path


Attack = Callable[[Target, threading.Event], Counter]
"""Returns how often each status was answered; 0: the connection was closed."""

HEAD = f"POST /search HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n"


# --- pictures -------------------------------------------------------------------------------------


def scanned(side: int, scans: int) -> bytes:
    """A progressive JPEG of one colour, one of whose scans is repeated."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    starts = [found.start() for found in re.finditer(rb"\xff\xda", content)]

    def end(at: int) -> int:
        data = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        found = re.compile(rb"\xff[^\x00\xd0-\xd7]").search(content, data)
        assert found is not None
        return found.start()

    first, second = end(starts[0]), end(starts[1])
    again = content[first:second] * (scans - len(starts))
    return content[:second] + again + content[second:]


def flat_png(side: int) -> bytes:
    """A PNG of one gray, compressed to next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (3 * side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def flat_webp(side: int) -> bytes:
    """A lossless WebP of one colour, of some dozen bytes."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "WEBP", lossless=True, quality=0, method=0)
    return file.getvalue()


# --- attacks --------------------------------------------------------------------------------------


def scans_by_the_hundred(target: Target, ended: threading.Event) -> Counter:
    """Four connections send progressive JPEGs of 49 megapixels in 400 scans."""
    picture = scanned(7000, 400)
    return _together(4, target, ended, lambda client: client.search(picture))


def slow_pictures(target: Target, ended: threading.Event) -> Counter:
    """Eight connections send pictures of 49 megapixels that are just allowed."""
    pictures = [scanned(7000, 20), flat_png(7000), flat_webp(7000)]

    def send(client: Client) -> tuple[int, bytes]:
        pictures.append(pictures.pop(0))
        return client.search(pictures[0])

    return _together(8, target, ended, send)


def header_without_end(target: Target, ended: threading.Event) -> Counter:
    """Four connections send a header that never ends."""
    return _streams(4, target, ended, HEAD.encode() + b"X-Long: ", b"a" * 65536)


def chunks_without_end(target: Target, ended: threading.Event) -> Counter:
    """Four connections send a trailer that never ends after a body in chunks."""
    head = f"{HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return _streams(4, target, ended, head.encode() + b"2\r\n{}\r\n0\r\nX: ", b"a" * 65536)


def unfinished_bodies(target: Target, ended: threading.Event) -> Counter:
    """300 POSTs of which the last byte never comes."""
    head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 2000\r\n\r\n{{"
    return _held(300, target, ended, head.encode())


def half_request_lines(target: Target, ended: threading.Event) -> Counter:
    """2,000 connections send half a request line."""
    return _held(2000, target, ended, b"GET /inf")


def large_bodies(target: Target, ended: threading.Event) -> Counter:
    """60 POSTs of 15 MB each, at once, without an end."""
    head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 15500000\r\n\r\n"
    return _streams(60, target, ended, head.encode(), b"a" * 65536, most=15_000_000)


def unread_answers(target: Target, ended: threading.Event) -> Counter:
    """100 connections ask for pictures of 14 MB and do not read them."""
    head = f"GET /images/image-0001 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n"
    return _held(100, target, ended, head.encode(), receive_buffer=4096)


def pipelined(target: Target, ended: threading.Event) -> Counter:
    """Eight connections send thousands of requests without waiting for answers."""
    one = f"GET /info HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n"
    return _streams(8, target, ended, b"", one.encode() * 500)


def first_svm(target: Target, ended: threading.Event) -> Counter:
    """One search in two steps, whose classifier has to be fitted first."""
    return _together(1, target, ended, lambda client: client.search_by_id(two_step="svm"))


def locked_store(target: Target, ended: threading.Event) -> Counter:
    """Another process locks the feature store while images are added."""
    store = sqlite3.connect(target.folder / "features.db", check_same_thread=False)
    store.execute("BEGIN EXCLUSIVE")
    pictures = iter([form(photo(seed=each), label="new") for each in range(1000, 2000)])
    try:
        return _together(
            4, target, ended, lambda client: client("POST", "/images", *next(pictures))
        )
    finally:
        store.rollback()
        store.close()


def wrong_keys(target: Target, ended: threading.Event) -> Counter:
    """32 connections try keys as fast as they are answered."""
    return _together(32, target, ended, lambda client: client("GET", "/info"), key="a guess")


def searches(target: Target, ended: threading.Event) -> Counter:
    """32 connections search for pictures as fast as they are answered."""
    picture = photo(1500)
    return _together(32, target, ended, lambda client: client.search(picture))


def page_loads(target: Target, ended: threading.Event) -> Counter:
    """32 connections load the page, which needs no key."""
    return _together(32, target, ended, lambda client: client("GET", "/"))


ATTACKS: dict[str, Attack] = {
    each.__name__: each
    for each in (
        scans_by_the_hundred,
        slow_pictures,
        header_without_end,
        chunks_without_end,
        unfinished_bodies,
        half_request_lines,
        large_bodies,
        unread_answers,
        pipelined,
        first_svm,
        locked_store,
        wrong_keys,
        searches,
        page_loads,
    )
}


# --- how they send --------------------------------------------------------------------------------


def _together(
    number: int,
    target: Target,
    ended: threading.Event,
    send: Callable[[Client], tuple[int, bytes]],
    key: str = KEY,
) -> Counter:
    """Several connections, each of which sends again when it is answered."""
    statuses: Counter = Counter()

    def go_on() -> None:
        client = Client(target.port, key=key)
        while not ended.is_set():
            try:
                statuses[send(client)[0]] += 1
            except StopIteration:
                break
            except (OSError, http.client.HTTPException):
                statuses[0] += 1
                ended.wait(0.05)
        client.close()

    _begin()
    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(number)]
    for each in threads:
        each.start()
    ended.wait()
    _join(threads)
    return statuses


def _held(
    number: int,
    target: Target,
    ended: threading.Event,
    sent: bytes,
    receive_buffer: int | None = None,
) -> Counter:
    """Many connections that send something and then wait; those that are closed come again."""
    statuses: Counter = Counter()
    _begin()
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def open_one() -> None:
            one = stack.enter_context(connected(target.port))
            if receive_buffer is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.sendall(sent)
            if receive_buffer is None:
                selector.register(one, selectors.EVENT_READ)

        for _ in range(number):
            with contextlib.suppress(OSError):
                open_one()
            if ended.is_set():
                break
        while not ended.wait(0.01):
            for key, _ in selector.select(0.1)[:20]:
                selector.unregister(key.fileobj)
                with contextlib.suppress(OSError):
                    statuses[_status(key.fileobj)] += 1  # type: ignore[arg-type]
                    key.fileobj.close()  # type: ignore[union-attr]
                    open_one()
    return statuses


def _streams(
    number: int,
    target: Target,
    ended: threading.Event,
    head: bytes,
    piece: bytes,
    most: int = 600_000_000,
) -> Counter:
    """Several connections that send a piece again and again; those that are closed come again."""
    statuses: Counter = Counter()

    def stream() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError), connected(target.port, seconds=1) as one:
                try:
                    one.sendall(head)
                    for _ in range(most // len(piece)):
                        if ended.is_set():
                            return
                        one.sendall(piece)
                    ended.wait()
                except OSError:
                    statuses[_status(one)] += 1
            ended.wait(0.05)

    _begin()
    threads = [threading.Thread(target=stream, daemon=True) for _ in range(number)]
    for each in threads:
        each.start()
    ended.wait()
    _join(threads)
    return statuses


def _join(threads: list[threading.Thread]) -> None:
    """Wait a little for all of them together; what is not answered by then will not be counted."""
    end = time.monotonic() + 2
    for each in threads:
        each.join(max(0.0, end - time.monotonic()))


def _status(one: socket.socket) -> int:
    """Of the answer that lies there; 0: none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        one.settimeout(0.5)
        return int(one.recv(64).split()[1])
    return 0


def _begin() -> None:
    print("attacking", flush=True)


def main(name: str, port: str, folder: str) -> None:
    """Attack until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(10)  # an attacker has a machine of its own
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    statuses = ATTACKS[name](Target(int(port), Path(folder)), ended)
    print(json.dumps(dict(statuses)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
