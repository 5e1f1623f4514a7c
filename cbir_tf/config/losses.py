"""The section `loss` of the configuration: one class for each loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cbir_tf.config.parsing import named
from cbir_tf.config.section import Fraction, Section


class Triplets(Section):
    name: str
    margin: float = Field(0.2, ge=0)
    """Margin: by how much the negative must be farther from the anchor than the positive."""
    distance: Literal["L2", "squared-L2", "angular"] = "L2"
    """Distance between embeddings, by its name in TensorFlow Addons."""


class SemiHardTriplets(Triplets):
    name: Literal["triplet_semi_hard"] = "triplet_semi_hard"


class HardTriplets(Triplets):
    name: Literal["triplet_hard"] = "triplet_hard"
    soft: bool = False
    """Soft margin: log(1 + exp(x)) in place of max(0, x + margin)."""


class Pairs(Section):
    """Losses of the pairs of a batch other than triplets."""

    name: str


class Contrastive(Pairs):
    name: Literal["contrastive"] = "contrastive"
    margin: float = Field(0.5, gt=0)
    """Distance that negatives have to keep."""
    distance: Literal["L2", "squared-L2", "angular"] = "L2"
    """Distance between embeddings."""


class MultiSimilarity(Pairs):
    name: Literal["multi_similarity"] = "multi_similarity"
    alpha: float = Field(2.0, gt=0)
    """Sharpness of the weights of positives."""
    beta: float = Field(50.0, gt=0)
    """Sharpness of the weights of negatives."""
    base: float = 0.5
    """Cosine similarity that positives should exceed and negatives not reach."""
    epsilon: float | None = Field(0.1, ge=0)
    """Margin of the choice of informative pairs; null: all pairs count."""


class SupervisedContrastive(Pairs):
    name: Literal["supervised_contrastive"] = "supervised_contrastive"
    temperature: float = Field(0.1, gt=0)
    """Temperature of the cosine similarities; a smaller one weighs the hardest pairs more."""


class Circle(Pairs):
    name: Literal["circle"] = "circle"
    margin: float = Field(0.25, ge=0)
    """Relaxation of the optima, 1 for positives and 0 for negatives."""
    scale: float = Field(64.0, gt=0)
    """Sharpness."""


class SmoothAP(Pairs):
    name: Literal["smooth_ap"] = "smooth_ap"
    temperature: float = Field(0.01, gt=0)
    """Width of the step that replaces a rank; the batch takes memory with its third power."""


class Proxies(Section):
    """Losses beside proxies: learnt vectors that stand for the training classes."""

    name: str
    proxies_per_class: int = Field(1, ge=1)
    """Proxies (sub-centres) of a class; the nearest of them counts."""
    proxy_rate: float = Field(100.0, gt=0)
    """Factor of the learning rate for the proxies, which start from random vectors."""


class ProxyAnchor(Proxies):
    name: Literal["proxy_anchor"] = "proxy_anchor"
    margin: float = Field(0.1, ge=0)
    """By how much cosine similarities have to exceed and fall below zero."""
    scale: float = Field(32.0, gt=0)
    """Sharpness."""


class ProxyNCA(Proxies):
    name: Literal["proxy_nca"] = "proxy_nca"
    temperature: float = Field(1 / 9, gt=0)
    """Temperature of the squared distances."""


class ArcFace(Proxies):
    name: Literal["arcface"] = "arcface"
    margin: float = Field(0.5, ge=0, lt=1.5)
    """Angle in radians by which the own class has to win."""
    scale: float = Field(32.0, gt=0)
    """Sharpness."""


class CrossEntropy(Section):
    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is distributed evenly over all classes."""


class Reconstruction(Section):
    name: Literal["reconstruction"] = "reconstruction"
    noise: Fraction = 0.0
    """Standard deviation of the Gaussian noise on the encoder's input in training, for pixels of
    0..1; the target has no noise."""


def _loss(value: Any) -> Any:
    """Semi-hard triplets are the default; older runs have `soft: false` with them too."""
    value = named(value)
    if not isinstance(value, dict):
        return value
    value = {"name": "triplet_semi_hard"} | value
    if value["name"] == "triplet_semi_hard" and value.get("soft") is False:
        del value["soft"]
    return value


Loss = Annotated[
    Annotated[
        SemiHardTriplets
        | HardTriplets
        | Contrastive
        | MultiSimilarity
        | SupervisedContrastive
        | Circle
        | SmoothAP
        | ProxyAnchor
        | ProxyNCA
        | ArcFace
        | CrossEntropy
        | Reconstruction,
        Field(discriminator="name"),
    ],
    BeforeValidator(_loss),
]
