"""Classical features joined into one vector: an encoder without a network, and its file."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cbir_tf.config.descriptors import ColorHistogram, Descriptor, GrayHistogram, Hog, VisualWords
from cbir_tf.errors import UserError, first_line
from cbir_tf.features.pixel_descriptors import (
    color_histogram,
    gray,
    gray_histogram,
    hog,
    hog_size,
)
from cbir_tf.features.visual_words import (
    SIFT_SIZE,
    Vocabulary,
    import_opencv,
    local_descriptors,
)
from cbir_tf.storage.files import replacing

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Early fusion: the vector of each descriptor, of length 1, times its weight, concatenated.

    A descriptor that finds nothing in an image contributes zeros, for example visual words in an
    image without keypoints.

    Attributes:
        config: the descriptors.
        vocabularies: of visual words, by position in `config`.
    """

    config: tuple[Descriptor, ...]
    vocabularies: Mapping[int, Vocabulary]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of dimensions of each descriptor."""
        return tuple(self._size(place) for place in range(len(self.config)))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D), D the sum of `sizes`."""
        parts = [
            each.weight * self._describe(place, pixels) for place, each in enumerate(self.config)
        ]
        return np.hstack(parts).astype(np.float32)

    def _describe(self, place: int, pixels: np.ndarray) -> np.ndarray:
        match self.config[place]:
            case GrayHistogram(bins=bins):
                return gray_histogram(gray(pixels), bins)
            case ColorHistogram(bins=bins, joint=joint):
                return color_histogram(pixels, bins, joint)
            case Hog(side=side):
                return hog(gray(pixels), side)
            case VisualWords(grid=grid, weighting=weighting):
                words = self.vocabularies[place]
                vectors = [
                    words.encode(local_descriptors(image, grid), weighting)
                    for image in gray(pixels)
                ]
                return np.array(vectors).reshape(len(pixels), self._size(place))

    def _size(self, place: int) -> int:
        match self.config[place]:
            case GrayHistogram(bins=bins):
                return bins
            case ColorHistogram(bins=bins, joint=joint):
                return bins**3 if joint else 3 * bins
            case Hog(side=side):
                return hog_size(side)
            case VisualWords(weighting=weighting):
                words = len(self.vocabularies[place].words)
                return words * SIFT_SIZE if weighting == "vlad" else words

    def save(self, path: Path) -> None:
        """Write an .npz file of plain arrays: the configuration as JSON, words and their rarity.

        Raises:
            UserError: the file cannot be written; no partial file remains.
        """
        config = [each.model_dump(mode="json") for each in self.config]
        arrays = {"about": np.array(json.dumps({"format": FORMAT, "descriptors": config}))}
        for place, vocabulary in self.vocabularies.items():
            arrays |= {
                f"{place}.words": vocabulary.words,
                f"{place}.rarity": vocabulary.rarity,
            }
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Descriptors:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged or of a later format, or OpenCV is needed but
                not installed.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT:
                raise UserError(
                    f"{path}: of format {about['format']}, this program reads {FORMAT}; run "
                    "cbir train with --restart"
                )
            config = TypeAdapter(tuple[Descriptor, ...]).validate_python(about["descriptors"])
            vocabularies = {
                place: _vocabulary(arrays[f"{place}.words"], arrays[f"{place}.rarity"])
                for place, each in enumerate(config)
                if isinstance(each, VisualWords)
            }
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run cbir train with --restart") from None
        except (
            *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
            *(ValidationError, zipfile.BadZipFile, zlib.error),
        ) as error:
            raise UserError(
                f"{path}: damaged ({first_line(error)}); run cbir train with --restart"
            ) from None
        check_installed(config)
        return cls(config, vocabularies)


def check_installed(config: Sequence[Descriptor]) -> None:
    """Check for missing packages before long work begins.

    Raises:
        UserError: visual words need OpenCV, which is not installed.
    """
    if any(isinstance(each, VisualWords) for each in config):
        import_opencv()


def _vocabulary(words: np.ndarray, rarity: np.ndarray) -> Vocabulary:
    if words.shape != (len(rarity), SIFT_SIZE) or rarity.ndim != 1 or not len(rarity):
        raise ValueError(f"words {words.shape} and their rarity {rarity.shape} do not fit")
    if not (np.isfinite(words).all() and np.isfinite(rarity).all()):
        raise ValueError("words that are not finite")
    return Vocabulary(words.astype(np.float32), rarity.astype(np.float32))
