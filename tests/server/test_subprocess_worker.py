"""A process of its own for what needs TensorFlow or UMAP."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker


@pytest.mark.slow
def test_one_other_process_answers_until_it_is_killed_and_then_another():
    worker = SubprocessWorker()
    try:
        first = worker.run(os.getpid)
        assert first != os.getpid() and worker.run(os.getpid) == first
        with pytest.raises(ValueError, match="abc"):
            worker.run(int, "abc")
        with pytest.raises(BrokenProcessPool):
            worker.run(os._exit, 1)
        assert worker.run(os.getpid) not in (first, os.getpid())
    finally:
        worker.close()


@pytest.mark.slow
def test_closing_ends_the_process_in_the_middle_of_a_call():
    worker = SubprocessWorker()
    process = worker.run(os.getpid)
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(worker.run, time.sleep, 600)
        time.sleep(0.2)
        worker.close()
        with pytest.raises(BrokenProcessPool):
            sleeping.result(60)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    worker.close()  # twice is fine


def test_a_call_that_takes_too_long_is_ended_and_the_next_one_answered():
    worker = SubprocessWorker()
    try:
        first = worker.run(os.getpid)
        with pytest.raises(TimeoutError, match=r"0\.2 s"):
            worker.run(time.sleep, 600, seconds=0.2)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert worker.run(os.getpid) not in (first, os.getpid())
    finally:
        worker.close()


def start_slowly() -> None:
    time.sleep(1)


def test_the_time_to_start_is_not_that_of_the_first_call():
    worker = SubprocessWorker(start_slowly)
    try:
        assert worker.run(os.getpid, seconds=0.9) != os.getpid()
    finally:
        worker.close()


class UnusualError(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}")


def raise_unusually() -> None:
    raise UnusualError(3, "so")


def test_an_error_that_cannot_be_sent_is_told_in_its_words():
    worker = SubprocessWorker()
    try:
        with pytest.raises(RuntimeError, match="UnusualError: 3: so"):
            worker.run(raise_unusually)
        assert worker.run(int, "5") == 5
    finally:
        worker.close()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="Windows has other priorities")
def test_such_a_process_comes_behind_the_one_that_answers():
    worker = SubprocessWorker()
    try:
        assert worker.run(os.nice, 0) == min(19, os.nice(0) + 5)
    finally:
        worker.close()
