"""The Deep Ranking network: VGG16 beside two shallow networks on sub-sampled images.

Wang et al. 2014, "Learning Fine-grained Image Similarity with Deep Ranking",
https://arxiv.org/abs/1404.4661, section 4 and figure 3. The published re-implementations feed the
full image to all three networks, with strides of 16 and 32 in place of sub-sampling; here the model
itself sub-samples the image for the shallow networks, as the paper does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import applications, layers

from cbir_tf.errors import UserError
from cbir_tf.models.weights import load_imagenet, load_weights_file

# Of the map that a shallow network flattens: 4 x 4 of 96 channels, 1,536 numbers.
GRID = 4
CHANNELS = 96


def build_deep_ranking(name: str, *, width: int = 4096, dropout: float = 0.4) -> keras.Model:
    """Three networks side by side, their outputs scaled to length 1 and concatenated.

    The linear embedding and its normalisation at the end of the published network are the
    configuration's `embedding_size: 4096` and `normalize: true`. 33,634,304 parameters by default.

    As published: images of 225 x 225, sub-sampled 4:1 to 57 x 57 and 8:1 to 29 x 29; on each, 96
    filters of 8 x 8 with stride 4, then maximum pooling of 3 x 3 with stride 4 or of 7 x 7 with
    stride 2, to 4 x 4 in both cases; 4,096 outputs of the deep network; units kept with probability
    .6 (the re-implementations drop that share instead).

    Decided here, where the paper is silent or could not be followed:

    - VGG16 in place of AlexNet, as in the re-implementations. VGG16's dense layers need a map of
      7 x 7 and therefore one size of image; here, as there, two dense layers of `width` follow the
      mean of the map. They start random, as do the shallow networks: train at least these, with
      `trainable: fc1`.
    - Sub-sampling is the mean of 4 x 4 or 8 x 8 pixels; padding is TensorFlow's "same"; the
      activations are ReLU.
    - The shallow networks see VGG16's pixels (BGR minus the ImageNet mean) divided by 128, so that
      their biases learn as fast as their filters.
    - For images of another size, maps other than 4 x 4 are resized to 4 x 4, bilinearly.

    Args:
        name: name of the model.
        width: units of each of the two dense layers.
        dropout: share of their units dropped in training.

    Returns:
        A functional model with random weights: float images (B, H, W, 3) of at least 32 pixels,
        BGR in 0..255 minus the ImageNet mean -> (B, 1, 1, width + 3072), not negative: the deep
        network, then 4:1, then 8:1.

    Raises:
        ValueError: width below 1, or dropout not in 0..1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    images = keras.Input((None, None, 3), name="images")
    x = applications.VGG16(include_top=False, weights=None, input_tensor=images).output
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    for dense in ("fc1", "fc2"):
        x = layers.Dense(width, activation="relu", name=dense)(x)
        x = layers.Dropout(dropout, name=f"{dense}_dropout")(x)
    scaled = layers.Rescaling(1 / 128, name="scaled")(images)
    branches = [
        _unit_length(x, "deep"),
        _shallow(scaled, 4, pool=3, stride=4),
        _shallow(scaled, 8, pool=7, stride=2),
    ]
    joined = layers.Concatenate(name="joined", dtype="float32")(branches)
    return keras.Model(images, layers.Reshape((1, 1, -1), name="map")(joined), name=name)


def load_deep_ranking_weights(model: keras.Model, source: str) -> None:
    """Give a model the weights of a file: those of VGG16, or of a whole Deep Ranking network.

    Args:
        model: made by `build_deep_ranking`. What VGG16 does not have stays as it is.
        source: path of a file that `load_weights_file` reads.

    Raises:
        UserError: it is neither.
    """
    try:
        load_weights_file(model, source)
    except UserError:
        load_weights_file(_vgg16(model), source)


def load_deep_ranking_imagenet(model: keras.Model, _options: Mapping[str, Any]) -> None:
    """Give the VGG16 within a model what keras.applications publishes, downloading it once."""
    load_imagenet(_vgg16(model), {}, applications.VGG16, 224)


def _vgg16(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("block5_pool").output)


def _shallow(
    images: keras.KerasTensor, subsampling: int, pool: int, stride: int
) -> keras.KerasTensor:
    name = f"shallow{subsampling}"
    x = layers.AveragePooling2D(subsampling, padding="same", name=f"{name}_subsampling")(images)
    x = layers.Conv2D(
        CHANNELS, 8, strides=4, padding="same", activation="relu", name=f"{name}_conv"
    )(x)
    x = layers.MaxPooling2D(pool, strides=stride, padding="same", name=f"{name}_pool")(x)
    x = layers.Resizing(GRID, GRID, name=f"{name}_grid")(x)
    return _unit_length(layers.Flatten(name=f"{name}_flat")(x), name)


def _unit_length(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.UnitNormalization(name=f"{name}_normalize", dtype="float32")(x)
