"""Our semi-hard triplet loss compared with TensorFlow Addons' on the same data.

    python benchmarks/triplet_loss.py --addons .venv-conformance-losses/bin/python
        [--sizes 256 512 1024] [--repeats 3]

The two cannot share a process, as TensorFlow Addons needs TensorFlow 2.15: a worker in each
environment computes for at least a second while the other waits, in turns. Measured are the time of
loss and gradient together, in a compiled tf.function on float32 embeddings of 128 dimensions in
classes of 8, and the increase of each worker's peak memory. TensorFlow Addons takes up to 19 GiB at
1,024; a size for which too little memory is free is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

DIMENSION = 128
IMAGES_OF_A_CLASS = 8
SECONDS_OF_A_TURN = 1.0
COPIES_OF_ADDONS = 4.8
"""Peak of TensorFlow Addons in float32 arrays of N^3 elements: 3.7 to 4.7 were measured."""


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def free_memory() -> int:
    """Memory that programs can still take without swapping, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024


def work(which: str, size: int) -> None:
    """For every line on standard input, write the measurement of one turn as JSON."""
    import numpy as np
    import tensorflow as tf

    if which == "ours":
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from cbir_tf.losses import triplet_semihard_loss
    else:
        from tensorflow_addons.losses import triplet_semihard_loss

    @tf.function
    def loss_and_gradient(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            loss = triplet_semihard_loss(labels, embeddings)
        return loss, tape.gradient(loss, embeddings)

    embeddings = np.random.default_rng(0).normal(size=(size, DIMENSION)).astype("float32")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = tf.constant(np.arange(size) // IMAGES_OF_A_CLASS)
    embeddings = tf.constant(embeddings)
    loss_and_gradient(labels[:16], embeddings[:16])
    before = peak_memory()
    for _ in sys.stdin:
        seconds: list[float] = []
        while sum(seconds) < SECONDS_OF_A_TURN:
            start = time.perf_counter()
            loss, gradient = loss_and_gradient(labels, embeddings)
            gradient.numpy()
            seconds.append(time.perf_counter() - start)
        turn = {
            "loss": float(loss),
            "seconds": statistics.median(seconds),
            "memory": peak_memory() - before,
        }
        print(json.dumps(turn), flush=True)


class Worker:
    """A process in another environment that measures on request."""

    def __init__(self, python: str, which: str, size: int) -> None:
        self.python = python
        self.process = subprocess.Popen(
            [python, __file__, "--worker", which, "--sizes", str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        )

    def measure(self) -> dict[str, float]:
        """One turn: median seconds of a call, peak memory in bytes, loss."""
        print(file=self.process.stdin, flush=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit(f"{self.python}: ended with status {self.process.wait()}, out of memory?")
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def compare(addons_python: str, size: int, repeats: int) -> dict[str, float]:
    """Medians over interleaved turns without the first, which compiles."""
    workers = {
        "ours": Worker(sys.executable, "ours", size),
        "addons": Worker(addons_python, "addons", size),
    }
    try:
        rounds = [
            {name: worker.measure() for name, worker in workers.items()} for _ in range(repeats + 1)
        ]
    finally:
        for worker in workers.values():
            worker.close()
    result: dict[str, float] = {"size": size}
    for name in workers:
        result[f"{name}_seconds"] = statistics.median(each[name]["seconds"] for each in rounds[1:])
        result[f"{name}_memory"] = rounds[-1][name]["memory"]
        result[f"{name}_loss"] = rounds[-1][name]["loss"]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--addons", help="the Python that has tensorflow-addons")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", choices=("ours", "addons"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.sizes[0])
        return 0
    if not arguments.addons:
        parser.error("--addons: name the Python of the environment with tensorflow-addons")
    print(
        "batch   ours      TensorFlow Addons  times faster   ours MiB  theirs MiB  share   losses"
    )
    for size in arguments.sizes:
        needed = int(COPIES_OF_ADDONS * 4 * size**3)
        if free_memory() < needed:
            print(f"{size:5d}   skipped: needs about {needed / 2**30:.1f} GiB of free memory")
            continue
        each = compare(arguments.addons, size, arguments.repeats)
        print(
            f"{size:5d}   {each['ours_seconds']:.4f} s  {each['addons_seconds']:9.4f} s"
            f"  {each['addons_seconds'] / each['ours_seconds']:14.1f}"
            f"  {each['ours_memory'] / 2**20:13.1f}  {each['addons_memory'] / 2**20:10.1f}"
            f"  1/{each['addons_memory'] / max(each['ours_memory'], 1):.0f}"
            f"   {each['ours_loss']:.7f} {each['addons_loss']:.7f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
