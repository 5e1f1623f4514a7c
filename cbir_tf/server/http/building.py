"""From the values of the pipeline to answers."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from urllib.parse import quote

import numpy as np

from cbir_tf.retrieval.query_engine import steps_of
from cbir_tf.server.http import answers
from cbir_tf.server.http.bodies import SearchBody
from cbir_tf.server.pipeline.explanation import Area, Explanation
from cbir_tf.server.pipeline.service import Service
from cbir_tf.types import UNLABELLED, Results


def image_address(id_: str, below: str = "") -> str:
    """Where a stored picture is, relative to the address that is answered.

    So it holds behind a proxy too, at whatever path the service is there.

    Args:
        id_: of the image.
        below: the way from the address that is answered to the service's root.

    Example:
        >>> image_address("red/00.jpg"), image_address("red/00.jpg", "../")
        ('images/red%2F00.jpg', '../images/red%2F00.jpg')
    """
    return f"{below}images/{_quoted(id_)}"


def thumbnail_address(id_: str, below: str = "") -> str:
    """Where a stored picture's thumbnail is: see `image_address`."""
    return f"{below}thumbnails/{_quoted(id_)}"


@lru_cache(maxsize=10_000)
def _quoted(id_: str) -> str:
    return quote(id_, safe="")


def search_answer(
    body: SearchBody, service: Service, results: Results, seconds: dict[str, float]
) -> answers.SearchAnswer:
    """The answer to a search, but for the query's position on the map.

    Args:
        body: of the request.
        service: that searched.
        results: of one query.
        seconds: by stage.
    """
    neighbours = [
        answers.Neighbour(
            rank=rank,
            id=hit.id,
            label=hit.label,
            distance=round(hit.distance, 6),
            image=image_address(hit.id),
            thumbnail=thumbnail_address(hit.id),
        )
        for rank, hit in enumerate(results.hits(), 1)
    ]
    match, calibration = None, service.gallery.calibrated
    if results.is_match is not None and calibration is not None:
        match = calibration.verdict(float(results.distances[0, 0]))
    return answers.SearchAnswer(
        query=body.id,
        search=steps_of(service.config.search.changed(body.re_ranking, body.two_step)),
        prediction=None
        if results.prediction is None
        else answers.Class(**asdict(results.prediction[0])),
        match=None if match is None else answers.Match(**match),
        neighbours=neighbours,
        timings={stage: round(1e3 * value, 2) for stage, value in seconds.items()},
    )


def explain_answer(found: Explanation, query_area: Area, match_area: Area) -> answers.ExplainAnswer:
    """The answer to why two images match."""
    return answers.ExplainAnswer(
        similarity=float(found.pairs.sum()),
        kind=found.kind,
        query=found.first.tolist(),
        match=found.second.tolist(),
        query_area=query_area,
        match_area=match_area,
        pairs=found.pairs.tolist(),
    )


async def map_answer(service: Service) -> answers.MapAnswer:
    """The embedding map, or that it is not ready."""
    mapped = await service.mapped()
    if mapped is None:
        return answers.MapAnswer(ready=False, method=service.map.method, points=[])
    images, points = mapped
    names = (*service.gallery.class_names, None)
    shown = [
        answers.MapPoint(id=id_, label=names[label], x=round(x, 4), y=round(y, 4))
        for id_, label, (x, y) in zip(
            images.ids.tolist(), images.labels.tolist(), points.tolist(), strict=True
        )
    ]
    return answers.MapAnswer(ready=True, method=service.map.method, points=shown)


def info_answer(service: Service, key_needed: bool) -> answers.Info:
    """The run, its images and the service's settings."""
    gallery, search, settings = service.gallery, service.config.search, service.settings
    stored = gallery.embeddings
    return answers.Info(
        run=service.config.name,
        images=len(stored),
        dimension=int(stored.vectors.shape[1]),
        labels=_label_counts(stored.labels, gallery.class_names),
        splits=list(gallery.splits),
        columns=sorted(gallery.columns),
        metric=search.metric,
        k=search.k,
        max_neighbours=settings.max_neighbours,
        re_ranking=search.re_ranking,
        two_step=search.two_step.name,
        calibrated=gallery.calibrated is not None,
        explanation=service.no_explanation,
        read_only=settings.read_only,
        key_needed=key_needed,
        max_request_megabytes=settings.max_request_megabytes,
        max_megapixels=settings.max_megapixels,
    )


def _label_counts(labels: np.ndarray, class_names: tuple[str, ...]) -> list[answers.LabelCount]:
    """Labels that images have, by name, unlabelled ones last."""
    counts = np.bincount(labels - UNLABELLED).tolist()  # unlabelled ones first
    found = [
        answers.LabelCount(name=name, number=number, images=count)
        for number, (name, count) in enumerate(
            zip((None, *class_names), counts, strict=False), UNLABELLED
        )
        if count
    ]
    return sorted(found, key=lambda each: (each.name is None, str(each.name)))
