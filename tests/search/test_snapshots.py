"""Adding and removing vectors makes a new index; the old one answers as before."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.search import Index, make_index
from cbir_tf.types import Embeddings

BACK_ENDS = {
    "nearest_neighbors": {},
    "faiss": {},
    **{f"faiss {kind}": {"kind": kind} for kind in ("cells", "hnsw", "ivf", "ivf_pq")},
    "annoy": {},
    "annoy trees": {"trees": 10},
}
every_back_end = pytest.mark.parametrize("name", BACK_ENDS)


def new_index(name: str) -> Index:
    """Of a back end, and its kind where it has several."""
    back_end = name.partition(" ")[0]
    if back_end == "annoy":
        pytest.importorskip("annoy")
    return make_index(back_end, **BACK_ENDS[name])


def random_embeddings(count: int, dimension: int = 8) -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(count, dimension))
    return Embeddings([f"{7 * each:05d}" for each in range(count)], vectors, np.arange(count))


def answers(index: Index, queries: np.ndarray, k: int) -> tuple[list, list]:
    found = index.search(queries, k)
    return found.ids.tolist(), found.distances.tolist()


@every_back_end
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_snapshot_answers_as_a_newly_fitted_index(name, data):
    """k is the number of all vectors, so that approximate indexes must be exact too."""
    everything = random_embeddings(120, dimension=4)
    inside = set(range(60))
    snapshots = [(new_index(name).fit(everything.take(slice(0, 60))), sorted(inside))]
    for _ in range(data.draw(st.integers(1, 5))):
        index, some = snapshots[-1][0], st.integers(0, len(everything) - 1)
        positions = sorted(data.draw(st.sets(some, min_size=1, max_size=40)))
        if data.draw(st.booleans()):
            new = [each for each in positions if each not in inside]
            index = index.with_added(everything.take(np.array(new, dtype=int)))
            inside |= set(new)
        else:
            gone = [each for each in positions if each in inside][: len(inside) - 1]
            index = index.without(everything.ids[gone])
            inside -= set(gone)
        snapshots.append((index, sorted(inside)))
    for index, positions in snapshots:
        gallery = everything.take(np.array(positions))
        expected = new_index("nearest_neighbors").fit(gallery)
        assert index.gallery.ids.tolist() == gallery.ids.tolist()
        assert index.gallery.labels.tolist() == gallery.labels.tolist()
        k = len(gallery)
        assert answers(index, everything.vectors, k) == answers(expected, everything.vectors, k)


@every_back_end
def test_two_changes_of_one_snapshot_do_not_meet(name):
    everything = random_embeddings(90)
    index = new_index(name).fit(everything.take(slice(0, 80)))
    queries = everything.vectors
    one, other = (index.with_added(everything.take(slice(start, start + 5))) for start in (80, 85))
    fewer = index.without(everything.ids[:5])
    for snapshot, positions in (
        (one, np.r_[0:85]),
        (other, np.r_[0:80, 85:90]),
        (fewer, np.r_[5:80]),
        (index, np.r_[0:80]),
    ):
        fitted = new_index("nearest_neighbors").fit(everything.take(positions))
        k = len(positions)
        assert answers(snapshot, queries, k) == answers(fitted, queries, k)


@every_back_end
def test_a_snapshot_is_searched_in_one_thread_while_others_are_made_in_another(name):
    everything = random_embeddings(400, dimension=16)
    index = new_index(name).fit(everything.take(slice(0, 300)))
    before = answers(index, everything.vectors, 10)
    changed, wrong = threading.Event(), []

    def search() -> None:
        while not changed.is_set():
            if answers(index, everything.vectors, 10) != before:
                wrong.append("another answer")
                return

    thread = threading.Thread(target=search)
    thread.start()
    try:
        latest = index
        for start in range(300, 400, 10):
            latest = latest.with_added(everything.take(slice(start, start + 10)))
            latest = latest.without(everything.ids[start - 300 : start - 295])
    finally:
        changed.set()
        thread.join()
    assert not wrong
    assert len(latest) == 350
    assert answers(index, everything.vectors, 10) == before


@every_back_end
def test_an_index_is_filled_emptied_and_filled_with_vectors_of_another_dimension(name):
    gallery = random_embeddings(50)
    empty = new_index(name)
    full = empty.with_added(gallery)
    emptied = full.without(gallery.ids)
    again = emptied.with_added(random_embeddings(3, dimension=2))
    assert [len(each) for each in (empty, full, emptied, again)] == [0, 50, 0, 3]
    assert again.search(np.float32([[1, 1]]), 3).ids.shape == (1, 3)
    assert full.search(gallery.vectors, 1).ids[:, 0].tolist() == gallery.ids.tolist()


@every_back_end
def test_a_refused_change_is_a_one_line_error_and_changes_nothing(name):
    gallery = random_embeddings(5)
    index = new_index(name).fit(gallery)
    with pytest.raises(UserError, match="'00007' is in the gallery already"):
        index.with_added(Embeddings(["new", "00007"], np.ones((2, 8)), [0, 0]))
    with pytest.raises(UserError, match="dimension 3, the gallery's have 8"):
        index.with_added(Embeddings(["new"], np.ones((1, 3)), [0]))
    with pytest.raises(UserError, match="'nobody' is not in the gallery"):
        index.without(["00007", "nobody"])
    assert index.search(gallery.vectors, 1).ids[:, 0].tolist() == gallery.ids.tolist()


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivf_pq"])
def test_a_changed_approximate_index_keeps_its_kind_and_its_measured_recall(kind):
    """A copy that FAISS made under another type would be searched with other settings."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 16))
    vectors = centres[random.integers(40, size=3100)] + random.normal(size=(3100, 16)) / 8
    everything = Embeddings([f"{each:05d}" for each in range(3100)], vectors, np.zeros(3100))
    index = make_index("faiss", kind=kind, recall=0.9).fit(everything.take(slice(0, 3000)))
    changed = index.with_added(everything.take(slice(3000, 3100))).without(everything.ids[:100])
    assert not changed.is_exact
    assert changed.back_end.settings() == index.back_end.settings()
    kept = everything.take(slice(100, 3100))
    found = changed.search(kept.vectors[:500], 10)
    exact = make_index("nearest_neighbors").fit(kept).search(kept.vectors[:500], 10)
    shared = [np.isin(ids, true).mean() for ids, true in zip(found.ids, exact.ids, strict=True)]
    assert np.mean(shared) >= 0.88
