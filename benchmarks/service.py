"""The service beside a bare program, on the same cores: pictures a second.

    PYTHONPATH=. python benchmarks/service.py --images data/clothing224 [--seconds 60]

MobileNetV2 0.35 at 224 pixels with random weights, 10,000 stored images, k = 5. The bare program
decodes, encodes and searches the same pictures in one process, in several ways: batches of 4 to 16,
the next of them decoded meanwhile or not. The fastest way that has no more pictures at a time than
there are clients is what the service is compared with. Both take turns, with a new service process
in each round. The clients are one thread of this process; what they take is the service's loss.

Compare the ratio, and only within one run: rates depend on who else uses the machine, and
`processor_ms` (milliseconds of processor time for a picture) less so. Prints JSON.
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
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # as `cbir serve` has it; faster for both

import numpy as np

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main as cbir
from cbir_tf.data.decode import decode_image
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint

STORED, K, PICTURES, TARGET = 10_000, 5, 400, 0.75
CONFIG = """
data: {{source: folder, path: "{images}", split: {{by: stratified, validation: 0.1, test: 0.1}}}}
model: {{backbone: mobilenet_v2, options: {{alpha: 0.35}}, weights: null, embedding_size: 128}}
training: {{epochs: 0}}
search: {{k: {k}}}
"""


@dataclass(frozen=True)
class Way:
    """How the bare program works: batch size, and whether the next batch is decoded meanwhile."""

    batch: int
    ahead: bool

    def __str__(self) -> str:
        return f"batches of {self.batch}{', the next decoded meanwhile' if self.ahead else ''}"


WAYS = [Way(batch, ahead) for batch in (4, 8, 16) for ahead in (False, True)]


@dataclass
class Measured:
    """One of the programs, over all rounds.

    Attributes:
        rates: pictures a second, by round.
        processor: seconds of processor time, in all.
        pictures: in all.
    """

    rates: list[float] = field(default_factory=list)
    processor: float = 0.0
    pictures: int = 0

    def add(self, pictures: int, seconds: float, processor: float) -> None:
        """One round."""
        self.rates.append(pictures / seconds)
        self.processor += processor
        self.pictures += pictures

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return float(np.mean(self.rates))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--seconds", type=float, default=60, help="of the service, in all rounds")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--run", type=Path, help="kept from an earlier benchmark")
    arguments = parser.parse_args()
    seconds = arguments.seconds / arguments.rounds
    photos = sorted(arguments.images.rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(photos), min(PICTURES, len(photos)), False)
    pictures = [photos[each].read_bytes() for each in chosen]
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(arguments.run or Path(folder) / "run", arguments.images)
        bare = Bare(run, pictures)
        ways = {way: Measured() for way in WAYS if way.batch * (1 + way.ahead) <= arguments.clients}
        service, clients = ServiceRounds(), Measured()
        for _ in range(arguments.rounds):
            for way, measured in ways.items():
                bare.measure(seconds / 3, way, measured)
            service.measure(run.folder, pictures, arguments.clients, seconds, clients)
    print(json.dumps(report(ways, service, clients), indent=2))


def make_run(folder: Path, images: Path) -> Run:
    """A run of 10,000 images with random vectors."""
    if not (folder / "model.onnx").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = folder.with_suffix(".yaml")
        config.write_text(CONFIG.format(images=images.resolve(), k=K), encoding="utf-8")
        if cbir(["train", "--config", str(config), "--run", str(folder)]):
            raise SystemExit("the run could not be made")
        run = Run.open(folder)
        vectors = np.random.default_rng(0).normal(size=(STORED, 128)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        fingerprint = encoder_fingerprint(run, run.config.search)
        with FeatureStore.create(run.features, fingerprint, ["class"]) as store:
            ids = [f"image-{each:05d}" for each in range(STORED)]
            store.write([Record(id_, None, 0, "test", "digest") for id_ in ids], vectors)
        Retriever(run).encoder.of_pixels(np.zeros((1, 224, 224, 3), np.uint8))  # exports the model
    return Run.open(folder)


def report(
    ways: dict[Way, Measured], service: ServiceRounds, clients: Measured
) -> dict[str, object]:
    """The figures of all rounds."""
    best = max(ways, key=lambda way: ways[way].rate)
    bare, rounds = ways[best], service.measured
    latencies = 1e3 * np.array(service.latencies)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "bare_per_s": {str(way): round(each.rate, 1) for way, each in ways.items()},
        "service_per_s": round(rounds.rate, 1),
        "ratio": round(rounds.rate / bare.rate, 3),
        "target": TARGET,
        "ratio_of_rounds": np.round(np.divide(rounds.rates, bare.rates), 3).tolist(),
        "processor_ms": {
            name: round(1e3 * each.processor / each.pictures, 2)
            for name, each in (("bare", bare), ("service", rounds), ("clients", clients))
        },
        "requests": len(latencies),
        "errors": service.errors,
        "latency_ms": {
            f"p{each}": round(float(np.percentile(latencies, each)), 1) for each in (50, 90, 99)
        },
        "memory_mb_at_start_and_end": service.memory,
        "exit_status": service.exit_status,
    }


class Bare:
    """Decode, encode and search without a service."""

    def __init__(self, run: Run, pictures: list[bytes]) -> None:
        self.data, self.pictures = run.config.data, pictures
        self.retriever = Retriever(run)
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def measure(self, seconds: float, way: Way, into: Measured) -> None:
        """Some seconds of one way."""
        done, start, processor = 0, time.perf_counter(), time.process_time()
        for pixels in self._batches(way):
            vectors = self.retriever.encoder.of_pixels(np.stack(pixels))
            self.retriever.engine().search(self.retriever.gallery.queries(vectors), K)
            done += len(pixels)
            if time.perf_counter() - start > seconds:
                break
        into.add(done, time.perf_counter() - start, time.process_time() - processor)

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


class ServiceRounds:
    """The service, a new process in each round.

    Attributes:
        measured: of its processes.
        latencies: seconds of each request.
        errors: requests that were not answered with 200.
        memory: resident megabytes of each process.
    """

    def __init__(self) -> None:
        self.measured, self.latencies, self.errors = Measured(), list[float](), 0
        self.memory, self.exit_status = list[tuple[float, float]](), list[int]()

    def measure(
        self, folder: Path, pictures: list[bytes], clients: int, seconds: float, into: Measured
    ) -> None:
        """One round; what the clients took is added to `into`."""
        process, port = start_service(folder)
        try:
            load(port, pictures, clients, 2)
            memory = resident_megabytes(process.pid)
            before, ours = processor_seconds(process.pid), time.process_time()
            latencies, errors = load(port, pictures, clients, seconds)
            into.add(len(latencies), seconds, time.process_time() - ours)
            self.measured.add(len(latencies), seconds, processor_seconds(process.pid) - before)
            self.latencies += latencies
            self.errors += errors
            self.memory.append((memory, resident_megabytes(process.pid)))
        finally:
            process.send_signal(signal.SIGINT)
            self.exit_status.append(process.wait(60))


def start_service(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """The process, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cbir_tf", "serve", "--run", str(folder), "--port", "0",
         "server.rate=0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    return process, int(address.rpartition(":")[2])


def load(port: int, pictures: list[bytes], clients: int, seconds: float) -> tuple[list[float], int]:
    """Each client sends its next request at every answer: latencies in seconds, and errors."""
    requests = itertools.cycle([request(port, picture) for picture in pictures])
    selector = selectors.DefaultSelector()
    started: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    latencies, errors = [], 0

    def send(client: socket.socket) -> None:
        started[client], received[client] = time.perf_counter(), b""
        client.sendall(next(requests))

    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        send(client)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(0.1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            received[client] += client.recv(65536)
            if not is_whole(received[client]):
                continue
            latencies.append(time.perf_counter() - started[client])
            errors += not received[client].startswith(b"HTTP/1.1 200 ")
            send(client)
    for client in started:
        client.close()
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
    """Processor time of a process, on all cores."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(process: int) -> float:
    """Memory of a process."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return round(int(text.partition("VmRSS:")[2].split()[0]) / 1024, 1)


if __name__ == "__main__":
    main()
