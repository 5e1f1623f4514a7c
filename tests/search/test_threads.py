"""A search has as many threads as it is worth."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from cbir_tf.search import make_index, threads, vector_index
from cbir_tf.search.threads import WORK_OF_A_THREAD, limited_to, threads_for
from cbir_tf.types import Embeddings


def openmp_of_search() -> list[dict]:
    """The OpenMP libraries of scikit-learn and FAISS; other tests may have loaded others since."""
    pools = threadpoolctl.threadpool_info()
    ours = ("scikit_learn", "sklearn", "faiss")
    return [
        each
        for each in pools
        if each["user_api"] == "openmp" and any(name in each["filepath"] for name in ours)
    ]


def test_a_small_search_has_one_thread_and_a_large_one_a_core_each(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert threads_for(0) == threads_for(10_000 * 128) == threads_for(2 * WORK_OF_A_THREAD - 1) == 1
    assert threads_for(3 * WORK_OF_A_THREAD) == 3 and threads_for(10**12) == 8


@pytest.mark.parametrize("name", ["nearest_neighbors", "faiss"])
@pytest.mark.parametrize(("work_of_a_thread", "wanted"), [(2**30, 1), (1, 2)])
def test_the_back_end_searches_with_the_threads_of_its_work(
    monkeypatch, name, work_of_a_thread, wanted
):
    if name == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "WORK_OF_A_THREAD", work_of_a_thread)
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    ids = [f"{each:02d}" for each in range(50)]
    index = make_index(name, "euclidean").fit(Embeddings(ids, vectors, np.zeros(50)))
    propose, seen = index.back_end.propose, []

    def watched(*arguments):
        seen.append({each["num_threads"] for each in openmp_of_search()})
        return propose(*arguments)

    monkeypatch.setattr(index.back_end, "propose", watched)
    assert index.search(vectors[:3], 1).ids.ravel().tolist() == ids[:3]
    assert seen == [{wanted}]


def test_what_is_asked_for_after_a_search_is_as_it_was():
    def openmp() -> list[int]:
        return [each["num_threads"] for each in openmp_of_search()]

    import sklearn.neighbors  # noqa: F401

    before = openmp()
    with limited_to(1):
        assert set(openmp()) == {1}
    assert openmp() == before and vector_index.limited_to is limited_to
