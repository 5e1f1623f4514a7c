"""The configuration of a run: typed, frozen, checked; one YAML file plus key=value overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cbir_tf.config_descriptors import Descriptor
from cbir_tf.config_search import Evaluation, Plots, Search
from cbir_tf.config_section import Fraction, Place, Section, absolute
from cbir_tf.config_server import Server
from cbir_tf.config_text import (
    apply_override,
    explain,
    flat,
    location,
    merged,
    named,
    read_yaml,
)
from cbir_tf.config_training import (
    WITHOUT_CLASSES,
    Constant,
    Loss,
    Optimizer,
    Schedule,
    SemiHardTriplets,
    Training,
)
from cbir_tf.errors import UserError
from cbir_tf.remote import local


def _listed(value: Any) -> Any:
    """One value is short for a list of it."""
    return [value] if isinstance(value, (str, Path)) else value


Share = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]


# --- data ---------------------------------------------------------------------------------------


class Split(Section):
    by: Literal["given", "stratified", "class"] = "given"
    """given: as the source says; stratified: by image, classes in proportion; class: whole
    classes, so that test classes are never trained on."""
    train: Share | None = None
    """Share (0.7) or number (184) of images (of classes with by: class); null: what is left."""
    validation: Share = 0.15
    """As train. With by: given, cut from train only where the source has no validation split."""
    test: Share | None = 0.15
    """As train; null: what is left."""


class Flip(Section):
    name: Literal["flip"] = "flip"
    vertical: bool = False
    """Flip upside down too."""


class RandomCrop(Section):
    name: Literal["random_crop"] = "random_crop"
    padding: int = Field(0, ge=0)
    """Pixels of reflected border added on each side before cropping."""
    size: int | None = Field(None, ge=8)
    """Side of the crop in pixels, which training then sees; null: the input's size."""


class RandomResizedCrop(Section):
    name: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Fraction, Fraction] = (0.6, 1.0)
    """Range of the cropped share of the area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.75, 4 / 3)
    """Range of the crop's width by height."""
    size: int | None = Field(None, ge=8)
    """Side in pixels of the square it is scaled to, which training then sees; null: the input's
    size."""

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] > bounds[1]:
            raise ValueError(f"random_resized_crop: {list(bounds)} should be [low, high]")
        return bounds


class ColorJitter(Section):
    name: Literal["color_jitter"] = "color_jitter"
    brightness: Fraction = 0.3
    """Largest relative change."""
    contrast: Fraction = 0.3
    """Largest relative change."""
    saturation: Fraction = 0.3
    """Largest relative change."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest shift, as a share of the colour circle."""
    probability: Fraction = 1.0
    """How often it is done."""


class Grayscale(Section):
    name: Literal["grayscale"] = "grayscale"
    probability: Fraction = 0.1
    """How often it is done."""


class Rotation(Section):
    name: Literal["rotation"] = "rotation"
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle either way; corners are filled by reflection."""


class RandAugment(Section):
    name: Literal["rand_augment"] = "rand_augment"
    operations: int = Field(2, ge=1)
    """Operations applied to each image."""
    magnitude: Fraction = 0.5
    """Strength of each operation."""


Augmentation = Annotated[
    Annotated[
        Flip | RandomCrop | RandomResizedCrop | ColorJitter | Grayscale | Rotation | RandAugment,
        Field(discriminator="name"),
    ],
    BeforeValidator(named),
]


class Batch(Section):
    sampler: Literal["balanced", "shuffled"] = "balanced"
    """balanced: classes x images_per_class, no image twice in a batch; shuffled: plain batches,
    the default with loss: reconstruction."""
    size: int = Field(64, ge=2)
    """Images in a shuffled batch, and in validation and extraction batches."""
    classes: int = Field(8, ge=2)
    """Classes in a balanced batch (P); with fewer classes in the data, all of them."""
    images_per_class: int = Field(8, ge=2)
    """Images of each class in a balanced batch (K); a class with fewer gives all it has, a class
    with a single image is left out."""


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Coco(Section):
    level: Literal["category", "supercategory"] = "category"
    """What the label of an image is: the category it has most annotations of, or that category's
    super-category."""
    categories: Names = ()
    """Only images whose category is one of these; none named: all."""
    supercategories: Names = ()
    """Only images whose category is of one of these super-categories; none named: all."""
    categories_per_supercategory: int | None = Field(None, ge=1)
    """Only so many categories of each super-category, those of most images; null: all."""

    @model_validator(mode="after")
    def _one_selection(self) -> Coco:
        if self.categories and (self.supercategories or self.categories_per_supercategory):
            raise ValueError(
                "data.coco.categories says which; leave out supercategories and "
                "categories_per_supercategory"
            )
        return self


class Data(Section):
    source: Literal["digits", "folder", "tfds", "coco"] = "folder"
    """digits: scikit-learn's; folder: class sub-folders or manifest.csv; tfds: TensorFlow
    Datasets; coco: images with annotations in COCO's format."""
    path: Place | None = None
    """folder: the folder, or its manifest.csv; tfds: where its data sets are kept; coco: the folder
    of the images, at any depth."""
    annotations: Annotated[tuple[Place, ...], BeforeValidator(_listed)] = ()
    """coco: the instances file, or several; none named: annotations/instances_*.json in path."""
    coco: Coco = Coco()
    """coco: which images, and what is their label."""
    licence: str | None = None
    """Of the images, and whom to credit, as a release's model card says; null: what is known of
    digits, otherwise not stated."""
    dataset: str | None = None
    """tfds: the data set's name, as tf_flowers or cifar10."""
    split: Split = Split()
    image_size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (224, 224)
    """Height and width in pixels of what the model sees; one number for a square."""
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    """stretch: change the proportions; letterbox: keep them and pad with gray; crop: scale to
    cover, then cut the centre."""
    cache: Literal["none", "memory"] = "none"
    """memory: decode each image once and keep the pixels."""
    batch: Batch = Batch()
    augmentation: tuple[Augmentation, ...] = ()
    """Steps for training images, in order: flip, random_crop, random_resized_crop, color_jitter,
    grayscale, rotation, rand_augment; each a name or {name: ..., option: ...}."""

    @model_validator(mode="before")
    @classmethod
    def _square(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("image_size"), int):
            values = values | {"image_size": [values["image_size"]] * 2}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Data:
        if self.source in ("folder", "coco") and self.path is None:
            raise ValueError(f"data.path is needed with data.source: {self.source}")
        if self.source == "tfds" and self.dataset is None:
            raise ValueError("data.dataset is needed with data.source: tfds")
        if self.source != "coco" and (self.annotations or self.coco != Coco()):
            key = "annotations" if self.annotations else "coco"
            raise ValueError(f"data.{key} goes with data.source: coco; leave it out, or set that")
        return self


# --- model and loss -----------------------------------------------------------------------------


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


class Config(Section):
    name: str = Field("", pattern=r"^[\w.-]*$")
    """Name of the run; empty: the configuration file's."""
    seed: int = Field(0, ge=0)
    """Of every random choice: split, weights, batches, augmentation, plots."""
    data: Data
    descriptors: Annotated[tuple[Descriptor, ...], BeforeValidator(_listed)] = ()
    """Classical features, joined to one vector, in place of an embedder: visual_words, hog,
    gray_histogram, color_histogram; each a name or {name: ..., option: ...}. Nothing of model,
    loss, optimizer, schedule and training applies to them."""
    model: Model = Model()
    loss: Loss = SemiHardTriplets()
    """triplet_semi_hard, triplet_hard, cross_entropy or reconstruction; a name or {name: ...}. Of
    triplets: each anchor and positive against the nearest negative farther than the positive, or
    the farthest positive against the nearest negative. cross_entropy: a classifier over the
    embedding, before model.normalize; reconstruction: a decoder from there back to the pixels."""
    optimizer: Optimizer = Optimizer()
    """Not used with schedule: bit_hyperrule, which brings its own."""
    schedule: Schedule = Constant()
    """constant, warmup_cosine, warmup_decay or bit_hyperrule; a name or {name: ..., ...}."""
    training: Training = Training()
    search: Search = Search()
    evaluation: Evaluation = Evaluation()
    plots: Plots = Plots()
    server: Server = Server()

    @model_validator(mode="after")
    def _components(self) -> Config:
        size, components = self.model.embedding_size, self.search.pca
        if self.descriptors or size is None or components is None:
            return self
        if components > size:
            raise ValueError(
                f"search.pca: {components} components of an embedding of {size} dimensions "
                "(model.embedding_size); lower it"
            )
        return self

    @model_validator(mode="after")
    def _views_fit(self) -> Config:
        height, width = self.data.image_size
        if self.search.test_time_augmentation == "crops" and self.data.resize != "crop":
            raise ValueError(
                f"search.test_time_augmentation: crops needs data.resize: crop, not "
                f"{self.data.resize}; use flip, or train with crop"
            )
        if self.search.test_time_augmentation == "rotations" and height != width:
            raise ValueError(
                f"search.test_time_augmentation: rotations needs square images, data.image_size is "
                f"{height} x {width}; use flip, or a square size"
            )
        if self.search.test_time_scales != (1.0,) and self.descriptors:
            raise ValueError("search.test_time_scales: descriptors take one size; leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_without_classes(cls, values: Any) -> Any:
        loss = named(values.get("loss")) if isinstance(values, dict) else None
        if isinstance(loss, dict) and loss.get("name") == "reconstruction":
            return merged(WITHOUT_CLASSES, values)
        return values

    @model_validator(mode="after")
    def _objective(self) -> Config:
        monitor, kind = self.training.monitor, self.loss.name
        if monitor == "val_accuracy" and kind != "cross_entropy":
            raise ValueError(
                "training.monitor: val_accuracy goes with loss: cross_entropy; choose another"
            )
        unseen = kind == "cross_entropy" and self.data.split.by == "class"
        if unseen and monitor in ("val_accuracy", "val_loss"):
            raise ValueError(
                f"training.monitor: no {monitor} with data.split.by: class, as the classifier "
                "never sees the validation classes; choose val_recall@1 or val_map_at_r"
            )
        if kind == "reconstruction" and any(
            getattr(step, "size", None) for step in self.data.augmentation
        ):
            raise ValueError(
                "data.augmentation: a decoder makes images of one size; leave out the crop's size "
                "and set data.image_size"
            )
        return self

    @model_validator(mode="after")
    def _descriptors_or_embedder(self) -> Config:
        set_in_vain = [
            name
            for name in ("model", "loss", "optimizer", "schedule", "training")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.data.augmentation:
            set_in_vain.append("data.augmentation")
        if self.descriptors and set_in_vain:
            raise ValueError(
                f"{set_in_vain[0]} does not apply to descriptors, which are not trained by "
                "gradients; leave it out, or descriptors"
            )
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """Read a YAML file and apply `section.key=value` overrides, whose values are YAML.

        Raises:
            UserError: missing or unreadable file, unknown key, wrong type or impossible value.
        """
        path = local(path)
        values = {"name": path.stem} | read_yaml(path)
        for override in overrides:
            apply_override(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # A mistake of the command line is not to be looked for in the file.
            key = location(error, cls)
            blamed = [each for each in overrides if key.startswith(each.partition("=")[0])]
            where = repr(blamed[-1]) if blamed else str(path)
            raise UserError(f"{where}: {explain(error, cls)}") from None

    @classmethod
    def check(cls, values: dict[str, Any], where: str = "config") -> Config:
        """Validate a mapping; `where` names it in the error.

        Raises:
            UserError: unknown key, wrong type or impossible value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error, cls)}") from None

    def dump(self) -> str:
        """YAML of every key with its value, which `load` reads back to an equal Config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)

    def differences(self, other: Config) -> list[str]:
        """Lines `key: value here, value there` for every key in which two configs differ."""
        here, there = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        return [
            f"{key}: {here.get(key)!r} here, {there.get(key)!r} there"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key)
        ]
