"""The feature extractors by name: how each is built, fed and given weights.

A new one is a line in BACKBONES: a function from a name and options to a functional model,
float images (B, H, W, 3) -> feature map (B, h, w, C), for any H and W; what it wants of pixels;
and the options the configuration may set. NASNet is missing, as Keras builds it for one size only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
from keras import applications

from cbir_tf.errors import UserError, nearest
from cbir_tf.models.bit import build_bit_r50x1, load_bit_weights
from cbir_tf.models.deep_ranking import (
    build_deep_ranking,
    load_deep_ranking_imagenet,
    load_deep_ranking_weights,
)
from cbir_tf.models.kerashub import TRANSFORMERS, build_transformer, options_of
from cbir_tf.models.mini_densenet import build_mini_densenet
from cbir_tf.models.preprocessing import Preprocessing
from cbir_tf.models.pytorch_weights import load_pytorch_weights
from cbir_tf.models.residual import ARCHITECTURES, build_residual
from cbir_tf.models.small_cnn import build_small_cnn
from cbir_tf.models.weights import is_weights_file, load_imagenet, load_weights_file
from cbir_tf.storage.remote import local


@dataclass(frozen=True)
class Backbone:
    """A feature extractor not yet built.

    Attributes:
        build: (name, **options) -> model with random weights.
        preprocessing: what the model expects of pixels.
        options: names of the further arguments of build.
        pretrained: weights by name, each a function that gives them to a model built with the
            options: (model, options) -> None.
        load_file: gives a model the weights of a file: (model, path) -> None.
        takes_weights: whether build takes weights and image_size too, as where weights decide
            the architecture; pretrained and load_file are not used then.
    """

    build: Callable[..., keras.Model]
    preprocessing: Preprocessing
    options: tuple[str, ...] = ()
    pretrained: Mapping[str, Callable[[keras.Model, Mapping[str, Any]], None]] = field(
        default_factory=dict
    )
    load_file: Callable[[keras.Model, str], None] = load_weights_file
    takes_weights: bool = False


def backbone_named(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        UserError: there is none.
    """
    if name not in BACKBONES:
        raise UserError(f"model.backbone: no {name!r}; {nearest(name, BACKBONES)}")
    return BACKBONES[name]


def build_backbone(
    name: str,
    options: Mapping[str, Any],
    weights: str | None,
    image_size: tuple[int, int] = (224, 224),
) -> keras.Model:
    """A feature extractor called `backbone`, float images (B, H, W, 3) -> map (B, h, w, C).

    Args:
        name: a key of BACKBONES.
        options: further arguments of that backbone, as alpha for the MobileNets.
        weights: imagenet, imagenet21k (BiT), kerashub:PRESET (vision transformers), a file that
            the backbone can read, or None for random ones.
        image_size: height and width in pixels, for those that are built for one size.

    Raises:
        UserError: unknown name or option, an impossible value, or weights that do not fit.
    """
    backbone = backbone_named(name)
    for option in options:
        if option not in backbone.options:
            hint = nearest(option, backbone.options) if backbone.options else "it takes none"
            raise UserError(f"model.options: {name} has no option {option!r}; {hint}")
    given = dict(options)
    if backbone.takes_weights:
        given |= {"weights": weights, "image_size": image_size}
    try:
        model = backbone.build(name="backbone", **given)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"model.options: {name} cannot be built with {options}: {reason}"
        ) from error
    if weights is None or backbone.takes_weights:
        return model
    if weights in backbone.pretrained:
        backbone.pretrained[weights](model, options)
    elif weights in ("imagenet", "imagenet21k"):
        known = [*backbone.pretrained, "a file", "null"]
        raise UserError(f"model.weights: {name} has no {weights!r}; give {' or '.join(known)}")
    else:
        backbone.load_file(model, str(local(weights)) if weights.startswith("s3:") else weights)
    return model


def _application(
    constructor: Callable[..., keras.Model],
    preprocessing: Preprocessing,
    *options: str,
    image_size: int = 224,
    entry: Callable[[keras.Model], keras.KerasTensor] = lambda model: model.input,
) -> Backbone:
    """A model of keras.applications, from one of its tensors on.

    image_size is one that its published weights allow.
    """

    def build(name: str, **chosen: Any) -> keras.Model:
        model = constructor(include_top=False, weights=None, input_shape=(None, None, 3), **chosen)
        # Not through the constructor, some of which choose the architecture by the name.
        return keras.Model(entry(model), model.output, name=name)

    imagenet = partial(load_imagenet, constructor=constructor, image_size=image_size)
    return Backbone(build, preprocessing, options, {"imagenet": imagenet})


def _normalized_input(model: keras.Model) -> keras.KerasTensor:
    """Where the pixels of an EfficientNet are normalised.

    Keras normalises in one way where it downloads the weights and in another where it does not,
    so that the same weights from a file would see other pixels. The downloaded way is ImageNet's.
    """
    kind = keras.layers.Normalization
    return next(layer.output for layer in model.layers if isinstance(layer, kind))


def _keras_file_or(
    load_other: Callable[[keras.Model, str], None],
) -> Callable[[keras.Model, str], None]:
    """Reads Keras' own files of weights, and any other source with the function given."""

    def load(model: keras.Model, source: str) -> None:
        (load_weights_file if is_weights_file(source) else load_other)(model, source)

    return load


def _load_bit_imagenet21k(model: keras.Model, _options: Mapping[str, Any]) -> None:
    load_bit_weights(model, "imagenet21k")


_efficientnet = partial(_application, preprocessing="imagenet", entry=_normalized_input)

BACKBONES: dict[str, Backbone] = {
    "small_cnn": Backbone(build_small_cnn, "signed", ("width", "blocks")),
    "mini_densenet": Backbone(build_mini_densenet, "signed", ("growth", "layers_per_block")),
    **{
        name: Backbone(
            partial(build_residual, architecture),
            "imagenet",
            load_file=_keras_file_or(load_pytorch_weights),
        )
        for name, architecture in ARCHITECTURES.items()
    },
    "bit_m_r50x1": Backbone(
        build_bit_r50x1,
        "signed",
        pretrained={"imagenet21k": _load_bit_imagenet21k},
        load_file=_keras_file_or(load_bit_weights),
    ),
    "deep_ranking": Backbone(
        build_deep_ranking,
        "caffe",
        ("width", "dropout"),
        {"imagenet": load_deep_ranking_imagenet},
        load_deep_ranking_weights,
    ),
    **{
        kind: Backbone(
            partial(build_transformer, kind), "none", options_of(kind), takes_weights=True
        )
        for kind in TRANSFORMERS
    },
    "vgg16": _application(applications.VGG16, "caffe"),
    "vgg19": _application(applications.VGG19, "caffe"),
    "mobilenet": _application(applications.MobileNet, "signed", "alpha", "depth_multiplier"),
    "mobilenet_v2": _application(applications.MobileNetV2, "signed", "alpha"),
    "mobilenet_v3_small": _application(
        applications.MobileNetV3Small, "none", "alpha", "minimalistic"
    ),
    "mobilenet_v3_large": _application(
        applications.MobileNetV3Large, "none", "alpha", "minimalistic"
    ),
    "resnet50": _application(applications.ResNet50, "caffe"),
    "resnet101": _application(applications.ResNet101, "caffe"),
    "resnet152": _application(applications.ResNet152, "caffe"),
    "resnet50_v2": _application(applications.ResNet50V2, "signed"),
    "resnet101_v2": _application(applications.ResNet101V2, "signed"),
    "resnet152_v2": _application(applications.ResNet152V2, "signed"),
    "densenet121": _application(applications.DenseNet121, "imagenet"),
    "densenet169": _application(applications.DenseNet169, "imagenet"),
    "densenet201": _application(applications.DenseNet201, "imagenet"),
    "efficientnet_b0": _efficientnet(applications.EfficientNetB0),
    "efficientnet_b1": _efficientnet(applications.EfficientNetB1),
    "efficientnet_b2": _efficientnet(applications.EfficientNetB2),
    "efficientnet_b3": _efficientnet(applications.EfficientNetB3),
    "efficientnet_b4": _efficientnet(applications.EfficientNetB4),
    "efficientnet_b5": _efficientnet(applications.EfficientNetB5),
    "efficientnet_b6": _efficientnet(applications.EfficientNetB6),
    "efficientnet_b7": _efficientnet(applications.EfficientNetB7),
    "efficientnet_v2_b0": _application(applications.EfficientNetV2B0, "none"),
    "efficientnet_v2_b1": _application(applications.EfficientNetV2B1, "none"),
    "efficientnet_v2_b2": _application(applications.EfficientNetV2B2, "none"),
    "efficientnet_v2_b3": _application(applications.EfficientNetV2B3, "none"),
    "efficientnet_v2_s": _application(applications.EfficientNetV2S, "none"),
    "efficientnet_v2_m": _application(applications.EfficientNetV2M, "none"),
    "efficientnet_v2_l": _application(applications.EfficientNetV2L, "none"),
    "convnext_tiny": _application(applications.ConvNeXtTiny, "none"),
    "convnext_small": _application(applications.ConvNeXtSmall, "none"),
    "convnext_base": _application(applications.ConvNeXtBase, "none"),
    "convnext_large": _application(applications.ConvNeXtLarge, "none"),
    "convnext_xlarge": _application(applications.ConvNeXtXLarge, "none"),
    "xception": _application(applications.Xception, "signed", image_size=299),
    "inception_v3": _application(applications.InceptionV3, "signed", image_size=299),
    "inception_resnet_v2": _application(applications.InceptionResNetV2, "signed", image_size=299),
}
