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
    """Length of this part of the joined vector; its square weights the part's cosine similarity."""


class VisualWords(_Weighted):
    name: Literal["visual_words"] = "visual_words"
    words: Annotated[
        tuple[Annotated[int, Field(ge=2, le=10_000)], ...],
        Field(min_length=1),
        BeforeValidator(_numbers),
    ] = (400,)
    """Size of the vocabulary, or several sizes to try: the lowest Davies-Bouldin index decides; the
    default with weighting: vlad is 64."""
    weighting: Literal["plain", "tf_idf", "vlad"] = "tf_idf"
    """plain: count of each word; tf_idf: count times inverse document frequency; vlad: sum of the
    differences to each word, 128 numbers for each word."""
    grid: int | None = Field(8, ge=1)
    """Pixels between the centres of 16 x 16 patches on a dense grid (4 suits images of 32 x 32);
    null: SIFT's keypoints, which are few or none in a small image."""

    @model_validator(mode="before")
    @classmethod
    def _fewer_for_vlad(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("weighting") == "vlad":
            values = {"words": 64} | values
        return values


class Hog(_Weighted):
    name: Literal["hog"] = "hog"
    side: int = Field(32, ge=16, multiple_of=8)
    """Side in pixels of the square that the image is scaled to: 32 gives 324 numbers, 64 gives
    1,764."""


class GrayHistogram(_Weighted):
    name: Literal["gray_histogram"] = "gray_histogram"
    bins: int = Field(256, ge=2, le=256)
    """Number of bins of brightness, all of one width."""


class ColorHistogram(_Weighted):
    name: Literal["color_histogram"] = "color_histogram"
    bins: int = Field(8, ge=2, le=32)
    """Number of bins of each channel (red, green, blue), all of one width."""
    joint: bool = True
    """true: one joint histogram of bins x bins x bins numbers; false: one histogram for each
    channel, 3 x bins numbers."""


Descriptor = Annotated[
    Annotated[
        VisualWords | Hog | GrayHistogram | ColorHistogram,
        Field(discriminator="name"),
    ],
    BeforeValidator(named),
]
