"""Released embedders: model.weights: release:NAME@VERSION."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from cbir_tf.config import model as config_model
from cbir_tf.config.parsing import read_yaml
from cbir_tf.errors import UserError
from cbir_tf.models.golden import GOLDEN, Golden
from cbir_tf.releases.fetch import fetch
from cbir_tf.releases.registry import PREFIX, Reference

EMBEDDER = "model.keras"
CONFIG = "config.yaml"
ARCHITECTURE = (
    "backbone",
    "options",
    "preprocessing",
    "pooling",
    "hidden",
    "hidden_norm",
    "embedding_size",
    "normalize",
)


def is_release(source: str | None) -> bool:
    """Whether `model.weights` names a release."""
    return source is not None and source.startswith(PREFIX)


@dataclass(frozen=True)
class Released:
    """A release on this machine.

    Attributes:
        reference: `release:NAME@VERSION`.
        file: its embedder.
        model: the `model` section of its configuration file.
        golden: its golden embedding.
    """

    reference: str
    file: Path
    model: dict[str, Any]
    golden: Golden

    @classmethod
    def open(cls, wanted: config_model.Model) -> Released:
        """The release that a configuration names, downloaded if necessary, its digests checked.

        Raises:
            UserError: the release was not found, could not be downloaded, is damaged, or has
                another backbone.
        """
        assert wanted.weights is not None
        try:
            folder = fetch(Reference.of(wanted.weights))
        except UserError as error:
            raise UserError(f"model.weights: {error}") from error
        model = read_yaml(folder / CONFIG).get("model", {})
        for key, here in (("backbone", wanted.backbone), ("options", dict(wanted.options))):
            if model.get(key) != here:
                raise UserError(
                    f"model.weights: {wanted.weights} has {key} {model.get(key)}; set model.{key} "
                    f"to that, in place of {here}"
                )
        return cls(wanted.weights, folder / EMBEDDER, model, Golden.load(folder / GOLDEN))

    def check(self, embedder: keras.Model, built: config_model.Model | None = None) -> None:
        """Compare an embedder with the golden embedding.

        Args:
            embedder: the released embedder, or one built with its weights.
            built: the configuration of the latter; with another head there is nothing to compare.

        Raises:
            UserError: its embedding of the test image is not the golden one.
        """
        if built is not None:
            here = built.model_dump(mode="json")
            if any(here[key] != self.model.get(key) for key in ARCHITECTURE):
                return
        self.golden.check_model(embedder, f"model.weights: {self.reference}")
