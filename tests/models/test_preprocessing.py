"""Pixels reach every backbone as keras.applications prepares them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import applications

from cbir_tf.models.backbones import BACKBONES
from cbir_tf.models.kerashub import TRANSFORMERS
from cbir_tf.models.preprocessing import preprocess
from cbir_tf.models.residual import ARCHITECTURES

MODULES = {
    "vgg16": applications.vgg16,
    "vgg19": applications.vgg19,
    "mobilenet": applications.mobilenet,
    "mobilenet_v2": applications.mobilenet_v2,
    "mobilenet_v3": applications.mobilenet_v3,
    "resnet": applications.resnet,
    "resnet_v2": applications.resnet_v2,
    "densenet": applications.densenet,
    "efficientnet_v2": applications.efficientnet_v2,
    "convnext": applications.convnext,
    "xception": applications.xception,
    "inception_v3": applications.inception_v3,
    "inception_resnet_v2": applications.inception_resnet_v2,
}
# Backbones that are not in a module of their own name: as their modules are called. PyTorch's
# networks are fed as Keras feeds DenseNet, whose weights come from PyTorch too.
MODULE_OF = {
    **dict.fromkeys(ARCHITECTURES, "densenet"),
    "deep_ranking": "vgg16",
    **{f"resnet{depth}_v2": "resnet_v2" for depth in (50, 101, 152)},
    **{f"resnet{depth}": "resnet" for depth in (50, 101, 152)},
    **{f"densenet{depth}": "densenet" for depth in (121, 169, 201)},
}
# (x - 127) / 128, which test_efficientnet_lite.py holds to PyTorch's features.
LITE = ["efficientnet_lite0", "efficientnet_lite2"]
FROM_MINUS_ONE = ["small_cnn", "mini_densenet", "bit_m_r50x1"]
# Those of KerasHub take pixels as they are, and prepare them as their presets say.
APART = {*FROM_MINUS_ONE, *LITE, *TRANSFORMERS, *(f"efficientnet_b{size}" for size in range(8))}


def prepared(kind: str, images: np.ndarray) -> np.ndarray:
    inputs = keras.Input((None, None, 3), dtype="uint8")
    return np.asarray(keras.Model(inputs, preprocess(inputs, kind))(images))


def module_of(name: str):
    known = MODULE_OF.get(name, name)
    return MODULES[known if known in MODULES else known.rsplit("_", 1)[0]]


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in APART])
def test_each_backbone_gets_the_preprocessing_of_its_module(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    expected = module_of(name).preprocess_input(images.astype(np.float32))
    pixels = prepared(BACKBONES[name].preprocessing, images)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FROM_MINUS_ONE)
def test_our_own_backbones_are_fed_from_minus_one_to_one(name):
    images = np.array([[[[0, 127, 255]]]], dtype=np.uint8)
    pixels = prepared(BACKBONES[name].preprocessing, images)
    np.testing.assert_allclose(pixels.ravel(), [-1, 127 / 127.5 - 1, 1], atol=1e-6)
