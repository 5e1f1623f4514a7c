"""The small DenseNet: published sizes, and the values of Keras' DenseNet where they overlap."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.models.backbones import build_backbone
from cbir_tf.models.mini_densenet import build_mini_densenet


@pytest.mark.parametrize(("growth", "published"), [(12, 176_122), (24, 690_346)])
def test_parameters_are_as_many_as_published(growth, published):
    """DenseNet-BC-40 with 10 classes, https://github.com/osmr/imgclsmob (CIFAR-10)."""
    model = build_mini_densenet("model", growth=growth)
    classifier = 10 * model.output.shape[-1] + 10
    count = sum(math.prod(each.shape) for each in model.trainable_variables)
    assert count + classifier == published


@pytest.mark.slow
def test_a_block_and_its_transition_are_those_of_keras_densenet():
    """DenseNet121 too starts with a block of 6 layers of growth 32 on 64 channels."""
    theirs = keras.applications.DenseNet121(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    their_block = keras.Model(
        theirs.get_layer("pool1").output, theirs.get_layer("pool2_pool").output
    )
    ours = build_mini_densenet("model", growth=32)
    our_block = keras.Model(
        ours.get_layer("stem").output, ours.get_layer("transition1_pool").output
    )
    random = np.random.default_rng(0)
    our_block.set_weights([random.uniform(0.5, 1, each.shape) for each in our_block.weights])
    their_block.set_weights(our_block.get_weights())
    maps = random.normal(size=(2, 8, 6, 64)).astype(np.float32)
    expected = their_block.predict_on_batch(maps)
    assert expected.shape == (2, 4, 3, 128)
    np.testing.assert_allclose(our_block.predict_on_batch(maps), expected, rtol=1e-4)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build_mini_densenet("model", growth=4, layers_per_block=2)


@given(height=st.integers(1, 200), width=st.integers(1, 200))
@settings(max_examples=20)
def test_any_size_of_image_gives_a_quarter_of_it_rounded_up(model, height, width):
    rows, columns = (math.ceil(math.ceil(side / 2) / 2) for side in (height, width))
    shape = (1, height, width, 3)
    assert model.compute_output_shape(shape)[1:3] == (rows, columns)


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_a_feature_map_of_such_a_size_is_computed(model, size):
    features = np.asarray(model(np.ones((1, *size, 3), np.float32)))
    assert features.shape == model.compute_output_shape((1, *size, 3))
    assert np.isfinite(features).all()


@pytest.mark.parametrize("option", ["growth", "layers_per_block"])
def test_nothing_to_add_is_refused(option):
    with pytest.raises(UserError, match="must be at least 1, got"):
        build_backbone("mini_densenet", {option: 0}, None)
