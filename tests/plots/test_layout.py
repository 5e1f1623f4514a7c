"""Laying out vectors in the plane."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir_tf.plots.layout import FEWEST, principal_components, project

# Both take a second on a free machine, many on a busy one.
SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in ("umap", "tsne")]


def _blobs(each: int, dimensions: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    centres = np.zeros((2, dimensions))
    centres[1] = 40
    labels = np.repeat([0, 1], each)
    return centres[labels] + rng.normal(size=(2 * each, dimensions)), labels


def _separated(points: np.ndarray, labels: np.ndarray) -> bool:
    """Every point is nearer to its own blob's mean than to the other's."""
    means = np.stack([points[labels == each].mean(axis=0) for each in (0, 1)])
    distances = np.linalg.norm(points[:, None] - means[None], axis=-1)
    return bool((distances.argmin(axis=1) == labels).all())


@pytest.mark.parametrize("method", [*SLOW, "pca"])
def test_blobs_stay_apart_and_a_seed_gives_the_same_points(method):
    vectors, labels = _blobs(20)
    points = project(vectors, method, seed=7)
    assert points.shape == (40, 2)
    assert points.dtype == np.float32
    assert _separated(points, labels)
    np.testing.assert_array_equal(points, project(vectors, method, seed=7))


def test_pca_is_the_projection_on_the_leading_singular_vectors():
    vectors = np.random.default_rng(0).normal(size=(30, 6)) * [9, 5, 1, 1, 1, 1]
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred)
    expected = centred @ directions[:2].T
    points = project(vectors, "pca")
    signs = np.sign((points * expected).sum(axis=0))
    np.testing.assert_allclose(points * signs, expected, atol=1e-4)


def test_three_components_are_those_of_the_plane_and_one_more():
    vectors = np.random.default_rng(0).normal(size=(30, 6)) * [9, 5, 3, 1, 1, 1]
    points = principal_components(vectors, 3)
    np.testing.assert_allclose(points[:, :2], project(vectors, "pca"), atol=1e-4)
    assert (np.diff(points.var(axis=0)) < 0).all()
    np.testing.assert_allclose(np.corrcoef(points.T), np.eye(3), atol=1e-6)
    assert not principal_components(vectors[:, :2], 3)[:, 2].any()


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_a_few_points_are_laid_out_by_pca(method, count, caplog):
    vectors = np.random.default_rng(0).normal(size=(count, 5))
    with caplog.at_level(logging.WARNING):
        points = project(vectors, method)
    np.testing.assert_array_equal(points, project(vectors, "pca"))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()
    assert ("PCA instead" in caplog.text) == (method != "pca")


@pytest.mark.parametrize("count", [FEWEST, 6, 17])
@pytest.mark.parametrize("method", SLOW)
def test_fewer_points_than_neighbours_are_laid_out_all_the_same(method, count, caplog):
    vectors = np.random.default_rng(count).normal(size=(count, 5))
    points = project(vectors, method)
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()
    assert "PCA" not in caplog.text


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_vectors_all_alike_lie_on_one_point(method):
    np.testing.assert_array_equal(project(np.ones((30, 4)), method), np.zeros((30, 2)))


@given(
    arrays(
        np.float32, st.tuples(st.integers(0, 9), st.integers(0, 5)), elements=st.floats(width=16)
    )
)
@settings(max_examples=40, deadline=None)
def test_pca_of_any_finite_vectors_is_finite(vectors):
    if not np.isfinite(vectors).all():
        with pytest.raises(ValueError, match="finite"):
            project(vectors, "pca")
        return
    points = project(vectors, "pca")
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()


def test_vectors_of_one_number_spread_along_a_line():
    points = project(np.arange(6.0)[:, None], "pca")
    assert np.ptp(points[:, 0]) == pytest.approx(5)
    assert not points[:, 1].any()


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="umap, tsne, pca"):
        project(np.zeros((3, 2)), "isomap")


@pytest.mark.slow
def test_umap_prints_no_warnings():
    script = (
        "import numpy; from cbir_tf.plots.layout import project;"
        "project(numpy.random.default_rng(0).normal(size=(12, 4)), 'umap')"
    )
    told = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True
    )
    assert "n_jobs" not in told.stderr
    assert "umap_.py" not in told.stderr
    assert told.stdout == ""
