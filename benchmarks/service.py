"""The service beside the bare model and search, on the same cores: requests a second.

    python benchmarks/service.py --images data/clothing224 [--seconds 60] [--clients 16]

MobileNetV2 0.35 at 224 pixels, 10,000 stored images, k = 5. The bare program decodes, encodes and
searches the same pictures in one process, in every way of WAYS: batches of several sizes, the next
of them decoded while the model works on one, or not. All take turns with the service. `bare` is the
fastest way with no more pictures at a time than there are clients, as the service has; `bare_any`
the fastest of all. Every round begins with new processes, as two of one and the same program can
differ by a few hundredths. The clients are one thread of this process with prepared requests; the
processor time they take is the service's loss all the same. `processor_ms` says what a picture
costs each of them: where others use the machine too, that says more than the rates. Weights are
random: they make no difference to the time. Prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # as `cbir serve` has it; faster for both

import numpy as np

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main as cbir
from cbir_tf.data.decode import decode_image
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint

STORED, K, PICTURES = 10_000, 5, 400
BARE_SHARE = 4  # of the service's seconds each way of the bare program has one part in so many
CONFIG = """
data: {{source: folder, path: "{images}", split: {{by: stratified, validation: 0.1, test: 0.1}}}}
model: {{backbone: mobilenet_v2, options: {{alpha: 0.35}}, weights: null, embedding_size: 128}}
training: {{epochs: 0}}
search: {{k: {k}, index: {index}}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--seconds", type=float, default=60, help="of the service, in all")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3, help="of a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--index", default="nearest_neighbors")
    parser.add_argument("--run", type=Path, help="kept from an earlier time")
    arguments = parser.parse_args()
    arguments.seconds /= arguments.rounds * arguments.turns
    photos = sorted(arguments.images.rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(photos), min(PICTURES, len(photos)), False)
    pictures = [photos[each].read_bytes() for each in chosen]
    with tempfile.TemporaryDirectory() as folder:
        run = made(arguments.run or Path(folder) / "run", arguments.images, arguments.index)
        rounds = []
        for _ in range(arguments.rounds):
            with get_context("spawn").Pool(1) as pool:
                rounds.append(pool.apply(one_round, (run.folder, pictures, arguments)))
    print(json.dumps(told(rounds, arguments), indent=2))


def made(folder: Path, images: Path, index: str) -> Run:
    """A run of 10,000 images, whose vectors are random too."""
    if not (folder / "model.onnx").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = folder.with_suffix(".yaml")
        text = CONFIG.format(images=images.resolve(), k=K, index=index)
        config.write_text(text, encoding="utf-8")
        if cbir(["train", "--config", str(config), "--run", str(folder)]):
            raise SystemExit("no run")
        run = Run.open(folder)
        vectors = np.random.default_rng(0).normal(size=(STORED, 128)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        fingerprint = encoder_fingerprint(run, run.config.search)
        with FeatureStore.create(run.features, fingerprint, ["class"]) as store:
            ids = [f"image-{each:05d}" for each in range(STORED)]
            store.write([Record(id_, None, 0, "test", "digest") for id_ in ids], vectors)
        Retriever(run).encoder.of_pixels(np.zeros((1, 224, 224, 3), np.uint8))  # exports the model
    return Run.open(folder)


@dataclass
class Round:
    """What one set of processes did.

    Attributes:
        rates, spent: by way of the bare program, and by the service: pictures a second in each
            turn, and seconds of processor time.
        clients: seconds of processor time that they took.
        latencies: seconds.
        memory: megabytes of the service, at its start and after each turn.
    """

    rates: dict[str, list[float]]
    spent: dict[str, float]
    clients: float
    latencies: list[float]
    errors: int
    memory: list[float]
    exit_status: int


def one_round(folder: Path, pictures: list[bytes], arguments: argparse.Namespace) -> Round:
    """Turns of all, by new processes."""
    bare = Bare(Run.open(folder), pictures)
    names = [*map(str, WAYS), "service"]
    result = Round({each: [] for each in names}, dict.fromkeys(names, 0.0), 0.0, [], 0, [], -1)
    process, port = started(folder)
    try:
        load(port, pictures, arguments.clients, 3)
        result.memory.append(resident(process.pid))
        for _ in range(arguments.turns):
            for way in WAYS:
                before = time.process_time()
                result.rates[str(way)].append(bare.rate(arguments.seconds / BARE_SHARE, way))
                result.spent[str(way)] += time.process_time() - before
            before, theirs = time.process_time(), processor_seconds(process.pid)
            taken, failed = load(port, pictures, arguments.clients, arguments.seconds)
            result.clients += time.process_time() - before
            result.spent["service"] += processor_seconds(process.pid) - theirs
            result.rates["service"].append(len(taken) / arguments.seconds)
            result.latencies += taken
            result.errors += failed
            result.memory.append(resident(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        result.exit_status = process.wait(60)
    return result


def told(rounds: list[Round], arguments: argparse.Namespace) -> dict[str, object]:
    """All rounds together."""
    rates = {name: np.array([each.rates[name] for each in rounds]) for name in rounds[0].rates}
    few = [str(way) for way in WAYS if way.at_a_time <= arguments.clients]
    best = {
        "bare": max(few, key=lambda name: rates[name].mean()),
        "bare_any": max(map(str, WAYS), key=lambda name: rates[name].mean()),
    }
    seconds = dict.fromkeys(rates, arguments.seconds / BARE_SHARE)
    seconds["service"] = arguments.seconds
    spent = {
        name: sum(each.spent[name] for each in rounds) / (rates[name].sum() * seconds[name])
        for name in (*best.values(), "service")
    }
    latencies = np.concatenate([each.latencies for each in rounds])
    spent["clients"] = sum(each.clients for each in rounds) / len(latencies)
    service = rates["service"]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "clients": arguments.clients,
        "index": arguments.index,
        "per_s": {name: round(float(each.mean()), 1) for name, each in rates.items()},
        "best": best,
        "ratio": {
            name: round(float(service.mean() / rates[way].mean()), 3) for name, way in best.items()
        },
        "ratio_of_rounds": {
            name: np.round(service.mean(axis=1) / rates[way].mean(axis=1), 3).tolist()
            for name, way in best.items()
        },
        "processor_ms": {name: round(1e3 * each, 2) for name, each in spent.items()},
        "requests": len(latencies),
        "errors": sum(each.errors for each in rounds),
        "latency_ms": {
            f"p{each}": round(1e3 * float(np.percentile(latencies, each)), 1)
            for each in (50, 90, 99, 100)
        },
        "memory_mb_at_start_and_after_each_turn": [each.memory for each in rounds],
        "exit_status": [each.exit_status for each in rounds],
    }


@dataclass(frozen=True)
class Way:
    """How the bare program goes about it."""

    batch: int
    ahead: bool

    @property
    def at_a_time(self) -> int:
        """Pictures that it has begun and not finished."""
        return self.batch * (1 + self.ahead)

    def __str__(self) -> str:
        return f"batches of {self.batch}{', the next decoded meanwhile' if self.ahead else ''}"


WAYS = [Way(batch, ahead) for batch in (4, 8, 16, 32) for ahead in (False, True)]


class Bare:
    """Decode, encode and search without a service."""

    def __init__(self, run: Run, pictures: list[bytes]) -> None:
        self.data = run.config.data
        self.pictures = pictures
        self.retriever = Retriever(run)
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def rate(self, seconds: float, way: Way) -> float:
        """Pictures a second."""
        done, start = 0, time.perf_counter()
        for pixels in self._batches(way):
            vectors = self.retriever.encoder.of_pixels(np.stack(pixels))
            self.retriever.engine().search(self.retriever.gallery.queries(vectors), K)
            done += len(pixels)
            if time.perf_counter() - start > seconds:
                break
        return done / (time.perf_counter() - start)

    def _batches(self, way: Way) -> Iterator[list[np.ndarray]]:
        pictures = itertools.cycle(self.pictures)

        def begin() -> list[Future[np.ndarray]]:
            return [self.pool.submit(self._decode, next(pictures)) for _ in range(way.batch)]

        coming = begin() if way.ahead else []
        while True:
            now = coming or begin()
            coming = begin() if way.ahead else []
            yield [each.result() for each in now]

    def _decode(self, picture: bytes) -> np.ndarray:
        return decode_image(picture, self.data.image_size, self.data.resize)


def started(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """The service, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cbir_tf", "serve", "--run", str(folder), "--port", "0",
         "server.rate=0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    return process, int(address.rpartition(":")[2])


def load(port: int, pictures: list[bytes], clients: int, seconds: float) -> tuple[list[float], int]:
    """Each client asks again as soon as it is answered; latencies in seconds, and errors."""
    requests = [request(port, picture) for picture in pictures]
    selector = selectors.DefaultSelector()
    began: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    latencies, errors, number = [], 0, 0

    def ask(client: socket.socket) -> None:
        nonlocal number
        began[client], received[client] = time.perf_counter(), b""
        client.sendall(requests[number % len(requests)])
        number += 1

    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        ask(client)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(0.1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            received[client] += client.recv(65536)
            if not is_whole(received[client]):
                continue
            latencies.append(time.perf_counter() - began[client])
            errors += not received[client].startswith(b"HTTP/1.1 200 ")
            ask(client)
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return latencies, errors


def request(port: int, picture: bytes) -> bytes:
    """A search, as a form."""
    body = (
        b'--bound\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--bound--\r\n"
    )
    head = (
        f"POST /search HTTP/1.1\r\nHost: localhost:{port}\r\n"
        "Content-Type: multipart/form-data; boundary=bound\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def is_whole(answer: bytes) -> bool:
    """Whether all of an answer is there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


def processor_seconds(process: int) -> float:
    """That a process has had of all cores."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Megabytes of memory that a process has."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return round(int(text.partition("VmRSS:")[2].split()[0]) / 1024, 1)


if __name__ == "__main__":
    main()
