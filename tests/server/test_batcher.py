from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbir_tf.server.batcher import Batcher

LONG = 10.0  # seconds: never reached, unless something is wrong


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def finish(pool: ThreadPoolExecutor, done: list, count: int) -> None:
    """Wait until so many things are done, by the thread that does them."""
    for _ in range(10_000):
        if len(done) >= count:
            return
        pool.submit(int).result(LONG)
    raise AssertionError(done)


def test_what_comes_while_a_batch_is_worked_on_is_the_next_batch(pool):
    batches: list[list[int]] = []
    begun, gate = threading.Event(), threading.Event()

    def work(items: list[int]) -> None:
        batches.append(items)
        begun.set()
        assert gate.wait(LONG)

    batcher = Batcher(work, pool, most=4)
    batcher.put([0])
    assert begun.wait(LONG)
    for each in range(1, 6):
        batcher.put([each])
    batcher.put([6, 7])
    between = pool.submit(lambda: len(batches))
    gate.set()
    assert between.result(LONG) < 3  # the thread is not for batches alone
    finish(pool, batches, 3)
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_those_announced_are_waited_for_unless_a_batch_is_full(pool):
    batches: list[list[int]] = []
    batcher = Batcher(batches.append, pool, most=3, patience=LONG)
    batcher.put([1], more_to_come=True)
    batcher.put([2], more_to_come=True)
    assert not batches
    batcher.put([])
    finish(pool, batches, 1)
    for each in (3, 4, 5):
        batcher.put([each], more_to_come=True)
    finish(pool, batches, 2)
    assert batches == [[1, 2], [3, 4, 5]]


def test_those_announced_are_not_waited_for_long(pool):
    batches: list[list[int]] = []
    batcher = Batcher(batches.append, pool, most=3, patience=0.01)
    batcher.put([1], more_to_come=True)
    finish(pool, batches, 1)
    assert batches == [[1]]


def test_nothing_put_by_many_threads_is_lost_or_doubled(pool):
    done: list[int] = []
    batcher = Batcher(done.extend, pool, most=3)
    with ThreadPoolExecutor(8) as putting:
        for each in range(500):
            putting.submit(batcher.put, [each], each % 2 == 0)
    batcher.put([])
    finish(pool, done, 500)
    assert sorted(done) == list(range(500))


def test_work_that_fails_does_not_keep_what_comes_after(pool):
    done: list[str] = []

    def work(items: list[str]) -> None:
        if "bad" in items:
            raise OSError("no more")
        done.extend(items)

    batcher = Batcher(work, pool, most=1)
    for each in ("bad", "good", "bad", "after"):
        batcher.put([each])
    finish(pool, done, 2)
    assert done == ["good", "after"]
