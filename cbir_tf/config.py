"""The configuration of a run: typed, frozen, checked; one YAML file plus key=value overrides."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cbir_tf.errors import UserError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the configuration; attribute docstrings are the help texts."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


def _named(value: Any) -> Any:
    """`flip` is short for `{name: flip}`."""
    return {"name": value} if isinstance(value, str) else value


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
    """Side of the crop in pixels; null: the input's."""


class RandomResizedCrop(Section):
    name: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Fraction, Fraction] = (0.6, 1.0)
    """Range of the cropped share of the area."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's width by height."""


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
    BeforeValidator(_named),
]


class Batch(Section):
    sampler: Literal["balanced", "shuffled"] = "balanced"
    """balanced: classes x images_per_class, no image twice in a batch; shuffled: plain batches."""
    size: int = Field(64, ge=2)
    """Images in a shuffled batch, and in validation and extraction batches."""
    classes: int = Field(8, ge=2)
    """Classes in a balanced batch (P); with fewer classes in the data, all of them."""
    images_per_class: int = Field(8, ge=2)
    """Images of each class in a balanced batch (K); a class with fewer gives all it has, a class
    with a single image is left out."""


class Data(Section):
    source: Literal["digits", "folder", "tfds"] = "folder"
    """digits: scikit-learn's; folder: class sub-folders or manifest.csv; tfds: TensorFlow
    Datasets."""
    path: Path | None = None
    """folder: the folder, or its manifest.csv; tfds: where its data sets are kept."""
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
        if self.source == "folder" and self.path is None:
            raise ValueError("data.path is needed with data.source: folder")
        if self.source == "tfds" and self.dataset is None:
            raise ValueError("data.dataset is needed with data.source: tfds")
        return self


# --- model, loss, training ----------------------------------------------------------------------


class Model(Section):
    backbone: str = "mobilenet_v2"
    """vgg16, mobilenet_v2, resnet50, bit_m_r50x1, small_cnn, mobilenet, densenet121 and the other
    keras.applications by name."""
    options: dict[str, Any] = {}
    """Further arguments of the backbone, as alpha: 0.35 for the MobileNets."""
    weights: str | None = "imagenet"
    """imagenet, imagenet21k (BiT), a .weights.h5 or .npz (BiT) file, a SavedModel folder or
    handle (BiT), or null for random ones."""
    pooling: Literal["average", "max", "gem"] = "average"
    """How the last feature map becomes one vector."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes of dense relu layers between pooling and embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the embedding layer."""
    embedding_size: Annotated[int, Field(ge=1)] | None = 128
    """Size of the embedding; null: the pooled features themselves, with no head."""
    normalize: bool = True
    """Scale embeddings to length 1."""
    trainable: str = "all"
    """all; head; or the name of a backbone layer from which up to train."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """Whether the backbone's batch normalisation keeps its statistics and scales."""


class Loss(Section):
    name: Literal["triplet_semi_hard", "triplet_hard"] = "triplet_semi_hard"
    """Which negative each anchor and positive are held against: the nearest one farther than the
    positive, or the nearest of all, with the farthest positive."""
    margin: float = Field(0.2, ge=0)
    """How much farther the negative has to be."""
    distance: Literal["L2", "squared-L2", "angular"] = "L2"
    """Distance between embeddings, under TensorFlow Addons' names."""
    soft: bool = False
    """triplet_hard: log(1 + exp(x)) in place of the margin."""


class Optimizer(Section):
    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """The Keras optimizer."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate; the schedules warmup_decay and bit_hyperrule set their own."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """sgd and rmsprop."""
    weight_decay: float | None = Field(None, ge=0)
    """Decoupled weight decay."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest global norm of the gradient."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum of an exponential moving average of the weights, used for validation and saved."""


class Constant(Section):
    name: Literal["constant"] = "constant"


class WarmupDecaySchedule(Section):
    name: Literal["warmup_decay"] = "warmup_decay"
    start: float = Field(1e-5, ge=0)
    """Learning rate at the beginning."""
    max: float = Field(5e-5, gt=0)
    """Learning rate at the top."""
    min: float = Field(1e-5, ge=0)
    """Learning rate that the decay approaches."""
    ramp_up: int = Field(5, ge=0)
    """Epochs (or steps) from start to max."""
    sustain: int = Field(0, ge=0)
    """Epochs (or steps) at max."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Factor by which the part above min shrinks each epoch (or step)."""
    per: Literal["epoch", "step"] = "epoch"
    """What ramp_up, sustain and decay count."""


class WarmupCosineSchedule(Section):
    name: Literal["warmup_cosine"] = "warmup_cosine"
    warm_up: float = Field(1.0, ge=0)
    """Epochs of linear rise to optimizer.learning_rate."""
    final: Fraction = 0.01
    """Share of the peak reached at the end."""


class BiTHyperRuleSchedule(Section):
    name: Literal["bit_hyperrule"] = "bit_hyperrule"
    length: int | None = Field(None, ge=10)
    """Steps; null: 500, 10,000 or 20,000 by the size of the data set."""


Schedule = Annotated[
    Annotated[
        Constant | WarmupDecaySchedule | WarmupCosineSchedule | BiTHyperRuleSchedule,
        Field(discriminator="name"),
    ],
    BeforeValidator(_named),
]


class EarlyStopping(Section):
    patience: int | None = Field(None, ge=1)
    """Epochs without improvement after which to stop; null: never."""
    min_delta: float = Field(0.0, ge=0)
    """Smallest change that counts as improvement."""


class Training(Section):
    epochs: int = Field(12, ge=1)
    """Passes over the training images, at most."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Null: as many batches as the training images fill."""
    monitor: Literal["val_loss", "val_recall@1", "val_map_at_r"] = "val_recall@1"
    """What chooses the best epoch, and what early stopping looks at."""
    early_stopping: EarlyStopping = EarlyStopping()
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Compute precision; weights, embeddings and loss stay float32."""
    tensorboard: bool = False
    """Write TensorBoard logs into the run's folder."""


# --- after training -----------------------------------------------------------------------------


class Search(Section):
    index: Literal["nearest_neighbors"] = "nearest_neighbors"
    """nearest_neighbors: scikit-learn's, exact."""
    metric: Literal["euclidean", "cosine", "manhattan"] = "cosine"
    """Distance between a query and the gallery."""
    k: int = Field(5, ge=1)
    """Neighbours returned."""


class Evaluation(Section):
    split: Literal["train", "validation", "test"] = "test"
    """Images used as queries."""
    gallery: Literal["train", "validation", "test"] | None = None
    """Images searched; null: the queries' own split, each query left out of it."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10)
    """Ranks at which recall, precision and mAP are reported."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of the queries behind each 95 % interval; 0: no intervals."""


class Plots(Section):
    projection: Literal["umap", "tsne", "pca"] = "umap"
    """How the embedding map is drawn."""
    queries: int = Field(6, ge=1)
    """Rows of the query grid."""


class Config(Section):
    name: str = Field("", pattern=r"^[\w.-]*$")
    """Name of the run; empty: the configuration file's."""
    seed: int = Field(0, ge=0)
    """Of every random choice: split, weights, batches, augmentation, plots."""
    data: Data
    model: Model = Model()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Constant()
    """constant, warmup_cosine, warmup_decay or bit_hyperrule; a name or {name: ..., ...}."""
    training: Training = Training()
    search: Search = Search()
    evaluation: Evaluation = Evaluation()
    plots: Plots = Plots()

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """Read a YAML file and apply `section.key=value` overrides, whose values are YAML.

        Raises:
            UserError: missing or unreadable file, unknown key, wrong type or impossible value.
        """
        path = Path(path)
        values = {"name": path.stem} | _read_yaml(path)
        for override in overrides:
            _apply(values, override)
        return cls.check(values, where=str(path))

    @classmethod
    def check(cls, values: dict[str, Any], where: str = "config") -> Config:
        """Validate a mapping; `where` names it in the error.

        Raises:
            UserError: unknown key, wrong type or impossible value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error)}") from None

    def dump(self) -> str:
        """YAML of every key with its value, which `load` reads back to an equal Config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)

    def differences(self, other: Config) -> list[str]:
        """Lines `key: value here, value there` for every key in which two configs differ."""
        here, there = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: {here.get(key)!r} here, {there.get(key)!r} there"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key)
        ]


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key given twice is a mistake, which plain YAML loading hides."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = [str(each) for each in sorted(path.parent.glob("*.y*ml"))]
        hint = nearest(str(path), others) if others else "give the path of a YAML file"
        raise UserError(f"{path}: no such configuration file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a configuration file: {error}") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{path}:{line} {problem}; mend the YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected 'key: value' lines, got a {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r}: overrides are written section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{override!r}: {text!r} is not a YAML value; quote it") from None
    *parents, last = key.split(".")
    here = values
    for parent in parents:
        inner = here.get(parent)
        if isinstance(inner, str):
            inner = _named(inner)
        here[parent] = inner = dict(inner) if isinstance(inner, dict) else {}
        here = inner
    here[last] = value


def _explain(error: ValidationError) -> str:
    """The first mistake as one line: the key, what is wrong, what is possible."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    section, place = _descend(Config, parts)
    if first["type"] == "extra_forbidden":
        return f"unknown key {'.'.join(place)!r}: {nearest(place[-1], section.model_fields)}"
    key = ".".join(place)
    if first["type"].startswith("union_tag"):
        context = first.get("ctx", {})
        tags = [tag.strip().strip("'") for tag in context.get("expected_tags", "").split(",")]
        given = context.get("tag", first["input"])
        return f"{key}: no {given!r}; {nearest(str(given), [tag for tag in tags if tag])}"
    if first["type"] == "literal_error":
        options = [
            each.strip(" '") for each in first["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        return f"{key}: no {first['input']!r}; {nearest(str(first['input']), options)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def _descend(section: type[BaseModel], parts: list[str]) -> tuple[type[BaseModel], list[str]]:
    """Follow an error's location through nested sections, leaving out pydantic's union tags."""
    place = []
    current: Any = section
    for part in parts:
        if isinstance(current, type) and part in current.model_fields:
            place.append(part)
            inner = _sections(current.model_fields[part].annotation)
            section, current = current, inner[0] if len(inner) == 1 else inner
        elif isinstance(current, list):
            named = [each for each in current if each.model_fields["name"].default == part]
            if named:
                current = named[0]
            elif part.isdigit():
                place.append(part)
        elif isinstance(current, type) and part not in ("int", "float"):
            section = current
            place.append(part)
    return section, place


def _sections(annotation: Any) -> list[type[Section]]:
    """The Section classes within a type, in order."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for inner in typing.get_args(annotation) for each in _sections(inner)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """One help line for every key: name, default, type or choices, meaning."""
    for name, field in section.model_fields.items():
        inner = _sections(field.annotation)
        meaning = " ".join((field.description or "").split())
        if len(inner) == 1 and field.annotation is inner[0]:
            yield from describe_keys(inner[0], f"{prefix}{name}.")
            continue
        default = field.get_default()
        shown = default.name if isinstance(default, Section) else default
        shown = list(shown) if isinstance(shown, tuple) else shown
        text = "null" if shown is None else str(shown).lower() if isinstance(shown, bool) else shown
        choices = _choices(field.annotation)
        parts = [f"{prefix}{name} = {text!s}", choices, meaning]
        yield "  ".join(part for part in parts if part)
        for option in inner:
            tag = option.model_fields["name"].default
            for line in describe_keys(option, f"{prefix}{name}[{tag}]."):
                if ".name = " not in line.split("  ")[0]:
                    yield line


def _choices(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "(" + " | ".join(str(each) for each in typing.get_args(annotation)) + ")"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(filter(None, map(_choices, typing.get_args(annotation))), "")
    return ""
