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
