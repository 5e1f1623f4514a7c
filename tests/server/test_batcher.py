from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbir_tf.server.pipeline.batcher import Batch, Batcher

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

    def work(batch: Batch[int]) -> None:
        batches.append(list(batch))
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
    batcher = Batcher(lambda batch: batches.append(list(batch)), pool, most=3, patience=LONG)
    batcher.put([1], announced=2)
    batcher.put([2], announced=1)
    assert not batches
    batcher.put([])
    finish(pool, batches, 1)
    for each in (3, 4, 5):
        batcher.put([each], announced=9)
    finish(pool, batches, 2)
    assert batches == [[1, 2], [3, 4, 5]]


def test_those_announced_are_not_waited_for_long(pool):
    batches: list[list[int]] = []
    batcher = Batcher(lambda batch: batches.append(list(batch)), pool, most=3, patience=0.01)
    batcher.put([1], announced=1)
    finish(pool, batches, 1)
    assert batches == [[1]]


def test_the_last_ones_join_a_batch_that_has_begun(pool):
    batches: list[list[int]] = []
    begun = threading.Event()

    def work(batch: Batch[int]) -> None:
        batches.append([next(batch)])
        begun.set()
        batches[-1] += batch

    batcher = Batcher(work, pool, most=9, threads=3, patience=LONG)
    batcher.put([1], announced=3)
    batcher.put([2], announced=2)
    assert begun.wait(LONG)
    batcher.put([3], announced=1)
    batcher.put([4, 5])
    finish(pool, batches, 2)
    assert batches == [[1, 2, 3, 4], [5]]


@pytest.mark.parametrize(("announced", "patience"), [(0, 6 * LONG), (1, 0.01)])
def test_no_thread_waits_long_for_one_who_was_announced_and_does_not_come(
    pool, announced, patience
):
    batches: list[list[int]] = []
    begun = threading.Event()

    def work(batch: Batch[int]) -> None:
        first = next(batch)
        with ThreadPoolExecutor(2) as sharing:
            others = [sharing.submit(list, batch) for _ in range(2)]
            begun.set()
        batches.append([first, *others[0].result(), *others[1].result()])

    batcher = Batcher(work, pool, most=9, threads=3, patience=patience)
    batcher.put([1], announced=2)
    assert begun.wait(LONG)
    batcher.put([], announced)
    finish(pool, batches, 1)
    assert batches == [[1]]


@pytest.mark.parametrize("threads", [1, 4])
def test_nothing_put_by_many_threads_is_lost_or_doubled(pool, threads):
    done: list[int] = []
    sizes: list[int] = []

    def work(batch: Batch[int]) -> None:
        with ThreadPoolExecutor(threads) as sharing:
            for each in [sharing.submit(list, batch) for _ in range(threads)]:
                done.extend(each.result())
        sizes.append(len(batch.taken))

    batcher = Batcher(work, pool, most=3, threads=threads)
    with ThreadPoolExecutor(8) as putting:
        for each in range(500):
            putting.submit(batcher.put, [each], announced=each % 6)
    batcher.put([])
    finish(pool, done, 500)
    assert sorted(done) == list(range(500)) and max(sizes) <= 3


def test_work_that_fails_does_not_keep_what_comes_after(pool):
    done: list[str] = []

    def work(batch: Batch[str]) -> None:
        items = list(batch)
        if "bad" in items:
            raise OSError("no more")
        done.extend(items)

    batcher = Batcher(work, pool, most=1)
    for each in ("bad", "good", "bad", "after"):
        batcher.put([each])
    finish(pool, done, 2)
    assert done == ["good", "after"]
