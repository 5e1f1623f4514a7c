"""The routes of the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader

from cbir_tf.server.http import answers
from cbir_tf.server.http.access import asker
from cbir_tf.server.http.bodies import AdditionBody, ExplainBody, SearchBody, documented
from cbir_tf.server.http.body_parsing import body_of
from cbir_tf.server.http.building import (
    explain_answer,
    image_address,
    info_answer,
    map_answer,
    search_answer,
    thumbnail_address,
)
from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.http.waiting import while_wanted
from cbir_tf.server.pipeline.service import Service

CACHED = "private, max-age=3600"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the documentation: the other statuses of a route."""
    return {each: {"model": answers.Problem} for each in (*statuses, 401, 403, 429, 503)}


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _changes_allowed(request: Request) -> None:
    if request.app.state.service.settings.read_only:
        raise RequestError(403, "this service is read only: images cannot be added or removed")


Serving = Annotated[Service, Depends(_service)]
PICTURE = ("file", "base64image")
QUERY = (*PICTURE, "id")
"""Fields of which a request has exactly one."""
READ = (400, 408, 413, 415, 422)
DOCUMENTED_KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False))
"""The documentation asks for the key; `AccessControl` checks it."""

router = APIRouter()


@router.post(
    "/search",
    summary="Find the images most like a picture, or like a stored image",
    responses=problems(404, 409, *READ),
    openapi_extra=documented(SearchBody, *QUERY),
)
async def search(
    request: Request, service: Serving, body: Annotated[SearchBody, Depends(body_of(SearchBody))]
) -> answers.SearchAnswer:
    """A picture as `file` or `base64image`, or the `id` of a stored image."""
    body.one_of(*QUERY)
    steps = body.steps()
    searching = service.search(steps, body.picture, body.id, asker(request.scope))
    results, seconds = await while_wanted(request, searching)
    answer = search_answer(body, service, results, seconds)
    if body.position:
        answer.position = await service.position(results.vectors[0])
    return answer


@router.post(
    "/explain",
    summary="Why a query and a stored image match: the contribution of each place of both",
    responses=problems(404, 409, *READ),
    openapi_extra=documented(ExplainBody, *QUERY),
)
async def explain(
    request: Request, service: Serving, body: Annotated[ExplainBody, Depends(body_of(ExplainBody))]
) -> answers.ExplainAnswer:
    """A query as for a search, and the id of a stored image."""
    body.one_of(*QUERY)
    explaining = service.explain(body.match, body.picture, body.id, asker(request.scope))
    return explain_answer(*await while_wanted(request, explaining))


@router.get(
    "/map",
    summary="The embedding map: every image a point, near the points of its neighbours",
    responses=problems(),
)
async def embedding_map(service: Serving) -> answers.MapAnswer:
    """The first call starts the layout."""
    return await map_answer(service)


@router.post(
    "/images",
    status_code=201,
    summary="Add a picture to the gallery; the next search finds it",
    responses={
        200: {"model": answers.Added, "description": "The picture was there already"},
        **problems(409, 507, *READ),
    },
    dependencies=[Depends(_changes_allowed)],
    openapi_extra=documented(AdditionBody, *PICTURE),
)
async def add(
    request: Request,
    service: Serving,
    body: Annotated[AdditionBody, Depends(body_of(AdditionBody))],
    response: Response,
) -> answers.Added:
    """The picture and its row are on the disk when the answer comes."""
    body.one_of(*PICTURE)
    client = asker(request.scope)
    id_, is_new = await service.add(body.picture or b"", body.label, body.metadata, client)
    response.status_code = 201 if is_new else 200
    return answers.Added(
        id=id_,
        label=body.label,
        new=is_new,
        images=len(service.gallery),
        image=image_address(id_),
        thumbnail=thumbnail_address(id_),
    )


@router.delete(
    "/images/{id:path}",
    summary="Remove an image from the gallery",
    responses=problems(404, 507),
    dependencies=[Depends(_changes_allowed)],
)
async def remove(service: Serving, id: str) -> answers.Removed:
    """The file of an added picture is deleted; other files stay."""
    await service.remove(id)
    return answers.Removed(id=id, images=len(service.gallery))


@router.get(
    "/images/{id:path}",
    summary="A stored picture",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, **problems(404)},
)
async def picture(service: Serving, id: str) -> Response:
    """The file as it is."""
    content, media_type = await service.picture(id)
    return Response(content, 200, {"Cache-Control": CACHED}, media_type)


@router.get(
    "/thumbnails/{id:path}",
    summary="A small JPEG of a stored picture",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problems(404)},
)
async def thumbnail(request: Request, service: Serving, id: str) -> Response:
    """Its longer side has server.thumbnail_size pixels, or those of the picture."""
    content = await service.thumbnail(id, asker(request.scope))
    return Response(content, 200, {"Cache-Control": CACHED}, "image/jpeg")


@router.get(
    "/gallery/random", summary="A random sample of the stored images", responses=problems(422)
)
async def random_images(
    service: Serving, count: Annotated[int, Query(ge=1, le=200, description="Images")] = 12
) -> answers.RandomAnswer:
    """Drawn without replacement."""
    images = [
        answers.StoredImage(
            id=id_,
            label=label,
            image=image_address(id_, "../"),
            thumbnail=thumbnail_address(id_, "../"),
        )
        for id_, label in service.sample(count)
    ]
    return answers.RandomAnswer(images=images)


@router.get("/info", summary="The run: its images, labels, columns, settings", responses=problems())
async def info(service: Serving, request: Request) -> answers.Info:
    """All that the page needs to start."""
    return info_answer(service, request.app.state.key_needed)
