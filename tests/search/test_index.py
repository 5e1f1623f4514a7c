"""The contract of every index back end, each test run on all of them."""

from __future__ import annotations

import itertools
import json
import math
import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cbir_tf.config.metric_names import minkowski_order
from cbir_tf.errors import UserError
from cbir_tf.search import METRICS, load_index
from cbir_tf.search import make_index as make_named_index
from cbir_tf.types import Embeddings

EXACT = {"nearest_neighbors": {}, "faiss": {}, "faiss cells": {"kind": "cells"}, "annoy": {}}
APPROXIMATE = {f"faiss {kind}": {"kind": kind} for kind in ("hnsw", "ivf", "ivf_pq")}
APPROXIMATE["annoy trees"] = {"trees": 10}
MINKOWSKI = ("minkowski-3", "minkowski-1.5", "minkowski-40.5")
every_index = pytest.mark.parametrize("name", EXACT | APPROXIMATE)
every_exact_index = pytest.mark.parametrize(
    ("name", "metric"),
    [
        each
        for each in [
            *itertools.product(EXACT, METRICS),
            *itertools.product(["nearest_neighbors"], MINKOWSKI),
        ]
        if each != ("faiss cells", "manhattan")
    ],
)
approximate_index = pytest.mark.parametrize("name", APPROXIMATE)


def make_index(name: str, metric: str = "cosine", **options):
    """By the name of a case: a back end, and its kind where it has several."""
    if name.startswith("annoy"):
        pytest.importorskip("annoy")
    return make_named_index(
        name.partition(" ")[0], metric, **(EXACT | APPROXIMATE).get(name, {}), **options
    )


def embeddings(ids, vectors) -> Embeddings:
    return Embeddings(ids, vectors, np.zeros(len(ids)))


def random_embeddings(count: int, dimension: int = 8, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    return embeddings([f"{7 * each:05d}" for each in range(count)], vectors)


def naive_distance(metric: str, one: list[float], other: list[float]) -> np.float32:
    if metric == "manhattan":
        return np.float32(sum(abs(a - b) for a, b in zip(one, other, strict=True)))
    if metric == "euclidean":
        return np.float32(math.dist(one, other))
    order = minkowski_order(metric)
    if order:
        largest = max(abs(a - b) for a, b in zip(one, other, strict=True)) or 1.0
        shares = [abs(a - b) / largest for a, b in zip(one, other, strict=True)]
        return np.float32(largest * math.fsum(each**order for each in shares) ** (1 / order))
    lengths = math.hypot(*one), math.hypot(*other)
    if 0 in lengths:
        return np.float32(0 if lengths == (0, 0) else 1)
    directions = [a / lengths[0] - b / lengths[1] for a, b in zip(one, other, strict=True)]
    return np.float32(math.fsum(each * each for each in directions) / 2)


def naive_search(metric, gallery: Embeddings, vector, k: int, query_id: str = ""):
    found = []
    for one, other in zip(gallery.ids.tolist(), gallery.vectors.tolist(), strict=True):
        if one != query_id:
            found.append((naive_distance(metric, list(map(float, vector)), other), one))
    found.sort()
    return [one for _, one in found[:k]], [distance for distance, _ in found[:k]]


@st.composite
def galleries(draw):
    """Small whole numbers, so that ties, duplicates and zero vectors are the rule."""
    dimension = draw(st.integers(1, 4))
    row = st.lists(st.integers(-2, 2), min_size=dimension, max_size=dimension)
    vectors = draw(st.lists(row, min_size=2, max_size=40))
    ids = st.lists(st.integers(0, 999), min_size=len(vectors), max_size=len(vectors), unique=True)
    return embeddings([f"image-{each}" for each in draw(ids)], vectors)


@every_exact_index
@settings(max_examples=30, deadline=None)
@given(gallery=galleries(), data=st.data())
def test_agrees_with_a_naive_search_with_ties_duplicates_and_zero_vectors(
    name, metric, gallery, data
):
    k = data.draw(st.integers(1, len(gallery)))
    index = make_index(name, metric).fit(gallery)
    found = index.search(gallery.vectors, k)
    for row, vector in enumerate(gallery.vectors):
        ids, distances = naive_search(metric, gallery, vector, k)
        assert found.ids[row].tolist() == ids
        np.testing.assert_allclose(found.distances[row], distances, rtol=2e-7)


@every_exact_index
@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_agrees_with_scipy(name, metric, scale):
    gallery = random_embeddings(300, 24)
    gallery = embeddings(gallery.ids, gallery.vectors * np.float32(scale))
    queries = random_embeddings(20, 24, seed=1).vectors * np.float32(scale)
    order = minkowski_order(metric)
    distances = cdist(
        queries.astype(float),
        gallery.vectors.astype(float),
        *(["minkowski"] if order else [metric.replace("manhattan", "cityblock")]),
        **({"p": order} if order else {}),
    )
    found = make_index(name, metric).fit(gallery).search(queries, 300)
    assert found.ids.tolist() == gallery.ids[np.argsort(distances, axis=1)].tolist()
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1), rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    gallery=galleries(),
    order=st.sampled_from(["7.5", "60", "900.25", "99999"]),
    scale=st.sampled_from([1e-30, 1, 1e10, 1e37]),
    beyond=st.sampled_from([1, 1e4]),
)
def test_overflowing_powers_do_not_change_the_order(gallery, order, scale, beyond):
    metric = f"minkowski-{order}"
    gallery = embeddings(gallery.ids, gallery.vectors * np.float32(scale / beyond))
    queries = gallery.vectors * np.float32(beyond)
    found = make_index("nearest_neighbors", metric).fit(gallery).search(queries, len(gallery))
    for row, vector in enumerate(queries):
        ids, distances = naive_search(metric, gallery, vector, len(gallery))
        np.testing.assert_allclose(found.distances[row], distances, rtol=1e-6)
        assert sorted(found.ids[row].tolist()) == sorted(ids)


@every_exact_index
@settings(max_examples=20, deadline=None)
@given(gallery=galleries(), data=st.data())
def test_only_the_query_itself_is_removed_and_its_duplicates_stay(name, metric, gallery, data):
    k = data.draw(st.integers(1, len(gallery) - 1))
    index = make_index(name, metric).fit(gallery)
    found = index.search(gallery.vectors, k, gallery.ids)
    for row, vector in enumerate(gallery.vectors):
        ids, _ = naive_search(metric, gallery, vector, k, gallery.ids[row])
        assert found.ids[row].tolist() == ids


@every_index
def test_a_query_id_that_the_gallery_does_not_hold_removes_nothing(name):
    gallery = random_embeddings(20)
    index = make_index(name).fit(gallery)
    query_ids = ["00001", "", "zzz"]
    found = index.search(gallery.vectors[:3], 20, query_ids)
    assert found.ids[:, 0].tolist() == gallery.ids[:3].tolist()


@every_exact_index
def test_ties_across_rank_k_are_settled_by_id_however_many_there_are(name, metric):
    random = np.random.default_rng(1)
    near, far = np.tile([1.0, 2.0, 3.0], (300, 1)), random.normal(size=(100, 3)) - 9
    ids = random.permutation([f"{each:03d}" for each in range(400)])
    gallery = embeddings(ids, np.concatenate([near, far]))
    found = make_index(name, metric).fit(gallery).search(np.float32([[1, 2, 3.5]]), 5)
    assert found.ids[0].tolist() == sorted(ids[:300])[:5]


@every_exact_index
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_query_has_the_same_neighbours_and_distances_alone_and_in_a_batch(name, metric, offset):
    gallery = random_embeddings(500, 33)
    gallery = embeddings(gallery.ids, gallery.vectors + np.float32(offset))
    index = make_index(name, metric).fit(gallery)
    together = index.search(gallery.vectors, 7)
    for row in range(0, 500, 25):
        alone = index.search(gallery.vectors[row : row + 1], 7)
        assert alone.ids[0].tolist() == together.ids[row].tolist()
        assert alone.distances[0].tolist() == together.distances[row].tolist()


@every_index
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_identical_vectors_are_at_distance_zero_and_none_below(name, metric):
    gallery = random_embeddings(200, 48)
    found = make_index(name, metric).fit(gallery).search(gallery.vectors, 1)
    assert found.ids[:, 0].tolist() == gallery.ids.tolist()
    assert found.distances.tolist() == [[0.0]] * 200


@every_exact_index
def test_vectors_that_differ_in_the_last_bit_are_in_the_right_order(name, metric):
    base = np.random.default_rng(2).normal(size=16).astype(np.float32) + 50
    steps = [base]
    for _ in range(30):
        following = steps[-1].copy()
        following[:3] = np.nextafter(following[:3], np.float32(1e9))
        steps.append(following)
    gallery = embeddings([f"{30 - each:02d}" for each in range(31)], np.stack(steps))
    found = make_index(name, metric).fit(gallery).search(base[None], 31)
    ids, distances = naive_search(metric, gallery, base, 31)
    assert found.ids[0].tolist() == ids == [f"{30 - each:02d}" for each in range(31)]
    np.testing.assert_allclose(found.distances[0], distances, rtol=1e-3, atol=0)


@every_index
def test_the_cosine_distance_of_a_zero_vector_is_one(name):
    gallery = embeddings(["a", "b", "zero"], [[3, 0], [-2, 0], [0, 0]])
    found = make_index(name, "cosine").fit(gallery).search(np.float32([[5, 0]]), 3)
    assert found.ids.tolist() == [["a", "zero", "b"]]
    assert found.distances.tolist() == [[0, 1, 2]]


@every_index
@pytest.mark.parametrize(
    ("k", "query_ids", "message"),
    [
        (6, None, "k=6: the gallery holds only 5 to find; ask for k=5 or fewer"),
        (5, ["00007"], "k=5: the gallery holds only 4 to find .a query never finds itself.; "),
        (0, None, "k=0: ask for at least 1"),
    ],
)
def test_an_impossible_k_is_a_one_line_error(name, k, query_ids, message):
    index = make_index(name).fit(random_embeddings(5))
    with pytest.raises(UserError, match=message) as caught:
        index.search(np.ones((1, 8)), k, query_ids)
    assert "\n" not in str(caught.value)


@every_index
def test_an_empty_gallery_is_a_one_line_error(name):
    nobody = random_embeddings(0)
    for index in (make_index(name), make_index(name).fit(nobody)):
        with pytest.raises(UserError, match="the gallery holds nothing to search"):
            index.search(np.ones((1, 8)), 1)


@every_index
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 7)), r"shape \(2, 7\), the gallery's dimension is 8"),
        (np.ones((1, 2, 8)), r"shape \(vectors, dimension\), got .*\(1, 2, 8\)"),
        (np.full((1, 8), np.nan), "query vector 0 has a value that is not finite"),
    ],
)
def test_invalid_query_vectors_are_a_one_line_error(name, vectors, message):
    index = make_index(name).fit(random_embeddings(5))
    with pytest.raises(UserError, match=message):
        index.search(vectors, 1)


@every_index
def test_no_queries_have_no_neighbours(name):
    found = make_index(name).fit(random_embeddings(5)).search(np.empty((0, 8)), 3)
    assert found.ids.shape == found.distances.shape == (0, 3)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no 'nearest_neighbours'; did you mean 'nearest_neighbo"):
        make_index("nearest_neighbours")
    with pytest.raises(UserError, match="no 'euclid'; did you mean 'euclidean'"):
        make_index("nearest_neighbors", metric="euclid")
    with pytest.raises(UserError, match="no 'minkowsky-3'; did you mean 'minkowski-P'"):
        make_index("nearest_neighbors", metric="minkowsky-3")


@pytest.mark.parametrize(
    "order", ["0.5", "0", "-1", "", "nan", "inf", "1e1", "9" * 400, " 3", "3-2"]
)
def test_a_minkowski_distance_of_an_impossible_order_is_a_one_line_error(order):
    message = "the P of minkowski-P is a number from 1 up, as in minkowski-3"
    with pytest.raises(UserError, match=message) as caught:
        make_index("nearest_neighbors", metric=f"minkowski-{order}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["faiss", "faiss ivf", "annoy trees"])
def test_a_distance_that_a_back_end_does_not_know_is_a_one_line_error(name):
    message = f"{name.partition(' ')[0]}: knows no minkowski-3 distance; use search.index nearest_"
    with pytest.raises(UserError, match=message):
        make_index(name, "minkowski-3").fit(random_embeddings(100))


def test_an_unknown_option_is_refused():
    with pytest.raises(UserError, match="probes"):
        make_index("nearest_neighbors", probes=3)
    with pytest.raises(UserError, match="probes"):
        make_index("faiss", probes=3)
    with pytest.raises(UserError, match="no kind 'flatt'; did you mean 'flat'"):
        make_index("faiss", kind="flatt")
    with pytest.raises(UserError, match=r"recall=1\.5: must be above 0 and at most 1"):
        make_index("faiss", recall=1.5)
    with pytest.raises(UserError, match="hnsw knows no manhattan"):
        make_index("faiss hnsw", "manhattan").fit(random_embeddings(100))
    with pytest.raises(UserError, match="annoy: trees=0: must be 1 or more"):
        make_index("annoy", trees=0)
    with pytest.raises(UserError, match=r"recall=0\.0: must be above 0 and at most 1"):
        make_index("annoy", recall=0)


IN_A_FRESH_PROCESS = """
import json, sys
import numpy as np
from cbir_tf.search import load_index
from cbir_tf.types import Embeddings

stored = np.load(sys.argv[2])
index = load_index(sys.argv[1], Embeddings(stored["ids"], stored["vectors"], stored["labels"]))
found = index.search(stored["vectors"][:10], 4, stored["ids"][:10])
print(json.dumps([index.metric, found.ids.tolist(), found.distances.tolist()]))
"""


@every_index
def test_a_saved_index_answers_the_same_in_a_fresh_process(name, tmp_path):
    gallery = random_embeddings(80)
    index = make_index(name, "euclidean").fit(gallery)
    index.save(tmp_path / "index")
    np.savez(
        tmp_path / "store.npz",
        ids=gallery.ids[::-1],
        vectors=gallery.vectors[::-1],
        labels=gallery.labels[::-1],
    )
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS]
    arguments = [str(tmp_path / "index"), str(tmp_path / "store.npz")]
    answer = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    queries = gallery.take(slice(None, -11, -1))
    here = index.search(queries.vectors, 4, queries.ids)
    assert json.loads(answer.stdout) == ["euclidean", here.ids.tolist(), here.distances.tolist()]


@every_index
def test_an_index_of_other_vectors_is_refused(name, tmp_path):
    gallery = random_embeddings(20)
    make_index(name).fit(gallery).save(tmp_path)
    vectors = gallery.vectors.copy()
    vectors[3, 2] = np.nextafter(vectors[3, 2], np.float32(9))
    renamed = np.where(gallery.ids == "00007", "00008", gallery.ids)
    others = [
        embeddings(gallery.ids, vectors),
        embeddings(renamed, gallery.vectors),
        gallery.take(slice(0, 19)),
        embeddings(gallery.ids, gallery.vectors[:, :4]),
        embeddings(gallery.ids[::-1], gallery.vectors),
    ]
    for other in others:
        with pytest.raises(UserError, match="fitted to 20 vectors of dimension 8, not to these"):
            load_index(tmp_path, other)


@every_index
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no saved index"),
        (b"", "cannot be read"),
        (b'{"index": "nearest_nei', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[]", "not an index file"),
        (b'{"index": "nearest_neighbors"}', "not an index file"),
        (
            b'{"index": [], "metric": 1, "count": 5, "dimension": 8, "digest": "", "format": 2}',
            "not an index file",
        ),
    ],
)
def test_a_missing_or_damaged_index_is_a_one_line_error(name, content, message, tmp_path):
    gallery = random_embeddings(5)
    make_index(name).fit(gallery).save(tmp_path)
    if content is None:
        (tmp_path / "index.json").unlink()
    else:
        (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_index(tmp_path, gallery)
    assert "\n" not in str(caught.value)


@every_index
def test_a_later_file_format_is_refused(name, tmp_path):
    gallery = random_embeddings(5)
    make_index(name).fit(gallery).save(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))
    with pytest.raises(UserError, match="format 3, this version reads 2"):
        load_index(tmp_path, gallery)


@every_index
def test_a_folder_that_cannot_be_written_is_a_one_line_error(name, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        make_index(name).fit(random_embeddings(5)).save(tmp_path / "file")


@every_index
@settings(max_examples=25, deadline=None)
@given(gallery=galleries(), data=st.data())
def test_a_filtered_search_is_exact_however_few_are_left(name, gallery, data):
    where = data.draw(st.lists(st.sampled_from(gallery.ids.tolist()), unique=True))
    k = data.draw(st.integers(1, len(gallery) - 1))
    index = make_index(name, "euclidean").fit(gallery)
    found = index.search(gallery.vectors, k, gallery.ids, where=where)
    chosen = gallery.take(np.isin(gallery.ids, where))
    for row, vector in enumerate(gallery.vectors):
        ids, distances = naive_search("euclidean", chosen, vector, k, gallery.ids[row])
        assert [each for each in found.ids[row].tolist() if each] == ids
        np.testing.assert_allclose(found.distances[row, : len(ids)], distances, rtol=2e-7)
        assert np.isinf(found.distances[row, len(ids) :]).all()


@every_index
def test_a_filter_by_an_id_that_is_not_there_is_refused(name):
    index = make_index(name).fit(random_embeddings(20))
    with pytest.raises(UserError, match="'nobody' is not in the gallery"):
        index.search(np.ones((1, 8)), 1, where=["00007", "nobody"])


def clustered(count: int, dimension: int = 32, seed: int = 0) -> Embeddings:
    """As trained embeddings lie: in clusters, each of few dimensions."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, dimension))
    directions = random.normal(size=(40, 6, dimension)) / 4
    cluster = random.integers(40, size=count)
    spread = np.einsum("nk,nkd->nd", random.normal(size=(count, 6)), directions[cluster])
    noise = random.normal(size=(count, dimension)) / 20
    return embeddings([f"{each:06d}" for each in range(count)], centres[cluster] + spread + noise)


@pytest.mark.parametrize(
    ("name", "metric"),
    [*itertools.product(APPROXIMATE, ["cosine", "euclidean"]), ("annoy trees", "manhattan")],
)
@pytest.mark.parametrize("recall", [0.8, 0.97])
def test_an_approximate_index_reaches_the_configured_recall(name, metric, recall):
    everything = clustered(8200)
    gallery, queries = everything.take(slice(0, 8000)), everything.take(slice(8000, None))
    index = make_index(name, metric, recall=recall).fit(gallery)
    assert not index.is_exact
    found = index.search(queries.vectors, 10)
    exact = make_index("nearest_neighbors", metric).fit(gallery).search(queries.vectors, 10)
    shared = [np.isin(here, there).mean() for here, there in zip(found.ids, exact.ids, strict=True)]
    assert index.back_end.reached >= recall
    assert np.mean(shared) >= recall - 0.02
    # What is found has its exact distance.
    same = found.ids == exact.ids
    assert np.array_equal(found.distances[same], exact.distances[same])


@pytest.mark.parametrize("name", APPROXIMATE)
def test_an_approximate_search_finds_the_same_beside_queries_that_are_stored(name):
    everything = clustered(2200)
    stored, others = everything.take(slice(0, 2000)), everything.take(slice(2000, None))
    index = make_index(name, "euclidean", recall=0.5).fit(stored)
    assert not index.is_exact
    vectors = np.concatenate([others.vectors, stored.vectors[:200]])
    ids = np.concatenate([others.ids, stored.ids[:200]])
    mixed = index.search(vectors, 10, ids)
    apart = [index.search(vectors[rows], 10, ids[rows]) for rows in (slice(200), slice(200, None))]
    assert np.array_equal(mixed.ids, np.concatenate([each.ids for each in apart]))
    assert (mixed.ids != ids[:, np.newaxis]).all()
    assert (mixed.ids != "").all()


def test_the_default_is_exact_for_small_galleries_and_approximate_for_large_ones():
    gallery = clustered(21_000, dimension=8)
    index = make_index("faiss", recall=0.9).fit(gallery.take(slice(0, 19_000)))
    assert index.is_exact
    index = index.with_added(gallery.take(slice(19_000, None)))
    assert not index.is_exact
    assert make_index("faiss", recall=1).fit(gallery).is_exact
    assert make_index("faiss", "manhattan").fit(gallery).is_exact
    found = index.search(gallery.vectors[:200], 1)
    assert (found.ids[:, 0] == gallery.ids[:200]).mean() > 0.95


def test_annoy_is_exact_for_few_vectors_or_a_recall_of_one_and_then_grows_trees():
    gallery = clustered(1200, dimension=8)
    index = make_index("annoy", recall=0.9).fit(gallery.take(slice(0, 900)))
    assert index.is_exact
    index = index.with_added(gallery.take(slice(900, None)))
    assert not index.is_exact
    assert index.back_end.reached >= 0.9
    index = index.without(gallery.ids[:300])
    assert index.is_exact
    assert make_index("annoy", recall=1).fit(gallery).is_exact


@pytest.mark.parametrize(
    ("options", "vectors"),
    [
        # Without clusters and of many dimensions, trees are of no use.
        ({}, np.random.default_rng(0).normal(size=(1500, 200))),
        # Apart by less than the float32 arithmetic of the trees can tell.
        ({"trees": 10}, 1000 + np.random.default_rng(0).normal(size=(300, 8)) / 1000),
    ],
)
def test_annoy_is_exact_where_its_trees_miss_the_configured_recall(options, vectors):
    gallery = embeddings([f"{each:04d}" for each in range(len(vectors))], vectors)
    index = make_index("annoy", recall=0.995, **options).fit(gallery)
    assert index.is_exact and index.back_end.reached == 1
    found = index.search(gallery.vectors[:20], 5)
    expected = make_index("nearest_neighbors").fit(gallery).search(gallery.vectors[:20], 5)
    assert found.ids.tolist() == expected.ids.tolist()


@approximate_index
def test_the_same_vectors_and_seed_make_the_same_index(name):
    gallery = clustered(3000)
    one, two = (make_index(name, recall=0.5, seed=3).fit(gallery) for _ in range(2))
    assert one.back_end.settings() == two.back_end.settings()
    found, again = (index.search(gallery.vectors, 10) for index in (one, two))
    assert found.ids.tolist() == again.ids.tolist()


@approximate_index
def test_a_damaged_index_file_is_refused_and_a_changed_gallery_survives_saving(name, tmp_path):
    gallery = clustered(600)
    index = make_index(name).fit(gallery)
    index = index.without(gallery.ids[100:140])
    index.save(tmp_path)
    kept = gallery.take(np.r_[0:100, 140:600])
    loaded = load_index(tmp_path, kept)
    assert not loaded.is_exact
    found, expected = loaded.search(gallery.vectors, 5), index.search(gallery.vectors, 5)
    assert found.ids.tolist() == expected.ids.tolist()
    loaded = loaded.with_added(gallery.take(slice(100, 110)))
    assert not loaded.is_exact
    assert loaded.search(gallery.vectors[100:101], 1).ids[0, 0] == gallery.ids[100]
    file = tmp_path / index.back_end.files[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{file}: missing or damaged"):
        load_index(tmp_path, kept)


def test_a_full_disk_while_an_index_is_saved_is_a_one_line_error(tmp_path):
    index = make_index("annoy trees").fit(random_embeddings(300))
    (tmp_path / "index").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        index.save(tmp_path / "index")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limit[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written.*too large"):
            index.save(tmp_path / "other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_missing_annoy_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "annoy", None)
    with pytest.raises(UserError, match=r"pip install 'cbir-tf\[annoy\]'"):
        make_named_index("annoy")
