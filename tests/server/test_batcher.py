"""What waits at the same time is worked on together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbir_tf.server.pipeline.batcher import Batcher

LONG = 10.0  # seconds: reached only if something is wrong


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), LONG))


def test_what_arrives_while_a_batch_is_worked_on_is_the_next_batch(pool):
    batches: list[list[int]] = []
    begun, gate = threading.Event(), threading.Event()

    def double(items: list[int]) -> list[int]:
        batches.append(items)
        begun.set()
        assert gate.wait(LONG)
        return [2 * each for each in items]

    async def ask() -> None:
        batcher = Batcher(double, pool, max_size=4)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(begun.wait, LONG)
        others = [asyncio.create_task(batcher.submit(each)) for each in range(1, 8)]
        await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(first, *others)
        assert [result for result, _ in answers] == [0, 2, 4, 6, 8, 10, 12, 14]
        assert all(seconds >= 0 for _, seconds in answers)

    run(ask)
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_item_alone_does_not_wait_for_others(pool):
    async def ask() -> None:
        batcher = Batcher(list, pool, max_size=4)
        assert [(await batcher.submit(each))[0] for each in range(3)] == [0, 1, 2]

    run(ask)


def test_other_work_of_the_executor_goes_on_between_two_batches(pool):
    order: list[object] = []

    async def ask() -> None:
        def work(items: list[int]) -> list[int]:
            order.append(items)
            return items

        batcher = Batcher(work, pool, max_size=1)
        searches = [asyncio.create_task(batcher.submit(each)) for each in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        change = asyncio.get_running_loop().run_in_executor(pool, order.append, "change")
        await asyncio.gather(*searches, change)

    run(ask)
    assert order.index("change") < order.index([2])


def test_an_exception_as_a_result_is_that_of_one_item(pool):
    def work(items: list[str]) -> list[str | Exception]:
        return [ValueError(each) if each == "bad" else each for each in items]

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=8)
        answers = await asyncio.gather(
            *map(batcher.submit, ["good", "bad", "better"]), return_exceptions=True
        )
        assert answers[0][0] == "good" and answers[2][0] == "better"
        assert isinstance(answers[1], ValueError)

    run(ask)


def test_a_batch_that_fails_does_not_stop_the_next(pool):
    def work(items: list[str]) -> list[str]:
        if "bad" in items:
            raise OSError("disk full")
        return items

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=1)
        answers = await asyncio.gather(
            *map(batcher.submit, ["bad", "good", "bad", "after"]), return_exceptions=True
        )
        assert [isinstance(each, OSError) for each in answers] == [True, False, True, False]
        assert (await batcher.submit("later"))[0] == "later"

    run(ask)


def test_a_request_that_is_given_up_does_not_hold_up_its_batch(pool):
    begun, gate = threading.Event(), threading.Event()

    def work(items: list[int]) -> list[int]:
        begun.set()
        assert gate.wait(LONG)
        return items

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=8)
        given_up, kept = (asyncio.create_task(batcher.submit(each)) for each in (1, 2))
        await asyncio.to_thread(begun.wait, LONG)
        given_up.cancel()
        gate.set()
        assert (await kept)[0] == 2

    run(ask)


def test_nothing_is_lost_or_doubled(pool):
    sizes: list[int] = []

    def work(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=3)
        answers = await asyncio.gather(*(batcher.submit(each) for each in range(500)))
        assert [result for result, _ in answers] == list(range(500))

    run(ask)
    assert sum(sizes) == 500 and max(sizes) <= 3


def held(order: list[list[str]]) -> tuple[Callable[[list[str]], list[str]], threading.Event]:
    """Work that notes its batches; the first one lasts until the event."""
    gate = threading.Event()

    def work(items: list[str]) -> list[str]:
        order.append(items)
        assert gate.wait(LONG)
        return items

    return work, gate


def test_clients_take_turns(pool):
    order: list[list[str]] = []
    work, gate = held(order)

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=2)
        asked = [asyncio.create_task(batcher.submit(f"a{each}", "a")) for each in range(6)]
        await asyncio.sleep(0.01)
        asked += [asyncio.create_task(batcher.submit(each, each[0])) for each in ("b0", "c0", "b1")]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*asked)

    run(ask)
    # Alone, a client fills batches; while there are others, each has one item of a batch.
    assert order == [["a0", "a1"], ["a2", "b0"], ["c0", "a3"], ["b1", "a4"], ["a5"]]


def test_while_there_are_others_nobody_waits_for_a_batch_full_of_one_client(pool):
    order: list[list[str]] = []
    work, gate = held(order)

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=8)
        asked = [asyncio.create_task(batcher.submit("a0", "a"))]
        await asyncio.sleep(0.01)
        asked += [asyncio.create_task(batcher.submit(f"a{each}", "a")) for each in (1, 2, 3)]
        asked += [asyncio.create_task(batcher.submit("b0", "b"))]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*asked)

    run(ask)
    assert order == [["a0"], ["a1", "b0"], ["a2"], ["a3"]]


def test_a_client_has_at_most_its_share_of_the_workers():
    order: list[list[str]] = []
    work, gate = held(order)

    async def ask(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(work, pool, max_size=1, at_once=3)
        asked = [asyncio.create_task(batcher.submit(f"a{each}", "a", 2)) for each in range(4)]
        await asyncio.sleep(0.05)
        assert sorted(order) == [["a0"], ["a1"]]
        asked.append(asyncio.create_task(batcher.submit("b0", "b", 2)))
        await asyncio.sleep(0.05)
        assert order[2:] == [["b0"]]
        gate.set()
        assert [result for result, _ in await asyncio.gather(*asked)] == [
            "a0", "a1", "a2", "a3", "b0"
        ]  # fmt: skip

    with ThreadPoolExecutor(3) as pool:
        run(lambda: ask(pool))


def test_nothing_is_done_for_those_who_no_longer_wait(pool):
    order: list[list[str]] = []
    work, gate = held(order)

    async def ask() -> None:
        batcher = Batcher(work, pool, max_size=1)
        asked = [asyncio.create_task(batcher.submit(each)) for each in ("a", "b", "c")]
        await asyncio.sleep(0.01)
        asked[1].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert (await asked[2])[0] == "c"

    run(ask)
    assert order == [["a"], ["c"]]
