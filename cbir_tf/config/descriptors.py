"""The configuration of classical image features, in place of an embedder's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cbir_tf.config.parsing import named
from cbir_tf.config.section import Section


def _numbers(value: Any) -> Any:
    """One number is short for a list of it."""
    return [value] if isinstance(value, int) else value


class _Weighted(Section):
    weight: float = Field(1.0, gt=0)
    """Length of this part of the joined vector; squared, its part in the cosine similarity."""


class VisualWords(_Weighted):
    name: Literal["visual_words"] = "visual_words"
    words: Annotated[
        tuple[Annotated[int, Field(ge=2, le=10_000)], ...],
        Field(min_length=1),
        BeforeValidator(_numbers),
    ] = (400,)
    """Size of the vocabulary, or several sizes, of which the one with the lowest Davies-Bouldin
    index is taken; with weighting: vlad the default is 64."""
    weighting: Literal["plain", "tf_idf", "vlad"] = "tf_idf"
    """What is kept of the words: how often each is there; that, times how rare it is; or the summed
    differences to each word, 128 numbers a word."""
    grid: int | None = Field(8, ge=1)
    """Pixels between patches of 16 x 16 that cover the whole image (4 for images of 32 x 32); null:
    SIFT's own keypoints, of which a small image has few or none."""

    @model_validator(mode="before")
    @classmethod
    def _fewer_for_vlad(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("weighting") == "vlad":
            values = {"words": 64} | values
        return values


class Hog(_Weighted):
    name: Literal["hog"] = "hog"
    side: int = Field(32, ge=16, multiple_of=8)
    """Pixels of the square to which the image is scaled first: 32 gives 324 numbers, 64 gives
    1,764."""


class GrayHistogram(_Weighted):
    name: Literal["gray_histogram"] = "gray_histogram"
    bins: int = Field(256, ge=2, le=256)
    """Equal ranges of brightness."""


class ColorHistogram(_Weighted):
    name: Literal["color_histogram"] = "color_histogram"
    bins: int = Field(8, ge=2, le=32)
    """Equal ranges of each of red, green and blue."""
    joint: bool = True
    """Count combinations of the three, bins x bins x bins numbers; or each alone, 3 x bins."""


Descriptor = Annotated[
    Annotated[
        VisualWords | Hog | GrayHistogram | ColorHistogram,
        Field(discriminator="name"),
    ],
    BeforeValidator(named),
]
