"""The pages of the API's documentation: Swagger UI and ReDoc, with nothing of another host."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse

FILES = "/documentation-files"
_RELATIVE = FILES.removeprefix("/")
_ICON = "icon.svg"


def add_documentation(app: FastAPI) -> None:
    """Add /docs and /redoc, all of whose addresses are relative, as those of the page.

    Args:
        app: with /openapi.json, and with the files of both at `FILES` (`fastapi_offline`).
    """

    @app.get("/docs", include_in_schema=False)
    async def swagger_ui() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{_RELATIVE}/swagger-ui-bundle.js",
            swagger_css_url=f"{_RELATIVE}/swagger-ui.css",
            swagger_favicon_url=_ICON,
            swagger_ui_parameters={"validatorUrl": None},  # another host's
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        return get_redoc_html(
            openapi_url="openapi.json",
            title=f"{app.title} - ReDoc",
            redoc_js_url=f"{_RELATIVE}/redoc.standalone.js",
            redoc_favicon_url=_ICON,
            with_google_fonts=False,
        )
