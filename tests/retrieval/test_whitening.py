"""PCA and whitening against an eigen-decomposition written out, and what a saved one refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.preprocessing import StandardScaler

from cbir_tf.config.search import Search
from cbir_tf.errors import UserError
from cbir_tf.retrieval.whitening import FILE_NAME, Whitening, whitening_for


def vectors_of(count: int, dimension: int, seed: int = 0, offset: float = 3.0) -> np.ndarray:
    """Of different spread along each of their own axes, and away from the origin."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(dimension, dimension)))[0]
    spread = np.geomspace(1, 0.05, dimension)
    return ((random.normal(size=(count, dimension)) * spread) @ axes + offset).astype(np.float32)


def naive_projection(vectors: np.ndarray, components: int, whiten: float) -> np.ndarray:
    """The eigenvectors of the covariance matrix, largest eigenvalue first; up to their signs."""
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / (len(vectors) - 1))
    order = np.argsort(-values)[:components]
    projected = centred @ axes[:, order]
    return projected / values[order] ** (whiten / 2)


@given(
    count=st.integers(2, 60),
    dimension=st.integers(1, 12),
    whiten=st.sampled_from([0, 0.3, 1]) | st.floats(0, 1),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_agrees_with_an_eigen_decomposition(count, dimension, whiten, seed, data):
    vectors = vectors_of(count, dimension, seed)
    components = data.draw(st.integers(1, min(count - 1, dimension)))
    ours = Whitening.fit(vectors, components, whiten)(vectors)
    expected = naive_projection(vectors, components, whiten)
    assert ours.dtype == np.float32
    assert ours.shape == (count, components)
    signs = np.sign((ours * expected).sum(axis=0))
    np.testing.assert_allclose(ours * signs, expected, atol=1e-4)


@given(count=st.integers(13, 80), dimension=st.integers(1, 12), seed=st.integers(0, 99))
def test_all_components_without_whitening_keep_every_distance(count, dimension, seed):
    vectors = vectors_of(count, dimension, seed)
    projected = Whitening.fit(vectors)(vectors)
    np.testing.assert_allclose(pdist(projected), pdist(vectors), rtol=1e-4, atol=1e-5)


@given(count=st.integers(2, 80), dimension=st.integers(1, 12), seed=st.integers(0, 99))
def test_whitened_dimensions_have_variance_one_and_do_not_vary_together(count, dimension, seed):
    vectors = vectors_of(count, dimension, seed)
    projected = Whitening.fit(vectors, whiten=1)(vectors)
    # Of few vectors all lie in a plane of fewer dimensions, and the rest is left out.
    assert projected.shape[1] == min(count - 1, dimension)
    covariance = np.atleast_2d(np.cov(projected.astype(np.float64), rowvar=False))
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=1e-3)


@given(
    count=st.integers(3, 60),
    dimension=st.integers(1, 12),
    components=st.none() | st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_standardizes_as_scikit_learn_does_and_then_turns(count, dimension, components, seed):
    vectors = vectors_of(count, dimension, seed) * np.geomspace(1, 100, dimension)
    vectors = vectors.astype(np.float32)
    components = components and min(components, dimension)
    ours = Whitening.fit(vectors, components, standardize=True)(vectors)
    expected = StandardScaler().fit_transform(vectors.astype(np.float64))
    if components:
        expected = naive_projection(expected, components, whiten=0)
        ours *= np.sign((ours * expected).sum(axis=0))
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_a_dimension_that_never_varies_is_not_blown_up_by_standardizing():
    vectors = vectors_of(400, 6)
    noise = (1 + np.random.default_rng(0).integers(-1, 2, (400, 1)) * 6e-8).astype(np.float32)
    projected = Whitening.fit(np.hstack([vectors, noise]), standardize=True)(
        np.hstack([vectors, noise])
    )
    assert np.abs(projected[:, 6]).max() < 1e-6
    np.testing.assert_allclose(projected[:, :6].std(axis=0), 1, atol=1e-4)


def test_the_first_components_are_those_of_the_largest_variance():
    vectors = vectors_of(500, 10)
    variances = Whitening.fit(vectors, 6)(vectors).var(axis=0)
    assert (np.diff(variances) < 0).all()
    kept = Whitening.fit(vectors, 3)(vectors)
    assert np.array_equal(kept, Whitening.fit(vectors, 6)(vectors)[:, :3])


def test_a_query_is_projected_as_the_stored_vectors_are():
    vectors = vectors_of(300, 16)
    projection = Whitening.fit(vectors, 4, whiten=1)
    together = projection(vectors)
    for row in range(0, 300, 30):
        np.testing.assert_allclose(projection(vectors[row : row + 1])[0], together[row], atol=1e-6)


def test_more_vectors_than_one_block_are_projected_alike(monkeypatch):
    vectors = vectors_of(300, 8)
    projection = Whitening.fit(vectors, 4)
    whole = projection(vectors)
    monkeypatch.setattr("cbir_tf.retrieval.whitening.BLOCK", 77)
    np.testing.assert_allclose(projection(vectors), whole, atol=1e-6)


def test_the_same_vectors_have_the_same_projection():
    vectors = vectors_of(100, 20)
    one, two = Whitening.fit(vectors, 7), Whitening.fit(vectors.copy(), 7)
    assert one.digest == two.digest
    assert np.array_equal(one.directions, two.directions)


@pytest.mark.parametrize(
    ("vectors", "components", "whiten", "message"),
    [
        (vectors_of(50, 8), 9, 0, "search.pca=9: 50 stored vectors of dimension 8 have at most"),
        (vectors_of(5, 8), 6, 0, "at most 5 components; set it to 5 or less, or extract"),
        (vectors_of(1, 8), 1, 0, "1 stored vectors are too few; extract two or more"),
        (vectors_of(5, 8), 5, 1, "differ along only 4 directions; lower search.pca"),
        (np.ones((5, 8)), None, 0.3, "differ along only 0 directions"),
    ],
)
def test_too_many_components_are_a_one_line_error(vectors, components, whiten, message):
    with pytest.raises(UserError, match=message) as caught:
        Whitening.fit(vectors, components, whiten)
    assert "\n" not in str(caught.value)


def test_dimensions_that_never_vary_are_left_out_of_whitening_and_not_blown_up():
    vectors = vectors_of(400, 6, offset=0)
    dead = np.zeros((400, 2), np.float32)
    noise = (1 + np.random.default_rng(0).integers(-1, 2, (400, 1)) * 6e-8).astype(np.float32)
    whitened = Whitening.fit(np.hstack([vectors, dead, noise]), whiten=0.3)
    assert whitened.directions.shape == (9, 6)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 7)), r"shape \(2, 7\), the gallery's dimension is 8"),
        (np.full((1, 8), np.nan), "query vector 0 has a value that is not finite"),
    ],
)
def test_invalid_vectors_are_a_one_line_error(vectors, message):
    with pytest.raises(UserError, match=message):
        Whitening.fit(vectors_of(20, 8), 2)(vectors)


@pytest.mark.parametrize(("components", "whiten"), [(5, 0), (5, 0.3), (None, 1)])
def test_a_saved_projection_is_read_back_to_the_last_bit(tmp_path, components, whiten):
    vectors = vectors_of(1000, 48)
    projection = Whitening.fit(vectors, components, whiten)
    projection.save(tmp_path)
    again = Whitening.load(tmp_path)
    assert again.digest == projection.digest
    assert np.array_equal(again(vectors), projection(vectors))
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]
    settings = Search(pca=components, whiten=whiten)
    assert whitening_for(vectors, settings, tmp_path).digest == projection.digest


def test_only_a_whitening_of_the_same_vectors_and_settings_is_reused(tmp_path, caplog):
    vectors = vectors_of(50, 8)
    Whitening.fit(vectors, 4).save(tmp_path)
    assert whitening_for(vectors, Search(), tmp_path) is None
    moved = vectors.copy()
    moved[3, 2] = np.nextafter(moved[3, 2], np.float32(9))
    caplog.set_level("INFO")
    for others, *settings in (
        (vectors[:-1], 4, 0, False),
        (moved, 4, 0, False),
        (vectors, 5, 0, False),
        (vectors, 4, 1, False),
        (vectors, 4, 0.5, False),
        (vectors, 4, 0, True),
        (vectors, None, 1, False),
    ):
        search = Search(**dict(zip(("pca", "whiten", "standardize"), settings, strict=True)))
        found = whitening_for(others, search, tmp_path)
        assert found.digest == Whitening.fit(others, *settings).digest
        assert "fitted again" in caplog.text and "have changed" in caplog.text
        caplog.clear()
    whitening_for(vectors, Search(pca=4), tmp_path)
    assert not caplog.text
    whitening_for(vectors, Search(pca=4), tmp_path / "elsewhere")
    assert "fitting the whitening to" in caplog.text and "again" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"half of a file", b"PK\x03\x04"])
def test_a_file_that_is_no_projection_is_refused(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Whitening.load(tmp_path)


def test_objects_are_not_unpickled(tmp_path):
    values = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / FILE_NAME, mean=values, directions=values)
    with pytest.raises(UserError, match="damaged"):
        Whitening.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["mean", "directions", "components", "whiten", "standardize", "fitted_to"]
)
def test_values_that_are_not_those_saved_are_refused(tmp_path, name):
    Whitening.fit(vectors_of(30, 4), 2).save(tmp_path)
    with np.load(tmp_path / FILE_NAME) as file:
        values = dict(file)
    values[name] = np.array("other") if name == "fitted_to" else values[name] + 1
    np.savez(tmp_path / FILE_NAME, **values)
    with pytest.raises(UserError, match="damaged"):
        Whitening.load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    projection = Whitening.fit(vectors_of(30, 4), 2)
    projection.save(folder)
    return folder, projection, (folder / FILE_NAME).read_bytes()


@given(data=st.data(), change=st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_changes_nothing(saved, data, change):
    folder, projection, content = saved
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= change
    (folder / FILE_NAME).write_bytes(damaged)
    try:
        loaded = Whitening.load(folder)
    except UserError:
        return
    assert loaded.digest == projection.digest
    assert np.array_equal(loaded(vectors_of(5, 4)), projection(vectors_of(5, 4)))
