"""The section of the configuration that says what turns images into vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cbir_tf.config.section import Section, absolute


class Model(Section):
    backbone: str = "mobilenet_v2"
    """vgg16, mobilenet_v2, resnet50, mobilenet, densenet121 and the other keras.applications by
    name; resnet18, resnet34, resnet50_v1_5, resnet101_v1_5, resnext50_32x4d and resnext101_32x8d as
    PyTorch has them; bit_m_r50x1; deep_ranking; dinov2, dinov3, vit and swin of KerasHub; small_cnn
    and mini_densenet, to train from scratch."""
    options: dict[str, Any] = Field({})
    """Further arguments of the backbone, as alpha: 0.35 for the MobileNets."""
    weights: str | None = "imagenet"
    """imagenet, imagenet21k (BiT), release:NAME@VERSION, a .keras, .weights.h5, .h5 (Keras 2),
    .safetensors (PyTorch's networks) or .npz (BiT) file, a SavedModel folder or handle (BiT), a
    KerasHub preset (kerashub:NAME, hf://OWNER/NAME, or a folder), or null for random ones. Those of
    a whole embedder give the head too, where hidden and embedding_size are the same."""
    preprocessing: Literal["own", "signed", "unit", "caffe", "imagenet", "none"] = "own"
    """What the backbone is given: own: what its published weights want; signed: -1 to 1; unit: 0 to
    1, as weights of older systems were trained with; caffe, imagenet: less ImageNet's mean; none:
    0 to 255."""
    pooling: Literal["average", "max", "gem"] = "average"
    """How the last feature map becomes one vector."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes of dense relu layers between pooling and embedding."""
    hidden_norm: Literal["none", "batch"] = "none"
    """batch: batch normalisation after each of these layers, always trained."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the embedding layer; with embedding_size: null, between the vector and what
    the loss puts on top of it."""
    embedding_size: Annotated[int, Field(ge=1)] | None = 128
    """Size of the embedding; null: the last hidden layer, or without one the pooled features."""
    normalize: bool = True
    """Scale embeddings to length 1."""
    trainable: str = "all"
    """all; head; or the name of a backbone layer from which up to train."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """frozen: the backbone's batch normalisation keeps its statistics and scales; trained: it does
    not, which is the default with weights: null."""

    @model_validator(mode="before")
    @classmethod
    def _unfrozen_from_scratch(cls, values: Any) -> Any:
        if isinstance(values, dict) and "weights" in values and values["weights"] is None:
            # Statistics that were never gathered would let features shrink to nothing.
            values = {"batch_norm": "trained"} | values
        return values

    @field_validator("weights")
    @classmethod
    def _weights(cls, weights: str | None) -> str | None:
        if weights is not None and Path(weights).expanduser().exists():
            return str(absolute(Path(weights)))
        return weights
