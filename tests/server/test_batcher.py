from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbir_tf.server.batcher import Batcher


def test_what_comes_while_a_batch_is_worked_on_is_the_next_batch():
    batches: list[list[int]] = []
    gate = threading.Event()

    def work(items):
        batches.append(list(items))
        gate.wait(10)
        return [10 * each for each in items]

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool, most=4)
            first = asyncio.create_task(batcher(0))
            while not batches:
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(batcher(each)) for each in range(1, 8)]
            await asyncio.sleep(0)
            gate.set()
            return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [10 * each for each in range(8)]
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_exception_reaches_those_it_is_meant_for():
    def work(items):
        if "all" in items:
            raise OSError("no more")
        return [ValueError(each) if each == "bad" else each for each in items]

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool, most=8)
            some = await asyncio.gather(*map(batcher, ["good", "bad"]), return_exceptions=True)
            everyone = await asyncio.gather(batcher("all"), return_exceptions=True)
            return some, everyone, await batcher("after")

    (good, bad), (failed,), after = asyncio.run(ask())
    assert (good, after) == ("good", "after")
    assert isinstance(bad, ValueError) and isinstance(failed, OSError)


def test_one_who_gave_up_does_not_keep_the_others():
    gate = threading.Event()

    def work(items):
        gate.wait(10)
        return items

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool, most=1)
            tasks = [asyncio.create_task(batcher(each)) for each in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[1].cancel()
            gate.set()
            assert await tasks[2] == 2
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]

    asyncio.run(ask())
