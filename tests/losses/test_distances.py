"""Distances between all embeddings of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import pairwise_distances

from cbir_tf.errors import UserError
from cbir_tf.losses.distances import DISTANCES, distance_function

SCIKIT_LEARN_NAMES = {"L2": "euclidean", "squared-L2": "sqeuclidean", "angular": "cosine"}


@pytest.mark.parametrize("metric", DISTANCES)
@settings(max_examples=40, deadline=None)
@given(
    embeddings=arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 8), st.integers(1, 5)),
        elements=st.integers(-64, 64).map(lambda number: number / 16),
    )
)
def test_distances_are_those_of_scikit_learn(metric, embeddings):
    expected = pairwise_distances(embeddings, metric=SCIKIT_LEARN_NAMES[metric])
    actual = distance_function(metric)(embeddings.astype(np.float32)).numpy()
    zero = ~embeddings.any(axis=1)
    if metric == "angular":
        expected[zero[:, None] & zero] = 1  # scikit-learn sets the diagonal to 0
    assert actual.dtype == np.float32
    assert (actual >= 0).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", DISTANCES)
def test_float64_embeddings_keep_their_digits(metric):
    embeddings = np.random.default_rng(0).normal(size=(5, 3))
    expected = pairwise_distances(embeddings, metric=SCIKIT_LEARN_NAMES[metric])
    np.testing.assert_allclose(distance_function(metric)(embeddings), expected, atol=1e-12)


@pytest.mark.parametrize("metric", DISTANCES)
def test_gradient_is_finite_where_embeddings_coincide_or_vanish(metric):
    embeddings = tf.constant([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        total = tf.reduce_sum(distance_function(metric)(embeddings))
    assert np.isfinite(tape.gradient(total, embeddings).numpy()).all()


@pytest.mark.parametrize("metric", ["L2", "squared-L2"])
def test_nearby_embeddings_never_have_a_negative_distance(metric):
    embeddings = 1000 + 1e-4 * np.random.default_rng(0).normal(size=(20, 16))
    distances = distance_function(metric)(embeddings.astype(np.float32)).numpy()
    assert (distances >= 0).all()
    assert (np.diag(distances) == 0).all()


def test_a_function_stands_for_itself():
    assert distance_function(np.dot) is np.dot


def test_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'squared-L2'"):
        distance_function("squared-l2")
