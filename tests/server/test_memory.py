"""The memory of a service comes back after large pictures."""

from __future__ import annotations

import io
import struct
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]


def memory(process: int) -> float:
    """Megabytes of a process and of those it has started."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):  # it has ended
            continue
        if str(process) in (fields["Pid"], fields["PPid"]) and "VmRSS" in fields:
            total += int(fields["VmRSS"].split()[0]) / 1000
    return total


def encoded(mode: str, side: int, kind: str) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (side, side)).save(content, kind, compress_level=1)
    return content.getvalue()


def webp(side: int) -> bytes:
    """A WebP of one colour in 40 bytes, in which the size stands apart."""
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "WEBP", lossless=True)
    changed = bytearray(content.getvalue())
    (bits,) = struct.unpack_from("<I", changed, 21)
    struct.pack_into("<I", changed, 21, bits >> 28 << 28 | side - 1 << 14 | side - 1)
    return bytes(changed)


def search(address: str, picture: bytes) -> int:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    body = head + picture + b"\r\n--b--\r\n"
    request = urllib.request.Request(f"{address}/search", body, kind)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_memory_returns_after_large_pictures(start, run_folder):
    process, address = start(run_folder)
    small, large = encoded("RGB", 50, "PNG"), encoded("RGB", 5000, "PNG")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: search(address, small), range(32))) == {200}
        before = memory(process.pid)
        attacks = [webp(7000)] * 8 + [large, large[:-40], encoded("P", 5000, "GIF")] * 2
        statuses = list(pool.map(lambda each: search(address, each), attacks))
    assert statuses == [413] * 8 + [200, 422, 200] * 2
    assert search(address, small) == 200
    assert memory(process.pid) < 1.2 * before
