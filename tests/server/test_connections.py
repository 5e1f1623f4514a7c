"""Connections are bounded before anything else looks at them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbir_tf.config.server import Server
from cbir_tf.server.http.connections import BoundedConnection, Connections, client_of

SETTINGS = [
    "server.rate=0",
    "server.max_connections=12",
    "server.client_share=0.5",
    "server.idle_timeout=1",
    "server.request_timeout=4",
]


@pytest.fixture(scope="module")
def port(served_folder: Path, start_once) -> int:
    """Of a service with small limits, as a process of its own."""
    _, address = start_once(served_folder, *SETTINGS)
    return int(address.rpartition(":")[2])


@contextlib.contextmanager
def connection(port: int, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10, (source, 0)) as one:
        yield one


def answer(one: socket.socket) -> bytes:
    """All that comes until the service closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := one.recv(65536):
            received += piece
    return received


def get(port: int, path: str = "/health", source: str = "127.0.0.1") -> int:
    with connection(port, source) as one:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return int(answer(one).split()[1])


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 30_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["a header without end", "a long header", "many headers", "a long address"],
)
def test_a_head_that_is_too_large_is_refused_before_it_has_arrived(port, head):
    with connection(port) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(head)
        text = answer(one)
    assert not text or text.startswith(b"HTTP/1.1 431 "), text[:100]
    assert get(port) == 200


def test_a_trailer_without_end_is_refused(port):
    head = (
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: "
    )
    with connection(port) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(head)
            for _ in range(20):
                one.sendall(b"a" * 10_000)
                time.sleep(0.01)
        answer(one)  # which ends: the connection is closed
    assert get(port) == 200


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"\r\n", b"GET /health HTTP/1.1\r\nHost: l"])
def test_a_connection_that_sends_no_request_is_closed(port, sent):
    with connection(port) as one:
        one.sendall(sent)
        started = time.monotonic()
        assert answer(one) == b""
        assert time.monotonic() - started < 8


def test_a_connection_is_kept_for_the_next_request_for_a_while(port):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connection(port) as one:
        for _ in range(3):
            one.sendall(request)
            received = b""
            while not received.endswith(b"}"):
                received += one.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)
        assert answer(one) == b""


def test_a_new_connection_takes_the_place_of_the_one_that_has_waited_longest(port):
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connection(port)) for _ in range(6)]
        for each in waiting:
            each.sendall(b"GET /h")
            time.sleep(0.02)
        assert get(port) == 200  # the seventh of this client, which may have six
        assert answer(waiting[0]) == b""
        waiting[5].sendall(b"ealth HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer(waiting[5]).startswith(b"HTTP/1.1 200 ")


def test_bodies_that_do_not_arrive_take_nothing_from_other_requests(port):
    head = (
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 50\r\n\r\n{"
    )
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connection(port)) for _ in range(5)]
        for each in waiting:
            each.sendall(head)
        assert [get(port, "/info") for _ in range(5)] == [200] * 5
        assert answer(waiting[4]).startswith(b"HTTP/1.1 408 ")


def test_too_many_requests_before_the_first_answer_are_refused(port):
    with connection(port) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        received = answer(one)
    assert received.count(b"HTTP/1.1 200 ") < 1000
    assert get(port) == 200


def test_what_a_client_gives_up_is_no_failure_of_the_service(run_folder, start):
    process, address = start(run_folder, *SETTINGS)
    port = int(address.rpartition(":")[2])
    for media_type in (b"application/json", b"multipart/form-data; boundary=b"):
        with connection(port) as one:
            one.sendall(
                b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + media_type
                + b"\r\nContent-Length: 5000\r\n\r\n--b\r\n"
            )  # fmt: skip
            time.sleep(0.1)
    assert get(port) == 200
    lines = _log_of(process)
    statuses = [each["status"] for each in lines if each.get("route") == "/search"]
    assert statuses == [499, 499] and not any("trace" in each for each in lines)


def test_ctrl_c_does_not_wait_for_what_does_not_arrive(run_folder, start):
    process, address = start(run_folder, "server.request_timeout=30")
    port = int(address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for sent in (
            b"GET /h",
            b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 50\r\n\r\n{",
        ):
            stack.enter_context(connection(port)).sendall(sent)
        assert get(port) == 200
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert time.monotonic() - started < 20


def _log_of(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_connections_are_fewer_than_the_files_that_may_be_open():
    assert Connections(Server(), open_files=1024).most == 512
    assert Connections(Server(), open_files=256).most == 128
    assert Connections(Server()).most_of_one == 128


def test_one_client_does_not_take_the_place_of_others():
    connections = Connections(Server(max_connections=4, client_share=0.75))

    class Stub(BoundedConnection):
        def __init__(self, owner: str, since: float | None) -> None:
            self.owner, self.waiting_since, self.is_open = owner, since, True

        def abort(self) -> None:
            self.is_open = False

    many = [Stub("many", 10.0 + each) for each in range(3)]
    other = Stub("other", 1.0)
    assert all(map(connections.add, [*many, other])) and len(connections) == 4
    assert connections.add(Stub("third", 20.0))
    assert other.is_open and [each.is_open for each in many] == [False, True, True]
    many[1].waiting_since = None  # being answered: not to be closed
    assert connections.add(Stub("fourth", 30.0))
    assert [each.is_open for each in many] == [False, True, False] and len(connections) == 4


def test_new_connections_of_a_client_have_its_rate():
    connections = Connections(Server(rate=10, burst=5, idle_timeout=15))
    assert [connections.delay("one", 100.0) for _ in range(5)] == [0] * 5
    assert [connections.delay("one", 100.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert connections.delay("two", 100.0) == 0
    assert max(connections.delay("one", 100.0) for _ in range(1000)) == pytest.approx(15)
    assert connections.delay("one", 120.0) == 0
    assert Connections(Server(rate=0)).delay("one", 100.0) == 0


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:abcd::5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
    ],
)
def test_all_addresses_of_a_network_of_ipv6_are_one_client(address, client):
    assert client_of(address) == client


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="other addresses are Linux's")
def test_another_client_is_answered_while_one_has_all_its_connections(port):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            with contextlib.suppress(OSError):
                stack.enter_context(connection(port)).sendall(b"GET /h")
        assert get(port, "/info", source="127.0.0.2") == 200
