"""The page, the documentation and the answers below a path of a proxy, in a real Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import expect

from tests.page import proxies

pytestmark = pytest.mark.slow

expect.set_options(timeout=60_000)
TILES = "#grid .tile:not(.skeleton)"
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="no nginx is installed (on Debian: nginx-light)"
)
PROXIES = [proxies.plain, pytest.param(proxies.nginx, marks=needs_nginx)]


@pytest.mark.parametrize(
    ("proxy", "key"),
    [
        (proxies.plain, None),
        (proxies.plain, "open sesame"),
        pytest.param(proxies.nginx, None, marks=needs_nginx),
    ],
)
def test_all_of_the_page_works_below_a_path(
    served, opened, browser, run_folder: Path, photos: Path, tmp_path: Path, proxy, key
):
    with (
        served(run_folder, key=key) as service,
        proxy(service, tmp_path) as address,
        opened(browser, address, "401") as page,  # fails if anything is asked above the path
    ):
        page.goto(f"{address}/")
        if key is not None:
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
        page.locator("#random .tile a").first.click()
        page.wait_for_selector(TILES)
        assert page.url.startswith(f"{address}/?id=")
        page.wait_for_function(
            "() => [...document.querySelectorAll('#grid img')].some(each => each.naturalWidth)"
        )
        page.set_input_files("#choose", photos / "green" / "03.jpg")
        expect(page.locator("#results-title")).to_contain_text("nearest images")
        expect(page.locator("#query-name")).to_have_text("03.jpg")
        page.get_by_role("button", name="Map").click()
        expect(page.locator("#map .heading")).to_contain_text("PCA of 36 images")
        page.locator(f"{TILES} a").nth(1).click()
        page.wait_for_url(f"{address}/?id=*")
        page.reload()
        page.wait_for_selector(TILES)
        page.go_back()
        page.get_by_label("Start").click()
        expect(page.locator("#start")).to_be_visible()
        assert page.url == f"{address}/"
        page.get_by_role("link", name="API").click()
        page.wait_for_selector(".opblock-summary-path")
        assert page.url == f"{address}/docs"


@pytest.mark.parametrize("proxy", PROXIES)
def test_swagger_asks_the_service_below_the_path(
    served, opened, browser, run_folder: Path, tmp_path: Path, proxy
):
    with (
        served(run_folder) as service,
        proxy(service, tmp_path) as address,
        opened(browser, address) as page,
    ):
        page.goto(f"{address}/docs")
        page.locator("#operations-default-info_info_get .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        with page.expect_response("**/info") as answer:
            page.get_by_role("button", name="Execute").click()
        assert answer.value.url == f"{address}/info" and answer.value.status == 200


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_addresses_of_an_answer_hold_below_a_path(
    served, browser, run_folder: Path, tmp_path: Path, proxy
):
    with served(run_folder) as service, proxy(service, tmp_path) as address:
        context = browser.new_context()
        for asked in ("search", "gallery/random"):
            url = f"{address}/{asked}"
            if asked == "search":
                answer = context.request.post(url, data={"id": "red/00.jpg"}).json()["neighbours"]
            else:
                answer = context.request.get(url).json()["images"]
            for kind in ("image", "thumbnail"):
                shown = context.request.get(urljoin(url, answer[0][kind]))
                assert shown.status == 200 and shown.headers["content-type"] == "image/jpeg"
        context.close()
