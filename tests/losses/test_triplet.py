"""The pure triplet losses: against nested loops, recorded values, and at their edges."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbir_tf.errors import UserError
from cbir_tf.losses import triplet_hard_loss, triplet_semihard_loss

HERE = Path(__file__).parent
NAIVE = runpy.run_path(str(HERE.parents[1] / "conformance" / "losses" / "naive.py"))
RECORDED = json.loads((HERE / "tensorflow_addons_0.23.0.json").read_text())
CALLABLES = {
    "manhattan": lambda rows: tf.reduce_sum(tf.abs(rows[:, None] - rows), axis=-1),
    "asymmetric": lambda rows: tf.matmul(rows, rows + 1.0, transpose_b=True),
}


def semihard(labels, embeddings, margin=1.0, metric="L2"):
    return triplet_semihard_loss(labels, embeddings, margin, metric)


def hard(labels, embeddings, margin=1.0, metric="L2"):
    return triplet_hard_loss(labels, embeddings, margin, False, metric)


def soft(labels, embeddings, margin=1.0, metric="L2"):
    return triplet_hard_loss(labels, embeddings, margin, True, metric)


LOSSES = {"semihard": semihard, "hard": hard, "soft": soft}


def loss_and_gradient(loss, labels, embeddings, margin=1.0, metric="L2"):
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings, margin, metric)
    return value.numpy(), tape.gradient(value, embeddings).numpy()


def naive_loss(name, labels, distances, margin):
    if name == "semihard":
        return NAIVE["semihard"](labels, distances, margin)
    return NAIVE["hard"](labels, distances, margin, name == "soft")


@st.composite
def batches(draw):
    """Embeddings on a grid of halves, where sums of squares are exact and ties and duplicates
    are common, with labels of few classes."""
    count = draw(st.integers(1, 9))
    halves = arrays.arrays(np.int64, (count, draw(st.integers(1, 3))), elements=st.integers(-4, 4))
    labels = arrays.arrays(np.int64, count, elements=st.integers(0, 3))
    return draw(halves) / 2, draw(labels), draw(st.sampled_from([0.0, 0.25, 1.0, 3.0]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_value_and_gradient_are_those_of_nested_loops(name, dtype, batch):
    embeddings, labels, margin = batch
    differences = embeddings[:, None] - embeddings
    distances = np.square(differences).sum(-1)
    expected, weights = naive_loss(name, labels, distances, margin)
    # d|a - b|^2 / da = 2 (a - b), and every distance belongs to two embeddings.
    expected_gradient = 2 * ((weights + weights.T)[:, :, None] * differences).sum(1)

    value, gradient = loss_and_gradient(
        LOSSES[name], labels, embeddings.astype(dtype), margin, "squared-L2"
    )
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=20, deadline=None)
@given(batch=batches())
def test_value_with_euclidean_distance_is_that_of_nested_loops(name, batch):
    embeddings, labels, margin = batch
    distances = np.sqrt(np.square(embeddings[:, None] - embeddings).sum(-1))
    expected, _ = naive_loss(name, labels, distances, margin)
    value = LOSSES[name](labels, embeddings.astype(np.float32), margin, "L2")
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['loss']}-{case['metric']}")
def test_recorded_values_and_gradients_of_tensorflow_addons(case):
    metric = CALLABLES.get(case["metric"], case["metric"])
    embeddings = np.array(case["embeddings"], np.float32)
    value, gradient = loss_and_gradient(
        LOSSES[case["loss"]], np.array(case["labels"]), embeddings, case["margin"], metric
    )
    scale = max(1.0, np.abs(case["gradient"]).max())
    np.testing.assert_allclose(value, case["value"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=0, atol=1e-5 * scale)


def test_semihard_example_by_hand():
    # On a line: anchor 0, its positive at 2; negatives at 1, 3 and 7. Farther than 2, the nearest
    # is 3: 1 + 2 - 3 = 0. From the anchor at 2 the negatives lie at 1, 1 and 5, farther than the
    # positive's 2 only 5: 1 + 2 - 5 < 0. No other class has a pair, so the mean is over two.
    positions = np.array([[0.0], [2.0], [1.0], [3.0], [7.0]], np.float32)
    labels = np.array([0, 0, 1, 2, 3])
    assert triplet_semihard_loss(labels, positions, margin=1.0).numpy() == 0
    assert triplet_semihard_loss(labels, positions, margin=2.0).numpy() == pytest.approx(0.5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("metric", ["L2", "squared-L2", "angular"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_gradient_is_finite_at_zero_distance(loss, metric, labels, value):
    embeddings = np.full((4, 3), value, np.float32)
    result, gradient = loss_and_gradient(loss, labels, embeddings, 1.0, metric)
    assert np.isfinite(result)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("labels", [[5], [5, 5], [1, 2], [3, 3, 3], [1, 2, 3, 4], []])
def test_without_a_positive_or_a_negative_loss_and_gradient_are_zero(loss, labels):
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 2)).astype(np.float32)
    value, gradient = loss_and_gradient(loss, np.array(labels, np.int64), embeddings)
    assert value == 0
    assert (gradient == 0).all()


def test_hard_counts_an_anchor_without_positive_as_zero():
    # Distances on a line: 0 and 1 are a class, 3 is alone. Anchor 0: 1 + 1 - 3 < 0; anchor 1:
    # 1 + 1 - 2 = 0; with margin 2 they are 0 and 1, and the mean is over all three anchors.
    positions = np.array([[0.0], [1.0], [3.0]], np.float32)
    assert triplet_hard_loss([0, 0, 1], positions, margin=2.0).numpy() == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_order_of_the_batch_does_not_matter(loss):
    random = np.random.default_rng(1)
    embeddings = random.integers(-3, 4, (24, 3)).astype(np.float32)
    labels, order = random.integers(0, 5, 24), random.permutation(24)
    value, gradient = loss_and_gradient(loss, labels, embeddings)
    permuted, permuted_gradient = loss_and_gradient(loss, labels[order], embeddings[order])
    np.testing.assert_allclose(permuted, value, rtol=1e-6)
    np.testing.assert_allclose(permuted_gradient, gradient[order], atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_large_integer_labels_stay_apart(loss):
    embeddings = np.random.default_rng(2).normal(size=(12, 4)).astype(np.float32)
    small = np.arange(12) // 2
    for offset in (2**24, 2**53, -(2**62)):
        assert loss(small + offset, embeddings).numpy() == loss(small, embeddings).numpy()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_embeddings_are_computed_in_float32(loss, dtype):
    embeddings = tf.cast(np.random.default_rng(3).normal(size=(16, 8)), dtype)
    labels = np.arange(16) // 4
    value = loss(labels, embeddings)
    assert value.dtype == tf.float32
    assert value.numpy() == loss(labels, tf.cast(embeddings, tf.float32)).numpy()


def test_soft_margin_does_not_overflow():
    far_positive = np.array([[0.0], [500.0], [1.0]], np.float32)
    value, gradient = loss_and_gradient(LOSSES["soft"], [0, 0, 1], far_positive)
    # log(1 + exp(x)) = x for large x: (500 - 1) + (500 - 499), and log(1 + e) for the small one.
    assert value == pytest.approx((499 + np.log1p(np.e)) / 3)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_embeddings_that_are_not_numbers_show_in_the_loss(loss):
    embeddings = np.full((6, 2), np.nan, np.float32)
    assert np.isnan(loss(np.arange(6) // 2, embeddings).numpy())


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_column_of_labels_is_taken_like_a_row(loss):
    embeddings = np.random.default_rng(4).normal(size=(8, 2)).astype(np.float32)
    labels = np.arange(8) // 2
    assert loss(labels[:, None], embeddings).numpy() == loss(labels, embeddings).numpy()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_compiled_for_any_batch_size_it_is_the_same(loss, jit_compile):
    compiled = tf.function(loss, jit_compile=jit_compile, reduce_retracing=True)
    random = np.random.default_rng(5)
    for count in (7, 8, 9):
        labels = tf.constant(np.arange(count) // 3)
        embeddings = tf.constant(random.normal(size=(count, 4)).astype(np.float32))
        expected = loss(labels, embeddings).numpy()
        np.testing.assert_allclose(compiled(labels, embeddings).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "embeddings", "metric", "message"),
    [
        ([0, 0], [[1.0], [2.0]], "l2", "did you mean 'L2'"),
        ([0, 0, 1], [[1.0], [2.0]], "L2", "3 labels for 2 embeddings"),
        ([[0, 1], [1, 0]], [[1.0], [2.0]], "L2", "not one-hot"),
        (0, [[1.0]], "L2", "must be (N,)"),
        ([0, 0], [1.0, 2.0], "L2", "must be (N, D)"),
    ],
)
def test_what_does_not_fit_is_named(labels, embeddings, metric, message):
    for loss in (triplet_semihard_loss, triplet_hard_loss):
        with pytest.raises(UserError) as error:
            loss(labels, embeddings, distance_metric=metric)
        assert message in str(error.value)


def test_nothing_is_larger_than_a_few_distance_matrices():
    count = 257
    concrete = tf.function(semihard_gradient).get_concrete_function(
        tf.TensorSpec((count,), tf.int64), tf.TensorSpec((count, 8), tf.float32)
    )
    definition = concrete.graph.as_graph_def(add_shapes=True)
    nodes = list(definition.node)
    for each in definition.library.function:
        nodes.extend(each.node_def)
    shapes = [
        [dimension.size for dimension in shape.dim]
        for node in nodes
        for shape in node.attr["_output_shapes"].list.shape
        if not shape.unknown_rank
    ]
    sizes = [int(np.prod(shape)) for shape in shapes if -1 not in shape]
    assert count**2 in sizes
    assert max(sizes) <= 2 * count**2
    assert all(len(shape) <= 2 for shape in shapes)


def semihard_gradient(labels, embeddings):
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = triplet_semihard_loss(labels, embeddings)
    return tape.gradient(value, embeddings)
