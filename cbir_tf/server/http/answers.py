"""The answers of the service, as its documentation shows them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """The fields of an answer; their docstrings are the documentation's."""

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
    """Share of out-of-gallery queries whose nearest image is as near."""


class Neighbour(Answer):
    rank: int
    id: str
    label: str | None
    """Name of its class; null: unlabelled."""
    distance: float
    image: str
    """Address of the picture, relative to that of the request as a link's is."""
    thumbnail: str
    """Address of a small JPEG of it, relative too."""


class SearchAnswer(Answer):
    query: str | None
    """Id of the stored image that was the query; null: a picture."""
    search: str
    """The steps of the search beyond the nearest vectors."""
    prediction: Class | None
    """Class of the query, where the search has two steps."""
    match: Match | None
    """Null: never calibrated, or the search has steps beyond the nearest vectors."""
    neighbours: list[Neighbour]
    position: tuple[float, float] | None = None
    """Point of the query on the map, if asked for and the map is ready."""
    timings: dict[str, float]
    """Milliseconds: read (decoding the picture), wait (for other batches), encode and search (of
    the whole batch), total."""


class Added(Answer):
    id: str
    label: str | None
    new: bool
    """False: the same picture was there, and got this label and metadata."""
    images: int
    """In the gallery now."""
    image: str
    """Address of the picture, relative to that of the request as a link's is."""
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
    """Of the class, for its colour and shape in plots; -1: unlabelled."""
    images: int


class Info(Answer):
    run: str
    images: int
    dimension: int
    """Of the vectors as they are searched; 0 for an empty gallery."""
    labels: list[LabelCount]
    splits: list[str]
    """Splits of the images; added images are in none."""
    columns: list[str]
    """Columns of metadata to filter by."""
    metric: str
    k: int
    """Neighbours of a search without k."""
    max_neighbours: int
    """Largest k of a search."""
    re_ranking: str
    two_step: str
    calibrated: bool
    """Whether the answer of a plain search has `match`."""
    explanation: str | None
    """Null: /explain works; else the reason why it does not."""
    read_only: bool
    """Whether adding and removing images is refused."""
    key_needed: bool
    max_request_megabytes: float
    """Largest size of a request."""
    max_megapixels: float
    """Largest size of a picture."""


class StoredImage(Answer):
    """A stored image."""

    id: str
    label: str | None
    image: str
    """Address of the picture, relative to that of the request as a link's is."""
    thumbnail: str


class RandomAnswer(Answer):
    images: list[StoredImage]


class MapPoint(Answer):
    id: str
    label: str | None
    x: float
    y: float


class MapAnswer(Answer):
    ready: bool
    """False: the layout is running; ask again later."""
    method: str
    points: list[MapPoint]


class ExplainAnswer(Answer):
    similarity: float
    """Cosine similarity of the two vectors: the sum of `query` and of `match`."""
    kind: str
    """linear: each contribution is independent of the others; local: of the layers as they are at
    these two pictures."""
    query: list[list[float]]
    """Contribution of each place of the query, row by row."""
    match: list[list[float]]
    """Contribution of each place of the stored image."""
    query_area: tuple[float, float, float, float]
    """The part of the upright picture that `query` covers: left, top, width and height, as shares
    of the picture's; beyond 0..1 where it was padded."""
    match_area: tuple[float, float, float, float]
    pairs: list[list[float]]
    """Contribution of each pair of places: rows are places of the query, columns of the match, each
    row by row. They sum to the similarity."""
