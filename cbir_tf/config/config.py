"""The configuration of a run: typed, frozen, checked; one YAML file plus key=value overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from cbir_tf.config.data import Data
from cbir_tf.config.descriptors import Descriptor
from cbir_tf.config.losses import CrossEntropy, Loss, Proxies, SemiHardTriplets
from cbir_tf.config.model import Model
from cbir_tf.config.parsing import (
    apply_override,
    explain,
    flat,
    listed,
    location,
    merged,
    named,
    read_yaml,
)
from cbir_tf.config.renamed import FORMER_DEFAULTS, rename_keys, rename_override
from cbir_tf.config.search import Evaluation, Plots, Search
from cbir_tf.config.section import Section
from cbir_tf.config.server import Server
from cbir_tf.config.training import WITHOUT_CLASSES, Constant, Optimizer, Schedule, Training
from cbir_tf.errors import UserError
from cbir_tf.storage.remote import local


class Config(Section):
    name: str = Field("", pattern=r"^[\w.-]*$")
    """Name of the run; empty: the name of the configuration file."""
    seed: int = Field(0, ge=0)
    """Random seed of everything random: split, weights, batches, augmentation, plots."""
    data: Data
    descriptors: Annotated[tuple[Descriptor, ...], BeforeValidator(listed)] = ()
    """Classical features, joined into one vector, in place of an embedder: visual_words, hog,
    gray_histogram, color_histogram; each a name or {name: ..., option: ...}. The sections model,
    loss, optimizer, schedule and training do not apply to them."""
    model: Model = Model()
    loss: Loss = SemiHardTriplets()
    """A name or {name: ...}. Of triplets: triplet_semi_hard, each anchor and positive with the
    nearest negative that is farther than the positive; triplet_hard, each anchor with its farthest
    positive and its nearest negative. Of pairs: contrastive, multi_similarity,
    supervised_contrastive, circle. Of rankings: smooth_ap. Beside learnt proxies of the classes,
    with any batches: proxy_anchor, proxy_nca, arcface. Others: cross_entropy, a classifier on the
    embedding, before model.normalize; reconstruction, a decoder from the same embedding back to the
    pixels."""
    optimizer: Optimizer = Optimizer()
    """Not used with schedule: bit_hyperrule, which has its own optimizer."""
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
                f"search.pca: {components} components are more than the {size} dimensions of the "
                "embedding (model.embedding_size); lower search.pca"
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
            raise ValueError(
                "search.test_time_scales: does not apply to descriptors; leave one of them out"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_without_classes(cls, values: Any) -> Any:
        loss = named(values.get("loss")) if isinstance(values, dict) else None
        if isinstance(loss, dict) and loss.get("name") == "reconstruction":
            return merged(WITHOUT_CLASSES, values)
        return values

    @model_validator(mode="before")
    @classmethod
    def _former_defaults_of_descriptors(cls, values: Any) -> Any:
        """A run of descriptors has the defaults of its time in sections that do not apply to it."""
        if not isinstance(values, dict) or not values.get("descriptors"):
            return values
        for key, former in FORMER_DEFAULTS.items():
            section, _, name = key.partition(".")
            inner = values.get(section)
            if isinstance(inner, dict) and inner.get(name) == former:
                others = {other: value for other, value in inner.items() if other != name}
                values = values | {section: others}
        return values

    @model_validator(mode="after")
    def _objective(self) -> Config:
        monitor, kind = self.training.monitor, self.loss.name
        if monitor == "val_accuracy" and kind != "cross_entropy":
            raise ValueError(
                "training.monitor: val_accuracy needs loss: cross_entropy; choose another"
            )
        by_training_class = isinstance(self.loss, CrossEntropy | Proxies)
        unseen = by_training_class and self.data.split.by == "class"
        if unseen and monitor in ("val_accuracy", "val_loss"):
            raise ValueError(
                f"training.monitor: {monitor} is not available with data.split.by: class, as the "
                "loss knows the training classes alone; choose val_map_at_r or val_recall@1"
            )
        if self.training.microbatch and self.model.batch_norm == "trained":
            raise ValueError(
                "training.microbatch: trained batch normalisation would see slices in place of the "
                "batch; set model.batch_norm: frozen, or leave out microbatch"
            )
        if kind == "reconstruction" and any(
            getattr(step, "size", None) for step in self.data.augmentation
        ):
            raise ValueError(
                "data.augmentation: the decoder of loss: reconstruction needs images of one size; "
                "leave out the crop's size and set data.image_size"
            )
        return self

    @model_validator(mode="after")
    def _descriptors_or_embedder(self) -> Config:
        not_applicable = [
            name
            for name in ("model", "loss", "optimizer", "schedule", "training")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.data.augmentation:
            not_applicable.append("data.augmentation")
        if self.descriptors and not_applicable:
            raise ValueError(
                f"{not_applicable[0]} does not apply to descriptors, which are not trained by "
                "gradients; leave out one of the two"
            )
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Config:
        """Read a YAML file and apply `section.key=value` overrides, whose values are YAML.

        Keys of older versions are read under their new names (`cbir_tf.config.renamed`).

        Raises:
            UserError: missing or unreadable file, unknown key, wrong type or impossible value.
        """
        path = local(path)
        values = {"name": path.stem} | rename_keys(read_yaml(path), str(path))
        overrides = [rename_override(each) for each in overrides]
        for override in overrides:
            apply_override(values, override)
            values = rename_keys(values, repr(override))  # as in server={seconds: 5}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # The message names the override, not the file, where the override is the cause.
            key = location(error, cls)
            causes = [each for each in overrides if key.startswith(each.partition("=")[0])]
            where = repr(causes[-1]) if causes else str(path)
            raise UserError(f"{where}: {explain(error, cls)}") from None

    @classmethod
    def check(cls, values: dict[str, Any], where: str = "config") -> Config:
        """Validate a mapping; `where` names it in the error.

        Raises:
            UserError: unknown key, wrong type or impossible value.
        """
        try:
            return cls.model_validate(rename_keys(values, where))
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error, cls)}") from None

    def dump(self) -> str:
        """YAML of every key with its value, which `load` reads back to an equal Config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)

    def former_defaults(self, earlier: Config) -> list[str]:
        """Overrides that give keys which are not set here the former default of an earlier config.

        Args:
            earlier: of a run that began when some defaults were other ones, and that goes on.

        Example:
            >>> data = {"data": {"source": "digits"}}
            >>> earlier = Config.check({**data, "training": {"monitor": "val_recall@1"}})
            >>> Config.check(data).former_defaults(earlier)
            ['training.monitor=val_recall@1']
        """
        overrides = []
        for key, former in FORMER_DEFAULTS.items():
            section, _, name = key.partition(".")
            is_set = name in getattr(self, section).model_fields_set
            if not is_set and getattr(getattr(earlier, section), name) == former:
                overrides.append(f"{key}={former}")
        return overrides

    def differences(self, other: Config) -> list[str]:
        """Lines `key: value here, value there` for every key in which two configs differ."""
        here, there = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        return [
            f"{key}: {here.get(key)!r} here, {there.get(key)!r} there"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key)
        ]
