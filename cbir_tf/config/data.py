"""The section `data` of the configuration: source of the images, split, batches, augmentation."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cbir_tf.config.parsing import listed, named
from cbir_tf.config.section import Fraction, Place, Section


def _share_or_number(value: Any) -> Any:
    """A share below 1, or a number of images; 1.0 could be either, and is refused."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if 0 <= number < 1:
        return value if isinstance(value, int) else number
    if number % 1 == 0 and number >= 1 and not (number == 1 and isinstance(value, float)):
        return int(number)
    raise PydanticCustomError(
        "share", "should be a share below 1, as 0.15, or a whole number of images, as 184"
    )


Share = Annotated[int | float, BeforeValidator(_share_or_number)]


class Split(Section):
    by: Literal["given", "stratified", "class"] = "given"
    """given: the source's own split; stratified: random by image, each class in proportion; class:
    whole classes, so that no test class is trained on."""
    train: Share | None = None
    """Share (0.7) or number (184) of images (with by: class, of classes); null: the remainder."""
    validation: Share = 0.15
    """As train. With by: given, taken from train, if the source has no validation split."""
    test: Share | None = 0.15
    """As train; null: the remainder."""
    group: str | None = None
    """Keep images that belong together in one split: a column of metadata, as of persons or
    places, whose images of one value do; or duplicates: images that are the same picture. The
    sizes are then approximate. With by: given or class, images whose group is also in a later
    split are left out."""


class Flip(Section):
    name: Literal["flip"] = "flip"
    vertical: bool = False
    """Also flip top to bottom."""


class RandomCrop(Section):
    name: Literal["random_crop"] = "random_crop"
    padding: int = Field(0, ge=0)
    """Pixels of reflected border added on each side before cropping."""
    size: int | None = Field(None, ge=8)
    """Side of the crop in pixels, the image size in training; null: the input's size."""


class RandomResizedCrop(Section):
    name: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Fraction, Fraction] = (0.6, 1.0)
    """Range of the cropped share of the area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, width / height."""
    size: int | None = Field(None, ge=8)
    """Side in pixels of the square that the crop is scaled to, the image size in training; null:
    the input's size."""

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
    """Share of the images that are changed."""


class Grayscale(Section):
    name: Literal["grayscale"] = "grayscale"
    probability: Fraction = 0.1
    """Share of the images that are changed."""


class Rotation(Section):
    name: Literal["rotation"] = "rotation"
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle in either direction; corners are filled by reflection."""


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
    """balanced: classes x images_per_class, each image at most once in a batch; shuffled: batches
    in random order, the default with loss: reconstruction."""
    size: int = Field(64, ge=2)
    """Images in a shuffled batch, and in the batches of validation and extraction."""
    classes: int = Field(8, ge=2)
    """Classes in a balanced batch (P); all classes, if the data have fewer."""
    images_per_class: int = Field(8, ge=2)
    """Images of each class in a balanced batch (K); all images of a class with fewer; a class with
    a single image is left out."""


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]


class Coco(Section):
    level: Literal["category", "supercategory"] = "category"
    """Label of an image. category: the category with most annotations in the image;
    supercategory: the super-category of that category."""
    categories: Names = ()
    """Categories to keep; empty: all."""
    supercategories: Names = ()
    """Super-categories whose categories to keep; empty: all."""
    categories_per_supercategory: int | None = Field(None, ge=1)
    """Number of categories to keep of each super-category, those with most images; null: all."""

    @model_validator(mode="after")
    def _one_selection(self) -> Coco:
        if self.categories and (self.supercategories or self.categories_per_supercategory):
            raise ValueError(
                "data.coco.categories already selects the categories; leave out supercategories "
                "and categories_per_supercategory"
            )
        return self


class Data(Section):
    source: Literal["digits", "folder", "tfds", "coco", "none"] = "folder"
    """digits: the digits of scikit-learn; folder: a folder with one sub-folder for each class, or
    a manifest, a table with a line for each image; tfds: TensorFlow Datasets; coco: images with
    annotations in COCO's format; none: no images of its own, a pretrained embedder that searches
    other folders."""
    path: Place | None = None
    """folder: the folder, or a manifest (.csv, .tsv, .txt); tfds: folder where data sets are
    stored; coco: folder of the images, searched with its sub-folders."""
    annotations: Annotated[tuple[Place, ...], BeforeValidator(listed)] = ()
    """coco: one or several instances files; empty: annotations/instances_*.json in path."""
    coco: Coco = Coco()
    """coco: selection and labels of the images."""
    licence: str | None = None
    """Licence of the images and attribution, for the model card of a release; null: that of digits,
    otherwise not stated."""
    dataset: str | None = None
    """tfds: name of the data set, for example tf_flowers or cifar10."""
    label_depth: int | None = Field(None, ge=1)
    """folder: levels of class folders that make a label: with 2 that of animal/cat/1.jpg is
    animal/cat. null: 1, with a line on what lies below."""
    max_missing: Fraction = 0.5
    """Manifest: largest share of the listed files that may be missing; they are listed and left
    out."""
    split: Split = Split()
    image_size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (224, 224)
    """Height and width in pixels of the model's input; one number for a square."""
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    """stretch: ignore the aspect ratio; letterbox: keep it and pad with gray; crop: scale until the
    input size is covered, then crop the centre."""
    cache: Literal["none", "memory"] = "none"
    """memory: decode each image once and keep its pixels in memory."""
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
        if self.source != "folder" and self.label_depth is not None:
            raise ValueError("data.label_depth needs data.source: folder; leave it out")
        if self.source != "coco" and (self.annotations or self.coco != Coco()):
            key = "annotations" if self.annotations else "coco"
            raise ValueError(f"data.{key} needs data.source: coco; set that, or leave out {key}")
        return self
