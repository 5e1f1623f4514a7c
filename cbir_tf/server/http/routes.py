"""The addresses of the service, and what each takes and answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from cbir_tf.retrieval.query_engine import steps_of
from cbir_tf.server.http import answers
from cbir_tf.server.http.bodies import (
    AdditionBody,
    Body,
    ExplainBody,
    SearchBody,
    read_body,
)
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.pipeline.queries import Hits
from cbir_tf.server.pipeline.service import Service
from cbir_tf.types import UNLABELLED, Embeddings

IMMUTABLE = "private, max-age=3600"


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    """A JSON document; nothing of it is cached."""
    text = to_json(content, inf_nan_mode="null")
    return Response(text, status, {"Cache-Control": "no-store", **headers}, "application/json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the documentation: what else is answered."""
    return {each: {"model": answers.Problem} for each in (*statuses, 401, 403, 429, 503)}


def takes(kind: type[Body]) -> dict[str, Any]:
    """For the documentation: a body in JSON or as a form."""
    schema = kind.model_json_schema()
    fields = dict(schema["properties"])
    as_form = {**schema, "properties": {k: v for k, v in fields.items() if k != "base64image"}}
    as_json = {**schema, "properties": {k: v for k, v in fields.items() if k != "file"}}
    content = {
        "multipart/form-data": {"schema": as_form},
        "application/json": {"schema": as_json},
    }
    return {"requestBody": {"required": True, "content": content}}


def image_addresses(id_: str) -> dict[str, str]:
    """Where a stored picture and its thumbnail are, relative to the service."""
    name = _quoted(id_)
    return {"image": f"/images/{name}", "thumbnail": f"/thumbnails/{name}"}


@lru_cache(maxsize=10_000)  # it takes 4 us, and an answer has as many as there are neighbours
def _quoted(id_: str) -> str:
    return quote(id_, safe="")


def api(service: Service) -> APIRouter:
    """The routes of a service."""
    router = APIRouter(redirect_slashes=False)
    settings = service.settings

    async def body_of(request: Request) -> tuple[bytes, str]:
        content = await read_body(request.stream(), settings.megabytes, settings.seconds)
        return content, request.headers.get("content-type", "")

    @router.post(
        "/search",
        summary="Find the images most like a picture, or like a stored image",
        responses={
            200: {"model": answers.SearchAnswer},
            **problems(400, 404, 408, 409, 413, 415, 422),
        },
        openapi_extra=takes(SearchBody),
    )
    async def search(request: Request) -> Response:
        asked, hits, seconds = await service.search(*await body_of(request))
        answer = _search_answer(service, asked, hits, seconds)
        if asked.position:
            answer["position"] = await service.position(hits.vector)
        return json_answer(answer)

    @router.post(
        "/explain",
        summary="Why a query and a stored image match: what each place of both contributes",
        responses={
            200: {"model": answers.ExplainAnswer},
            **problems(400, 404, 408, 409, 413, 415, 422),
        },
        openapi_extra=takes(ExplainBody),
    )
    async def explain(request: Request) -> Response:
        found, own, other = await service.explain(*await body_of(request))
        return json_answer(
            {
                "similarity": float(found.pairs.sum()),
                "kind": found.kind,
                "query": found.first.tolist(),
                "match": found.second.tolist(),
                "query_area": own,
                "match_area": other,
                "pairs": found.pairs.tolist(),
            }
        )

    @router.get(
        "/map",
        summary="The embedding map: every image a point, near where its neighbours are",
        responses={200: {"model": answers.MapAnswer}, **problems()},
    )
    async def embedding_map() -> Response:
        mapped = await service.mapped()
        points = [] if mapped is None else _points(service, *mapped)
        ready = mapped is not None
        return json_answer({"ready": ready, "method": service.map.method, "points": points})

    @router.post(
        "/images",
        status_code=201,
        summary="Add a picture to the gallery; it is found from the next search on, and kept",
        responses={
            200: {"model": answers.Added, "description": "It was there already"},
            201: {"model": answers.Added},
            **problems(400, 408, 409, 413, 415, 422, 507),
        },
        openapi_extra=takes(AdditionBody),
    )
    async def add(request: Request) -> Response:
        _changing(service)
        asked, id_, is_new = await service.add(*await body_of(request))
        answer = {"id": id_, "label": asked.label, "new": is_new, "images": len(service.gallery)}
        return json_answer(answer | image_addresses(id_), 201 if is_new else 200)

    @router.delete(
        "/images/{id:path}",
        summary="Take an image out of the gallery",
        responses={200: {"model": answers.Removed}, **problems(404, 507)},
    )
    async def remove(id: str) -> Response:
        _changing(service)
        await service.remove(id)
        return json_answer({"id": id, "images": len(service.gallery)})

    @router.get(
        "/images/{id:path}",
        summary="A stored picture",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, **problems(404)},
    )
    async def picture(id: str) -> Response:
        content, kind = await service.picture(id)
        return Response(content, 200, {"Cache-Control": IMMUTABLE}, kind)

    @router.get(
        "/thumbnails/{id:path}",
        summary="A small JPEG of a stored picture",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **problems(404)},
    )
    async def thumbnail(id: str) -> Response:
        content = await service.thumbnail(id)
        return Response(content, 200, {"Cache-Control": IMMUTABLE}, "image/jpeg")

    @router.get(
        "/gallery/random",
        summary="Some stored images, drawn anew each time",
        responses={200: {"model": answers.RandomAnswer}, **problems(422)},
    )
    async def some(count: int = Query(12, ge=1, le=200, description="How many")) -> Response:
        drawn = [
            {"id": id_, "label": label, **image_addresses(id_)}
            for id_, label in service.some(count)
        ]
        return json_answer({"images": drawn})

    @router.get(
        "/info",
        summary="What is served: images, labels, columns, settings",
        responses={200: {"model": answers.Info}, **problems()},
    )
    async def info() -> Response:
        return json_answer(_info(service))

    return router


def _changing(service: Service) -> None:
    if service.settings.read_only:
        raise RequestError(403, "this service is read only: images are not added nor removed")


def _search_answer(
    service: Service, asked: SearchBody, hits: Hits, seconds: dict[str, float]
) -> dict[str, Any]:
    settings = service.config.search.changed(asked.re_ranking, asked.two_step)
    neighbours = [
        {
            "rank": rank,
            "id": id_,
            "label": label,
            "distance": round(distance, 6),
            **image_addresses(id_),
        }
        for rank, (id_, label, distance) in enumerate(
            zip(hits.ids, hits.labels, hits.distances, strict=True), 1
        )
    ]
    return {
        "query": asked.id,
        "search": steps_of(settings),
        "prediction": hits.prediction
        and {"name": hits.prediction.name, "probability": hits.prediction.probability},
        "match": hits.match,
        "neighbours": neighbours,
        "timings": {stage: round(1e3 * value, 2) for stage, value in seconds.items()},
    }


def _points(service: Service, images: Embeddings, points: np.ndarray) -> list[dict[str, Any]]:
    names = (*service.gallery.class_names, None)
    return [
        {"id": id_, "label": names[label], "x": round(x, 4), "y": round(y, 4)}
        for id_, label, (x, y) in zip(
            images.ids.tolist(), images.labels.tolist(), points.tolist(), strict=True
        )
    ]


def _info(service: Service) -> dict[str, Any]:
    gallery, search, settings = service.gallery, service.config.search, service.settings
    stored = gallery.embeddings
    counts = np.bincount(stored.labels - UNLABELLED).tolist()  # unlabelled ones first
    names = (None, *gallery.class_names)
    labels = [
        {"name": name, "number": number, "images": count}
        for number, (name, count) in enumerate(zip(names, counts, strict=False), UNLABELLED)
        if count
    ]
    labels.sort(key=lambda each: (each["name"] is None, str(each["name"])))
    return {
        "run": service.config.name,
        "images": len(stored),
        "dimension": int(stored.vectors.shape[1]),
        "labels": labels,
        "splits": gallery.splits,
        "columns": sorted(gallery.columns),
        "metric": search.metric,
        "k": search.k,
        "most_neighbours": settings.most_neighbours,
        "re_ranking": search.re_ranking,
        "two_step": search.two_step.name,
        "calibrated": gallery.calibrated is not None,
        "explanation": service.no_explanation,
        "read_only": settings.read_only,
        "key_needed": service.key_needed,
        "megabytes": settings.megabytes,
        "megapixels": settings.megapixels,
    }
