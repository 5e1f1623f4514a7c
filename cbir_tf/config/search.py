"""The sections of the configuration that say what happens to vectors: search, measure, plot."""

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
    """What first says of which class a query is, learnt from the training images: a vote of the
    nearest of them, or a linear support vector machine; none: all images are searched alike."""
    mode: Literal["hard", "soft"] = "hard"
    """hard: the images of the likeliest class first, then those of the next; soft: distances grow
    as the class gets less likely."""
    weight: float = Field(0.5, ge=0, le=5)
    """soft: times (probability of the likeliest class / of the image's own) to this power; 0: plain
    search, and the larger the nearer to hard."""
    neighbours: int = Field(10, ge=1)
    """knn: training images that vote."""
    run: Place | None = None
    """Folder of another run, whose model and classes say of which class the query and every image
    are, as one trained on scenes; null: this run's own."""

    @model_validator(mode="after")
    def _complete(self) -> TwoStep:
        if self.run is not None and self.name == "none":
            raise ValueError("search.two_step.name is needed with search.two_step.run: knn or svm")
        return self


class Search(Section):
    index: Literal["nearest_neighbors", "faiss", "annoy"] = "nearest_neighbors"
    """nearest_neighbors: scikit-learn's, exact; faiss: for large galleries; annoy: 10 random trees,
    as in older systems."""
    metric: Annotated[str, AfterValidator(_metric)] = "cosine"
    """Distance between a query and the gallery: cosine, euclidean, manhattan, or minkowski-P with a
    number P from 1 up, as minkowski-3."""
    pca: int | None = Field(None, ge=1)
    """Search this many principal components of the vectors, fitted to those that are stored
    whenever they change; null: the vectors themselves."""
    whiten: Fraction = 0.0
    """How far to even out the components; with pca: null, all along which the vectors differ: 1
    scales them to variance 1, less, as .3, goes a part of the way; 0: not at all."""
    standardize: bool = False
    """Scale every dimension of the vectors to mean 0 and variance 1, before pca and whiten."""
    k: int = Field(5, ge=1)
    """Neighbours returned."""
    recall: float = Field(0.99, gt=0, le=1)
    """Share of the true 10 nearest that faiss and annoy have to find; 1: exact, as are small
    galleries."""
    re_ranking: Literal["none", "query_expansion", "k_reciprocal"] = "none"
    """A second look at the first results: search again for the mean of the query and its 10
    nearest, or order them by the neighbours they share."""
    candidates: int = Field(100, ge=2)
    """First results that k_reciprocal orders again."""
    database_augmentation: int = Field(0, ge=0)
    """Nearest neighbours that every image of the gallery is moved towards before it is searched;
    0: none."""
    two_step: Annotated[TwoStep, BeforeValidator(named)] = TwoStep()
    """Say first of which class the query is; a name or {name: ..., ...}."""
    test_time_augmentation: Literal["none", "flip", "crops", "rotations"] = "none"
    """An image's vector is the mean of those of several views: flip, with its mirror image; crops,
    three along the longer side, and their mirror images (with data.resize: crop); rotations, by 0,
    90, 180 and 270 degrees. Takes 2, 6 or 4 times as long, and new features."""
    test_time_scales: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (1.0,), min_length=1, max_length=8
    )
    """Sizes at which every view is encoded, as shares of data.image_size; the vector is the mean
    over them too. [0.857, 1, 1.143] are 192, 224 and 256 pixels of 224. Needs new features."""
    dtype: Literal["float32", "float16"] = "float32"
    """As which vectors are stored; float16 halves the file and keeps 3 digits."""

    def changed(self, re_ranking: str | None = None, two_step: str | None = None) -> Search:
        """These settings, but for what one search asks for; None: as they are."""
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
    """Images used as queries."""
    gallery: Literal["train", "validation", "test"] | None = None
    """Images searched; null: the queries' own split, each query left out of it."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """Ranks at which recall, precision and mAP are reported."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of the queries behind each 95 % interval; 0: no intervals."""


class Plots(Section):
    layout: Literal["umap", "tsne", "pca"] = "umap"
    """Of the embedding map."""
    queries: int = Field(6, ge=1)
    """Rows of the query grid."""
