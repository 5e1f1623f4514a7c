"""What the service answers, as its documentation has it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Fields of an answer; attribute docstrings are what the documentation says of them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Problem(Answer):
    error: str
    """What is wrong, and how to mend it."""


class Class(Answer):
    name: str
    probability: float


class Match(Answer):
    found: bool
    """Whether the nearest image is a match."""
    threshold: float
    """Largest distance of a match."""
    false_match_rate: float
    """Share of photos of something else that come as near."""


class Neighbour(Answer):
    rank: int
    id: str
    label: str | None
    """Name of its class; null: unlabelled."""
    distance: float
    image: str
    """Address of the picture."""
    thumbnail: str
    """Address of a small JPEG of it."""


class SearchAnswer(Answer):
    query: str | None
    """Id of the stored image that was searched for; null: a picture."""
    search: str
    """What the search did beyond finding the nearest vectors."""
    prediction: Class | None
    """What the query was taken for, where the search has two steps."""
    match: Match | None
    """Null: never calibrated, or the search does more than finding the nearest vectors."""
    neighbours: list[Neighbour]
    position: tuple[float, float] | None = None
    """Where the query is on the map, if that was asked for and the map is ready."""
    timings: dict[str, float]
    """Milliseconds: read (the picture decoded), wait (for a batch), encode and search (of the
    batch), total."""


class Added(Answer):
    id: str
    label: str | None
    new: bool
    """Whether it was not there before."""
    images: int
    """In the gallery now."""
    image: str
    thumbnail: str


class Removed(Answer):
    id: str
    images: int
    """In the gallery now."""


class State(Answer):
    status: str


class LabelCount(Answer):
    name: str | None
    """Null: unlabelled."""
    number: int
    """Of the class, by which plots choose its colour and shape; -1: unlabelled."""
    images: int


class Info(Answer):
    run: str
    images: int
    dimension: int
    """Of the vectors that are compared; 0 for an empty gallery."""
    labels: list[LabelCount]
    splits: list[str]
    """In which images are; those that were added are in none."""
    columns: list[str]
    """Of metadata, to filter by."""
    metric: str
    k: int
    """Neighbours, if a search does not say."""
    most_neighbours: int
    re_ranking: str
    two_step: str
    calibrated: bool
    """Whether a plain search says if there is a match."""
    explanation: str | None
    """Null: /explain says why images match; else why it cannot."""
    read_only: bool
    """Whether images can be added and removed."""
    key_needed: bool
    megabytes: float
    megapixels: float


class Some(Answer):
    """A stored image."""

    id: str
    label: str | None
    image: str
    thumbnail: str


class RandomAnswer(Answer):
    images: list[Some]


class MapPoint(Answer):
    id: str
    label: str | None
    x: float
    y: float


class MapAnswer(Answer):
    ready: bool
    """False: it is being computed; ask again."""
    method: str
    points: list[MapPoint]


class ExplainAnswer(Answer):
    similarity: float
    """Cosine similarity of the two vectors: the sum of `query` and of `match`."""
    kind: str
    """linear: each contribution is what its place adds, whatever the others; local: as the layers
    are at these two pictures."""
    query: list[list[float]]
    """What each place of the query contributes, row by row."""
    match: list[list[float]]
    """What each place of the stored image contributes."""
    query_area: tuple[float, float, float, float]
    """Which part of the upright picture `query` covers: left, top, width and height, as shares of
    the picture's; beyond 0..1 where it was padded."""
    match_area: tuple[float, float, float, float]
    pairs: list[list[float]]
    """What each pair of places contributes: rows are places of the query, columns of the match,
    each row by row. They sum to the similarity."""
