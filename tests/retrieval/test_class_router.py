"""The class router: which class an image is of, and which images it leaves to search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config.search import Search, TwoStep
from cbir_tf.errors import UserError
from cbir_tf.retrieval import class_router
from cbir_tf.retrieval.class_router import ClassRouter, predicted, route_by_label, weigh
from cbir_tf.retrieval.classifiers import NearestVote, fit_classifier
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.query_engine import QueryEngine, is_plain, steps_of
from cbir_tf.search import make_index
from cbir_tf.types import Embeddings, Prediction, QueryBatch, Results

CENTRES = np.array([[0, 0], [10, 0], [0, 10]])


def images(count: int, seed: int = 0, prefix: str = "image") -> Embeddings:
    """Three clouds far apart, their labels 3, 5 and 7."""
    random = np.random.default_rng(seed)
    number = random.integers(3, size=count)
    vectors = CENTRES[number] + random.normal(size=(count, 2))
    ids = [f"{prefix}-{each:04d}" for each in range(count)]
    return Embeddings(ids, vectors, np.array([3, 5, 7])[number])


NAMES = tuple(f"class {each}" for each in range(8))
TRAINING = images(60, seed=9, prefix="training")
CLASSIFIER = NearestVote(TRAINING, "euclidean")


def router_of(gallery: Embeddings, **settings) -> ClassRouter:
    two_step = TwoStep(name="knn", **settings)
    return route_by_label(CLASSIFIER, gallery, NAMES, two_step)


def search(
    gallery: Embeddings,
    router: ClassRouter | None,
    queries: np.ndarray,
    k: int,
    probabilities: np.ndarray | None = None,
    index: str = "nearest_neighbors",
    **options,
) -> Results:
    fitted = make_index(index, "euclidean", **options).fit(gallery)
    settings = Search(metric="euclidean")
    if router is None:
        snapshot = Gallery(fitted, settings)
    else:
        settings = settings.model_copy(update={"two_step": router.settings})
        snapshot = Gallery(fitted, settings, NAMES, routers={router.settings: router})
    return QueryEngine(snapshot).search(QueryBatch(queries, class_probabilities=probabilities), k)


@given(seed=st.integers(0, 50))
def test_a_weight_of_0_is_plain_search_and_a_large_one_the_order_of_hard(seed):
    gallery, queries = images(30, seed), images(5, seed + 100).vectors
    random = np.random.default_rng(seed)
    # Probabilities far enough apart that a weight of 5 outdoes any ratio of distances here.
    shares = 1e-5 ** random.permuted(np.tile([0, 0.5, 1], (5, 1)), axis=1)
    shares /= shares.sum(axis=1, keepdims=True)

    def found(**settings):
        router = router_of(gallery, **settings) if settings else None
        return search(gallery, router, queries, 30, shares)

    plain, without = found(), found(mode="soft", weight=0)
    assert np.array_equal(plain.ids, without.ids)
    assert np.array_equal(plain.distances, without.distances)
    assert np.array_equal(found(mode="soft", weight=5).ids, found(mode="hard").ids)


@given(seed=st.integers(0, 50), weight=st.floats(0, 5))
def test_soft_distances_grow_as_the_class_gets_less_likely(seed, weight):
    random = np.random.default_rng(seed)
    router = router_of(images(30, seed), mode="soft", weight=weight)
    shares = random.dirichlet([0.3, 0.3, 0.3], size=4)
    factors = router.factors(np.tile(np.arange(30), (4, 1)), shares)
    share_of = np.take_along_axis(shares, np.tile(router.class_of, (4, 1)), axis=1)
    order = np.argsort(-share_of, axis=1)
    in_order = np.take_along_axis(factors, order, axis=1)
    assert (np.diff(in_order, axis=1) >= 0).all()
    assert np.isfinite(factors).all() and (factors >= 1).all()


def test_hard_stays_in_the_likeliest_class_and_goes_on_in_the_next_when_it_is_empty():
    gallery = images(40)
    label_of = dict(zip(gallery.ids.tolist(), gallery.labels.tolist(), strict=True))
    # In class 5, and so far from it that class 3 has all of the 10 nearest but for class 5.
    found = search(gallery, router_of(gallery), np.float32([[10, 0]]), 40)
    labels = [label_of[id_] for id_ in found.ids[0].tolist()]
    inside = labels.count(5)
    assert labels[:inside] == [5] * inside
    assert len(set(labels[inside:])) == 2
    distances = np.linalg.norm(gallery.vectors - [10, 0], axis=1)[gallery.labels == 5]
    np.testing.assert_allclose(found.distances[0, :inside], np.sort(distances), rtol=1e-6)
    assert found.distances[0, inside] > found.distances[0, inside - 1] + 1


def test_inside_a_class_even_an_approximate_index_finds_every_neighbour():
    pytest.importorskip("faiss")
    gallery, queries = images(3000), images(50, 1).vectors
    router = router_of(gallery)
    exact = search(gallery, router, queries, 20)
    nearly = search(gallery, router, queries, 20, index="faiss", kind="hnsw", recall=0.5)
    assert np.array_equal(exact.ids, nearly.ids)
    assert np.array_equal(exact.distances, nearly.distances)


def test_images_without_a_label_or_of_an_unknown_class_are_of_the_class_they_are_taken_for():
    gallery = images(30)
    labels = gallery.labels.copy()
    labels[:5], labels[5:10] = -1, 1
    changed = Embeddings(gallery.ids, gallery.vectors, labels)
    router = router_of(changed)
    expected = predicted(CLASSIFIER, gallery.vectors[:10], gallery.ids[:10])
    assert router.class_of[:10].tolist() == expected.tolist()
    assert CLASSIFIER.labels[router.class_of[10:]].tolist() == gallery.labels[10:].tolist()
    assert router.names == ("class 3", "class 5", "class 7")


def test_the_label_of_an_image_outdoes_what_it_looks_like():
    gallery = Embeddings(["a"], [[0, 0]], [7])
    assert router_of(gallery).class_of.tolist() == [2]


def test_the_prediction_is_the_likeliest_class_with_its_probability():
    router = router_of(images(9))
    found = router.predictions(np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]]))
    assert found == (Prediction("class 5", 0.7), Prediction("class 3", 0.4))


def test_no_distance_becomes_infinite_but_those_of_nothing():
    found = weigh(np.float32([1e30, 2, np.inf]), np.array([1e30, 2, 1]))
    assert found.tolist() == [np.finfo(np.float32).max / 4, 4, np.inf]


def test_a_search_names_its_steps():
    assert is_plain(Search()) and steps_of(Search(two_step=TwoStep(mode="soft"))) == ""
    how = Search(
        re_ranking="k_reciprocal",
        database_augmentation=3,
        two_step=TwoStep(name="svm", mode="soft", run="runs/scenes"),
    )
    assert not is_plain(how)
    assert steps_of(how) == (
        "database augmentation by 3, two-step svm of scenes soft 0.5, k-reciprocal re-ranking"
    )


def test_as_many_classes_as_images_need_no_table_of_all(monkeypatch):
    """The most probable classes of a large gallery are found block by block."""

    class Numbered:
        labels = np.arange(5000)
        largest = 0

        def probabilities(self, vectors, ids=None):
            self.largest = max(self.largest, vectors.shape[0] * len(self.labels))
            shares = np.zeros((len(vectors), len(self.labels)))
            shares[np.arange(len(vectors)), vectors[:, 0].astype(int)] = 1
            return shares

    monkeypatch.setattr(class_router, "BLOCK_PROBABILITIES", 100_000)
    numbered, wanted = Numbered(), np.random.default_rng(0).integers(5000, size=700)
    found = class_router.predicted(numbered, wanted[:, None], np.arange(700).astype(str))
    assert found.tolist() == wanted.tolist() and numbered.largest <= 100_000


def test_a_support_vector_machine_of_too_many_classes_is_refused_before_it_is_fitted():
    count = 20_000
    images = Embeddings(np.arange(count).astype(str), np.ones((count, 2)), np.arange(count) // 2)
    with pytest.raises(UserError, match="two_step=knn"):
        fit_classifier("svm", images, "cosine")
