"""The variance that principal components hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.decomposition import PCA

from cbir_tf.plots import variance
from cbir_tf.plots.variance import _figure, explained_variance, variance_curve


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (300, 3)])
@pytest.mark.parametrize("away", [0, 1000])
def test_shares_are_those_of_scikit_learn(shape, away, monkeypatch):
    monkeypatch.setattr(variance, "_BLOCK", 64)
    random = np.random.default_rng(0)
    vectors = random.normal(size=shape) * random.uniform(0.1, 3, shape[1]) + away
    expected = np.cumsum(PCA().fit(vectors).explained_variance_ratio_)
    np.testing.assert_allclose(explained_variance(vectors), expected, atol=1e-9)
    near = explained_variance(vectors.astype(np.float32))
    np.testing.assert_allclose(near, expected, atol=1e-4)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 9), st.integers(1, 5)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_shares_of_any_vectors_rise_to_one(vectors):
    shares = explained_variance(vectors)
    if len(vectors) < 2 or (vectors == vectors[0]).all():
        assert not len(shares)
        return
    assert len(shares) == min(vectors.shape)
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] == pytest.approx(1)


def test_the_curve_marks_the_number_of_components_needed():
    (axes,) = _figure(np.array([0.5, 0.8, 0.95, 1.0]), "four").axes
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.8, 0.95, 1.0]
    assert [each.get_text() for each in axes.texts] == ["50%: 1", "90%: 3", "99%: 4"]


@pytest.mark.parametrize("count", [0, 1, 2, 200])
def test_any_number_of_components_makes_a_picture(tmp_path, count):
    shares = np.linspace(0, 1, count + 1)[1:]
    with Image.open(variance_curve(tmp_path / "variance.png", shares)) as picture:
        assert min(picture.size) >= 300


@settings(max_examples=20)
@given(st.integers(1, 60))
def test_a_last_share_just_below_one_is_still_the_last(count):
    shares = np.cumsum(np.full(count, 1 / count)) * (1 - 1e-12)
    (axes,) = _figure(shares, "").axes
    assert int(axes.texts[-1].get_text().split(": ")[1]) <= count
