"""Whether the service runs and lets requests in, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from cbir_tf.server.http import answers
from cbir_tf.server.http.errors import RequestError, retry_after

OPEN_PATHS = ("/health", "/ready")

router = APIRouter()


@router.get("/health", summary="Whether the process runs")
async def health() -> answers.State:
    """Answers as long as the process runs."""
    return answers.State(status="ok")


@router.get(
    "/ready",
    summary="Whether searches are answered",
    responses={503: {"model": answers.Problem}},
)
async def ready(request: Request) -> answers.State:
    """503 after Ctrl-C, while running requests end."""
    if request.app.state.draining:
        raise RequestError(503, "the service is ending", retry_after(5))
    return answers.State(status="ready")


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Requests, stages of searches, batches, images, memory."""
    text = request.app.state.service.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4")
