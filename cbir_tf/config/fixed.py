"""Which keys of a trained run are fixed: what its model, and so its stored vectors, were made with.

Edited afterwards they would be obeyed by half, as an image size that queries are read at and the
stored images were not, or tell what was not done. `search.test_time_augmentation`,
`search.test_time_scales` and `search.dtype` are fixed too, by the feature store and not by the
model: they may change before a new extraction (`cbir_tf.retrieval.opening.open_store`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbir_tf.config.config import Config
from cbir_tf.config.parsing import flat

CHANGEABLE = (
    "name",
    "data.path",
    "data.annotations",
    "data.licence",
    "data.cache",
    "data.batch.size",
    "model.weights",  # of the beginning, whose file may have moved since
    "training.tensorboard",
    "search",
    "evaluation",
    "plots",
    "server",
)
"""Sections and keys that may be edited after the training; every other key is fixed."""


def fixed_values(config: Config) -> dict[str, Any]:
    """The value of every fixed key, by dotted key, ready for JSON.

    Example:
        >>> values = fixed_values(Config.check({"data": {"source": "digits", "image_size": 16}}))
        >>> values["data.image_size"], "search.k" in values
        ([16, 16], False)
    """
    values = flat(config.model_dump(mode="json"))
    return {key: value for key, value in values.items() if not _is_changeable(key)}


def edited_key(config: Config, made_with: Mapping[str, Any]) -> str | None:
    """The first fixed key whose value is another one now, with both; None where there is none.

    Args:
        config: of a trained run, as it is now.
        made_with: what `fixed_values` gave at the end of its training. A key that only one of the
            two has is of another version of this program.

    Example:
        >>> config = Config.check({"data": {"source": "digits", "image_size": 16}})
        >>> edited_key(config, {"data.image_size": [32, 32], "data.resize": "stretch"})
        'data.image_size is [16, 16], but the run was trained with [32, 32]'
    """
    for key, value in fixed_values(config).items():
        if key in made_with and made_with[key] != value:
            return f"{key} is {value}, but the run was trained with {made_with[key]}"
    return None


def _is_changeable(key: str) -> bool:
    return any(f"{key}.".startswith(f"{each}.") for each in CHANGEABLE)
