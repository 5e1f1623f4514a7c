"""The sections `search`, `evaluation` and `plots` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cbir_tf.config.metric_names import minkowski_order
from cbir_tf.config.parsing import named
from cbir_tf.config.section import Fraction, Place, Section
from cbir_tf.errors import UserError


def _metric(name: str) -> str:
    try:
        minkowski_order(name)
    except UserError as error:
        raise ValueError(f"search.{error}") from None
    return name


class TwoStep(Section):
    name: Literal["none", "knn", "svm"] = "none"
    """Class router: predicts the class of the query before the search, fitted to the training
    images. knn: a vote of the nearest neighbours; svm: a linear support vector machine; none: one
    search over all classes."""
    mode: Literal["hard", "soft"] = "hard"
    """hard: results in the order of their class's probability, then of distance; soft: the less
    probable the class of an image, the larger its distance."""
    weight: float = Field(0.5, ge=0, le=5)
    """soft: exponent of the factor (probability of the most probable class / probability of the
    image's class) on each distance; 0: plain search; larger: closer to hard."""
    neighbours: int = Field(10, ge=1)
    """knn: number of training images that vote."""
    run: Place | None = None
    """Folder of another run, whose model and classes predict the class of the query and of every
    image, for example a run trained on scenes; null: this run."""

    @model_validator(mode="after")
    def _complete(self) -> TwoStep:
        if self.run is not None and self.name == "none":
            raise ValueError("search.two_step.run needs search.two_step.name: set knn or svm")
        return self


class Search(Section):
    index: Literal["nearest_neighbors", "faiss", "annoy"] = "nearest_neighbors"
    """nearest_neighbors: exact, by scikit-learn; faiss: for large galleries; annoy: 10 random
    trees, for comparison with older systems."""
    metric: Annotated[str, AfterValidator(_metric)] = "cosine"
    """Distance between embeddings: cosine, euclidean, manhattan, or minkowski-P with a number P of
    at least 1, for example minkowski-3."""
    pca: int | None = Field(None, ge=1)
    """Number of principal components to search, fitted to the stored vectors whenever these change;
    null: no PCA."""
    whiten: Fraction = 0.0
    """Degree of whitening of the components (with pca: null, of all along which the vectors
    differ). 1: variance 1 for each; between 0 and 1, for example 0.3: partial; 0: none."""
    standardize: bool = False
    """Scale every dimension of the vectors to mean 0 and variance 1, before pca and whiten."""
    k: int = Field(5, ge=1)
    """Number of neighbours to return."""
    recall: float = Field(0.99, gt=0, le=1)
    """Share of the true 10 nearest neighbours that faiss and annoy must find; 1: exact search.
    Small galleries are always searched exactly."""
    re_ranking: Literal["none", "query_expansion", "k_reciprocal"] = "none"
    """Re-ranking of the first results. query_expansion: a second search for the mean of the query
    and its 10 nearest neighbours; k_reciprocal: order by shared neighbours."""
    candidates: int = Field(100, ge=2)
    """Number of first results that k_reciprocal re-ranks."""
    database_augmentation: int = Field(0, ge=0)
    """Number of nearest neighbours that every vector of the gallery is averaged with before the
    search; 0: none."""
    two_step: Annotated[TwoStep, BeforeValidator(named)] = TwoStep()
    """Two-step search, which predicts the class of the query first; a name or {name: ..., ...}."""
    test_time_augmentation: Literal["none", "flip", "crops", "rotations"] = "none"
    """Views of an image whose mean is its vector. flip: the image and its mirror image; crops:
    three crops along the longer side and their mirror images (needs data.resize: crop); rotations:
    by 0, 90, 180 and 270 degrees. Encoding takes 2, 6 or 4 times as long; after a change, run
    cbir extract."""
    test_time_scales: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (1.0,), min_length=1, max_length=8
    )
    """Sizes at which every view is encoded, relative to data.image_size; the vector is the mean
    over them too. For 224 pixels, [0.857, 1, 1.143] means 192, 224 and 256. After a change, run
    cbir extract."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the stored vectors; float16 halves the file and keeps 3 digits."""

    def changed(self, re_ranking: str | None = None, two_step: str | None = None) -> Search:
        """A copy with other settings for one search; None keeps a setting."""
        changes: dict[str, Any] = {}
        if re_ranking:
            changes["re_ranking"] = re_ranking
        if two_step == "none":
            changes["two_step"] = TwoStep()
        elif two_step:
            changes["two_step"] = self.two_step.model_copy(update={"name": two_step})
        return self.model_copy(update=changes) if changes else self


class Evaluation(Section):
    split: Literal["train", "validation", "test"] = "test"
    """Split of the queries."""
    gallery: Literal["train", "validation", "test"] | None = None
    """Split of the gallery; null: the split of the queries, each query left out of its own
    search."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """Ranks k of recall@k, precision@k and ndcg@k, and of map@k in metrics.json."""
    bootstrap: int = Field(1000, ge=0)
    """Number of bootstrap resamples of the queries for the 95 % intervals; 0: no intervals."""


class Plots(Section):
    layout: Literal["umap", "tsne", "pca"] = "umap"
    """Layout of the embedding map."""
    queries: int = Field(6, ge=1)
    """Number of rows of the query grid."""
