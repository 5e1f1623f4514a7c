"""A real browser before a real service, for the tests of the page."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.running import listen
from cbir_tf.server.pipeline.service import Service

REQUIRED = "CBIR_REQUIRE_BROWSER"
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one tests are skipped, or fail if it is required."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"no chromium is installed, and {REQUIRED} is set")
        pytest.skip("no chromium is installed (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()


@contextmanager
def _served(folder: Path, *overrides: str, key: str | None = None) -> Iterator[str]:
    """The address of a service of a run, answered by a thread of this process."""
    run = Run.open(folder)
    config = Config.load(run.config_file, ["server.rate=0", *overrides])
    app = make_app(Service(run, config), key)
    with listen("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _opened(browser: Browser, address: str, expect: str = "$^", **options) -> Iterator[Page]:
    """A page of a service, in a profile of its own.

    Fails if it asks anything of another origin, or says more on its console than a pattern has.
    """
    context = browser.new_context(base_url=address, **options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    said: list[str] = []
    elsewhere: list[str] = []
    origin = "/".join(address.split("/")[:3])
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))

    def asked(request) -> None:
        if not request.url.startswith((f"{address}/", f"blob:{origin}/", "data:")):
            elsewhere.append(request.url)

    def failed(request) -> None:
        if request.failure == "csp":  # which the browser did not send
            elsewhere.remove(request.url)

    page.on("request", asked)
    page.on("requestfailed", failed)
    try:
        yield page
    finally:
        context.close()
    assert elsewhere == []
    assert [each for each in said if not re.search(expect, each)] == []


Served = Callable[..., AbstractContextManager[str]]
Opened = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="session")
def served() -> Served:
    """`with served(folder, "search.k=3", key="...") as address`."""
    return _served


@pytest.fixture(scope="session")
def opened() -> Opened:
    """`with opened(browser, address, "404") as page`."""
    return _opened
