from __future__ import annotations

import threading

from cbir_tf.server.pipeline.crew import Crew


def test_all_is_done_by_all_of_them_before_they_end():
    together = threading.Barrier(3)
    done: list[int] = []

    def work(item: int) -> None:
        if item < 3:  # each of the first three waits for the others
            together.wait(10)
        done.append(item)

    crew = Crew(work, 3, "test")
    for each in range(200):
        crew.put(each)
    crew.close()
    assert sorted(done) == list(range(200))
