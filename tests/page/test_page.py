"""The page in a real Chromium before a real service."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from cbir_tf import Retriever
from cbir_tf.commands.cli import main
from cbir_tf.plots.style import PALETTE, UNLABELLED_COLOUR

pytestmark = pytest.mark.slow

expect.set_options(timeout=60_000)
TILES = "#grid .tile:not(.skeleton)"
PAGE = Path(__file__).parents[2] / "cbir_tf/server/page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Path:
    """A calibrated run."""
    folder = Path(shutil.copytree(trained_folder, tmp_path_factory.mktemp("page") / "run"))
    assert main(["calibrate", "--run", str(folder), "--false-match-rate", "0.2"]) == 0
    return folder


@pytest.fixture(scope="module")
def address(served, folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@pytest.fixture
def page(opened, browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def photo(photos: Path) -> Path:
    return photos / "green" / "03.jpg"


def ids(page: Page) -> list[str]:
    return page.eval_on_selector_all(TILES, "tiles => tiles.map(tile => tile.dataset.id)")


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(f"{TILES} {selector}").all_inner_texts()


def upload(page: Page, picture: Path) -> None:
    with page.expect_response("**/search"):
        page.set_input_files("#choose", picture)
    page.wait_for_selector("#results:not([aria-busy])")


def settled(page: Page) -> None:
    page.wait_for_selector("#results:not([aria-busy])")


def test_an_uploaded_picture_finds_what_the_retriever_finds(page, folder, photo):
    page.goto("/?k=7")
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()
    upload(page, photo)
    retriever = Retriever.open(folder)
    right = retriever.search(photo.read_bytes(), 7)
    retriever.close()
    assert ids(page) == right.ids[0].tolist()
    assert [float(each) for each in texts(page, ".distance")] == pytest.approx(
        right.distances[0].tolist(), abs=0.0006
    )
    assert texts(page, ".name") == [each.split("/")[0] for each in right.ids[0]]
    assert page.locator("#live").inner_text().startswith("7 results; the nearest: green")
    # The same file is an image of the gallery, at no distance.
    assert page.locator(".verdict").inner_text().startswith("A match.")
    assert "ms" in page.locator("#timings").inner_text()


def test_an_image_unlike_all_others_is_no_match(page):
    page.goto("/?id=red%2F01.jpg&label=blue")
    note = page.locator(".verdict.none")
    expect(note).to_have_text(re.compile(r"No match\. .* Of out-of-gallery queries, \d+ %"))
    page.get_by_label("Re-ranking").select_option("k_reciprocal")
    expect(page.locator("#verdict")).to_contain_text("k-reciprocal re-ranking")
    expect(note).to_have_count(0)


GIVE = """([kind, picture]) => {
  const bytes = Uint8Array.from(atob(picture), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pasted_and_dropped_pictures_are_searched_for(page, photo, kind):
    page.goto("/")
    page.wait_for_selector("#start:not([hidden])")
    page.evaluate(GIVE, [kind, base64.b64encode(photo.read_bytes()).decode()])
    page.wait_for_selector(TILES)
    assert ids(page)[0] == "green/03.jpg"
    expect(page.locator("#query-name")).to_have_text("given.jpg")


def test_a_photo_comes_from_the_camera_behind(page):
    page.goto("/")
    assert page.get_attribute("#photograph", "capture") == "environment"
    assert page.get_attribute("#photograph", "accept") == "image/*"


def test_filters_ranking_and_k_change_the_results(page):
    page.goto("/?id=red%2F01.jpg")
    page.wait_for_selector(TILES)
    assert len(ids(page)) == 24 and "red/01.jpg" not in ids(page)
    with page.expect_response("**/search"):
        page.get_by_role("checkbox", name="blue").check()
    settled(page)
    assert set(texts(page, ".name")) == {"blue"} and len(ids(page)) == 12
    with page.expect_response("**/search"):
        page.get_by_label("Split").select_option("test")
    settled(page)
    assert 0 < len(ids(page)) < 12
    with page.expect_response("**/search"):
        page.get_by_role("spinbutton").fill("2")
    settled(page)
    assert len(ids(page)) == 2
    with page.expect_response("**/search") as answer:
        page.get_by_label("Class first").select_option("knn")
    assert json.loads(answer.value.request.post_data)["two_step"] == "knn"
    expect(page.locator("#verdict")).to_contain_text("Taken for red")
    # The address has it all.
    page.reload()
    expect(page.get_by_role("checkbox", name="blue")).to_be_checked()
    assert page.get_by_role("spinbutton").input_value() == "2"
    page.get_by_role("button", name="Clear filters").click()
    settled(page)
    expect(page.get_by_role("checkbox", name="blue")).not_to_be_checked()


def test_a_result_is_searched_from_and_the_history_leads_back(page):
    page.goto("/")
    page.locator("#random .tile a").first.click()
    page.wait_for_selector(TILES)
    first = ids(page)
    page.locator(f"{TILES} a").nth(2).focus()
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    settled(page)
    assert page.evaluate("new URLSearchParams(location.search).get('id')") == first[2]
    assert page.locator("#results-title").evaluate("title => title === document.activeElement")
    assert ids(page) != first
    with page.expect_response("**/search"):
        page.go_back()
    settled(page)
    assert ids(page) == first
    page.go_back()
    expect(page.locator("#start")).to_be_visible()
    with page.expect_response("**/search"):
        page.go_forward()
    settled(page)
    assert ids(page) == first


WATCH = """const send = window.fetch;
window.fetch = (path, options) => {
  if (options?.body instanceof FormData) window.sent = options.body.get("file");
  return send(path, options);
};"""
SENT = """async () => {
  const address = new FileReader();
  address.readAsDataURL(window.sent);
  await new Promise((done) => (address.onload = done));
  return address.result.split(",")[1];
}"""


def sent_picture(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(page.evaluate(SENT))))


def test_a_part_is_searched_for_by_keyboard_and_by_pointer(page, photo):
    page.add_init_script(WATCH)
    page.goto("/")
    upload(page, photo)
    whole = Image.open(photo)
    page.get_by_role("button", name="Crop").click()
    page.get_by_role("button", name="Corner, top left").focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")  # from .15 to .45
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    sent = sent_picture(page)
    assert sent.size == (round(0.4 * 64), round(0.7 * 48))
    expect(page.get_by_role("button", name="Crop")).to_be_focused()
    cut = whole.crop((29, 7, 29 + sent.width, 7 + sent.height))
    assert np.abs(np.asarray(sent.convert("RGB"), float) - np.asarray(cut, float)).mean() < 12
    settled(page)
    page.get_by_role("button", name="Crop").click()
    corner = page.locator(".corner.bottom-right").bounding_box()
    page.mouse.move(corner["x"] + 14, corner["y"] + 14)
    page.mouse.down()
    # No smaller than a twentieth; the frame follows every move.
    page.mouse.move(corner["x"] - 1000, corner["y"] - 1000, steps=20)
    page.mouse.up()
    with page.expect_response("**/search"):
        page.get_by_role("button", name="Search this part").click()
    assert sent_picture(page).size == (round(0.05 * 64), round(0.05 * 48))
    settled(page)
    with page.expect_response("**/search"):
        page.get_by_role("button", name="Whole picture").click()
    assert sent_picture(page).format == "JPEG"  # the file as it came


def test_a_late_answer_is_dropped(page):
    page.goto("/?id=red%2F01.jpg")
    page.wait_for_selector(TILES)
    held = []
    page.route("**/search", lambda route: held.append(route) if not held else route.continue_())
    page.get_by_role("spinbutton").fill("3")
    page.wait_for_function("() => document.querySelector('#results').ariaBusy === 'true'")
    page.get_by_role("spinbutton").fill("5")
    expect(page.locator(TILES)).to_have_count(5)
    held[0].continue_()  # with its answer of three
    page.wait_for_timeout(500)
    assert len(ids(page)) == 5 and page.locator("#problem").is_hidden()


INK = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, place) => place % 4 === 3 && value > 40).length / (data.length / 4);
}"""


def test_the_map_shows_the_query_and_is_searched_from(page, address):
    page.goto("/?id=red%2F01.jpg&map")
    expect(page.locator("#map .heading")).to_contain_text("PCA of 36 images")
    points = page.request.get("/map").json()["points"]
    expect(page.locator(".legend button")).to_have_count(3)
    canvas = page.locator("#map canvas")
    page.wait_for_timeout(100)
    assert 0.001 < canvas.evaluate(INK) < 0.5
    # The middle of the map is the middle of its points: by the keyboard the nearest is chosen.
    x, y = (np.array([each[axis] for each in points]) for axis in "xy")
    box = canvas.bounding_box()
    scale = min((box["width"] - 48) / np.ptp(x), (box["height"] - 48) / np.ptp(y))
    right, down = ((x - (x.min() + np.ptp(x) / 2)) * scale, ((y.min() + np.ptp(y) / 2) - y) * scale)
    middle = points[int(np.hypot(right, down).argmin())]["id"]
    page.get_by_role("button", name="Whole").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#live")).to_contain_text(middle)
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    settled(page)
    assert page.evaluate("new URLSearchParams(location.search).get('id')") == middle
    # By the pointer: a point that has no other beside it.
    far = np.hypot(right[:, None] - right, down[:, None] - down)
    alone = int((far + 1e9 * np.eye(len(points))).min(axis=1).argmax())
    place = {
        "x": box["width"] / 2 + right[alone],
        "y": box["height"] / 2 + down[alone],
    }
    canvas.hover(position=place)
    expect(page.locator(".tip")).to_contain_text(points[alone]["label"])
    page.wait_for_load_state("networkidle")
    with page.expect_request("**/thumbnails/*"):  # few are left, and shown as pictures
        page.mouse.wheel(0, -300)  # zooms about the pointer, under which the point stays
    with page.expect_response("**/search"):
        canvas.click(position=place)
    assert page.evaluate("new URLSearchParams(location.search).get('id')") == points[alone]["id"]


def test_on_a_phone_the_map_and_errors_come_into_view(opened, browser, address, tmp_path):
    (text := tmp_path / "notes.txt").write_text("no picture")
    with opened(browser, address, "422", viewport={"width": 375, "height": 740}) as page:
        page.goto("/?id=red%2F01.jpg")
        settled(page)
        page.locator("#options summary").click()
        page.get_by_role("button", name="Map").click()
        expect(page.locator("#map")).to_be_in_viewport()
        page.evaluate("scrollTo(0, 0)")
        page.set_input_files("#choose", text)
        expect(page.locator("#problem")).to_be_in_viewport()


def test_a_query_has_a_point_on_the_map(page, photo):
    page.goto("/?map")
    expect(page.locator("#map .heading")).to_contain_text("PCA of 36 images")
    with page.expect_response("**/search") as answer:
        page.set_input_files("#choose", photo)
    position = answer.value.json()["position"]
    point = next(
        each for each in page.request.get("/map").json()["points"] if each["id"] == "green/03.jpg"
    )
    assert position == pytest.approx([point["x"], point["y"]], abs=0.05)


def test_why_a_result_matches(page):
    page.goto("/?id=red%2F01.jpg&k=3")
    page.locator(TILES).first.hover()
    with page.expect_response("**/explain", timeout=90_000) as answer:
        page.get_by_role("button", name="Why result 1 matches").click()
    told = answer.value.json()
    dialog = page.get_by_role("dialog", name="Why result 1 matches")
    expect(dialog).to_contain_text(f"Cosine similarity {told['similarity']:.3f}")
    overlays = dialog.locator("canvas")
    assert all(overlays.nth(each).evaluate(INK) > 0.001 for each in (0, 1))
    rows, columns = len(told["query"]), len(told["query"][0])
    overlays.first.focus()
    page.keyboard.press("ArrowRight")
    share = told["query"][rows // 2][(columns // 2 + 1) % columns]
    expect(dialog).to_contain_text(f"This place contributes {share:.3f} of")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_errors_are_words_with_a_way_on(opened, browser, address, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with opened(browser, address, "422|404|ERR_INTERNET_DISCONNECTED") as page:
        page.goto("/")
        upload(page, tmp_path / "notes.png")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("Not a JPEG, PNG, WebP, BMP or GIF picture.")
        expect(alert.get_by_role("button", name="Choose another picture")).to_be_visible()
        expect(page.locator("#query-unseen")).to_be_visible()
        page.goto("/?id=gone.jpg")
        expect(alert).to_contain_text("This image is not in the gallery.")
        page.goto("/?id=red%2F01.jpg&label=red&split=nowhere")
        expect(alert).to_contain_text("No image meets these filters.")
        alert.get_by_role("button", name="Clear filters").click()
        page.wait_for_selector(TILES)
        page.context.set_offline(True)
        page.get_by_role("spinbutton").fill("3")
        expect(alert).to_contain_text("The service does not answer.")
        page.context.set_offline(False)
        alert.get_by_role("button", name="Try again").click()
        expect(page.locator(TILES)).to_have_count(3)
        page.goto("/?picture=before")
        expect(alert).to_contain_text("Choose it again.")


def test_the_page_asks_for_the_key_and_reports_a_missing_explanation(
    opened, served, browser, folder, tmp_path
):
    views = Path(shutil.copytree(folder, tmp_path / "views"))
    config = (views / "config.yaml").read_text()
    changed = config.replace("test_time_augmentation: none", "test_time_augmentation: flip")
    assert changed != config
    (views / "config.yaml").write_text(changed)
    for each in [*views.glob("features.db*"), views / "no_match.json"]:
        each.unlink()
    assert main(["extract", "--run", str(views), "--split", "all"]) == 0
    with (
        served(views, key="open sesame") as address,
        opened(browser, address, "401") as page,
    ):
        page.goto("/?id=red%2F01.jpg&k=4")
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-said")).to_contain_text("not the service's")
        page.get_by_label("API key").fill("open sesame")
        page.keyboard.press("Enter")
        expect(page.locator(TILES)).to_have_count(4)
        assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
        # Pictures come with the key too.
        page.wait_for_function(
            "() => [...document.querySelectorAll('#grid img')].every(each => each.naturalWidth)"
        )
        page.locator(TILES).first.hover()
        page.get_by_role("button", name="Why result 1 matches").click()
        expect(page.get_by_role("dialog")).to_contain_text(
            "This run cannot say why images match: its vectors are means over several views"
        )


def test_an_empty_gallery_shows_the_command_that_fills_it(
    opened, served, browser, folder, photos, tmp_path
):
    empty = Path(shutil.copytree(folder, tmp_path / "empty"))
    for each in empty.glob("features.db*"):
        each.unlink()
    shutil.rmtree(empty / "index")
    with served(empty) as address, opened(browser, address) as page:
        page.goto("/")
        title = page.get_by_role("heading", name="There are no images to search yet")
        expect(title).to_be_visible()
        expect(page.locator("#empty")).to_contain_text("cbir extract --run RUN --images FOLDER")
        for number, name in enumerate(("red", "green", 'blue, "dark"')):
            fields = {"label": name, "metadata": json.dumps({"year": 2020 + number})}
            content = (photos / name.split(",")[0] / "01.jpg").read_bytes()
            file = {"name": "1", "mimeType": "image/jpeg", "buffer": content}
            added = page.request.post("/images", multipart={**fields, "file": file})
            assert added.status == 201, added.text()
        page.get_by_role("button", name="Look again").click()
        page.locator("#random .tile a[aria-label*=green]").click()
        expect(page.locator(TILES)).to_have_count(2)
        page.get_by_label("Comparison").select_option(">=")
        page.get_by_label("Value").fill("2022")
        page.keyboard.press("Enter")
        expect(page.locator(TILES)).to_have_count(1)
        assert texts(page, ".name") == ['blue, "dark"']
        page.get_by_role("button", name="Remove the filter year>=2022").click()
        expect(page.locator(TILES)).to_have_count(2)
        page.get_by_role("checkbox", name="blue").check()
        expect(page.locator(TILES)).to_have_count(1)
        assert texts(page, ".name") == ['blue, "dark"']


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_nothing_bars_people(opened, browser, address, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    views = ["/", "/?id=red%2F01.jpg&k=4&map&label=red", "/?id=red%2F01.jpg&label=none"]
    size = {"width": width, "height": 800}
    with opened(browser, address, "422", viewport=size, color_scheme=scheme) as page:
        for view in views:
            page.goto(view)
            page.wait_for_selector(f"#random .tile:not(.skeleton), {TILES}, #problem:visible")
            if "map" in view:
                expect(page.locator(".legend button")).to_have_count(3)
            page.wait_for_selector("#results:not([aria-busy])", state="attached")
            found = axe.run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_is_reached_by_tab_and_seen(page):
    page.goto("/?id=red%2F01.jpg&k=2&map")
    expect(page.locator(".legend button")).to_have_count(3)
    page.wait_for_selector(TILES)
    for _ in range(80):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => {
              const now = document.activeElement;
              if (now === document.body || "reached" in now.dataset) return "";
              now.dataset.reached = "";
              const { outlineStyle, outlineWidth } = getComputedStyle(now);
              return outlineStyle === "none" || outlineWidth === "0px" ? now.outerHTML : "";
            }"""
        )
        assert seen == ""  # else a control whose focus is not to be seen
    controls = ":is(a[href], button, input, select, summary, canvas):not([tabindex='-1'])"
    missed = page.locator(f"{controls}:not([data-reached]):visible")
    assert missed.evaluate_all("all => all.map(each => each.outerHTML)") == []
    assert page.locator("[data-reached]").count() > 25


def test_classes_have_the_colours_of_the_plots():
    text = (PAGE / "colours.js").read_text(encoding="utf-8")
    assert tuple(re.findall(r'^  "(#\w{6})",$', text, re.M)) == PALETTE
    assert f'UNLABELLED = "{UNLABELLED_COLOUR}"' in text


@pytest.mark.parametrize(
    ("address", "shown"), [("/docs", ".opblock-summary-path"), ("/redoc", "[id*=search]")]
)
def test_the_documentation_needs_no_other_address(browser, served, opened, folder, address, shown):
    # ReDoc's own logo is elsewhere, and the page may not load it.
    with served(folder) as service, opened(browser, service, "cdn.redoc.ly") as page:
        page.goto(address)
        page.wait_for_selector(shown)
        assert "/search" in page.inner_text("body")
