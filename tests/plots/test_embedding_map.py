"""The embedding map as a picture and as a page."""

from __future__ import annotations

import base64
import html
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from cbir_tf.errors import UserError
from cbir_tf.plots.embedding_map import (
    _figure,
    _interactive,
    embedding_map_html,
    embedding_map_png,
    thumbnail,
)
from cbir_tf.plots.style import PALETTE, UNLABELLED_COLOUR

LABELS = np.array([0, 2, 1, -1, 2, 0])
POINTS = np.arange(12, dtype=np.float32).reshape(6, 2)
NAMES = ("coat", "hat", "shoe")


def _drawn(figure) -> dict[tuple[float, float], str]:
    """The colour at each point, read from what is drawn."""
    return {
        tuple(point): to_hex(dots.get_facecolor()[0])
        for dots in figure.axes[0].collections
        for point in dots.get_offsets().tolist()
    }


def test_each_point_has_the_colour_of_its_class():
    drawn = _drawn(_figure(POINTS, LABELS, NAMES, "map"))
    expected = [UNLABELLED_COLOUR if label < 0 else PALETTE[label] for label in LABELS]
    assert drawn == {
        tuple(point): each for point, each in zip(POINTS.tolist(), expected, strict=True)
    }


def test_points_in_space_have_the_colour_of_their_class(tmp_path):
    points = np.arange(18, dtype=np.float32).reshape(6, 3)
    names = ("first", "second", "third")
    (axes,) = _figure(points, LABELS, NAMES, "space", names).axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == names
    drawn = {
        dots.get_label(): np.stack([np.ma.getdata(each) for each in dots._offsets3d], axis=1)
        for dots in axes.collections
    }
    assert drawn.keys() == {"unlabelled", *NAMES}
    for label, name in enumerate(NAMES):
        np.testing.assert_array_equal(drawn[name], points[label == LABELS])
    path = embedding_map_png(tmp_path / "space.png", points, LABELS, NAMES, "space", names)
    with Image.open(path) as picture:
        assert min(picture.size) > 900
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        embedding_map_png(path, points[:, :2], LABELS, NAMES, "space", names)


def test_the_legend_names_the_classes_that_are_there():
    names = ["a_$x$_b", "nobody", "a name far too long for any legend, of " + "x" * 80]
    figure = _figure(POINTS[:2], np.array([0, 2]), names, "map")
    first, second = (each.get_text() for each in figure.axes[0].get_legend().get_texts())
    assert first == "a_$x$_b"
    assert len(second) < 40
    assert second.startswith("a name")
    assert "…" in second


def test_classes_beyond_the_palette_differ_by_shape():
    labels = np.arange(30)
    figure = _figure(np.random.default_rng(0).normal(size=(30, 2)), labels, [*map(str, labels)], "")
    looks = {
        (to_hex(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in figure.axes[0].collections
    }
    assert len(looks) == 30


def test_the_page_has_a_bounded_legend_whatever_the_number_of_classes():
    labels = np.concatenate([np.arange(3000), np.repeat([5, 7], 4)])
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    small = thumbnail(np.zeros((4, 4, 3), np.uint8))
    names = [f"class {each}" for each in range(3000)]
    plot = _interactive(
        points, labels, names, [*map(str, range(len(labels)))], [small] * len(labels), "map"
    )
    entries = plot.legend[0].items
    assert len(entries) == len(plot.renderers) == 121
    shown = [entry.label.value for entry in entries]
    assert shown[-1] == "2,880 others"
    assert {"class 5", "class 7"} <= set(shown)
    drawn = np.concatenate([dots.data_source.data["label"] for dots in plot.renderers])
    assert sorted(drawn) == sorted(names[each] for each in labels)


@pytest.mark.parametrize("count", [0, 1, 400])
def test_a_picture_is_written_for_any_number_of_points(tmp_path, count):
    points = np.random.default_rng(0).normal(size=(count, 2))
    path = embedding_map_png(tmp_path / "map.png", points, np.zeros(count, int), ["only"], "one")
    with Image.open(path) as picture:
        assert min(picture.size) >= 900
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert (len(colours) > 2) or count == 0
    assert [each.name for each in tmp_path.iterdir()] == ["map.png"]


def test_labels_that_count_past_the_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"labels must be within -1\.\.2"):
        embedding_map_png(tmp_path / "map.png", POINTS, LABELS + 1, NAMES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((300, 100, 3), (21, 64)), ((10, 20), (20, 10)), ((8, 8, 1), (8, 8)), ((2000, 1), (1, 64))],
)
def test_a_thumbnail_is_a_small_jpeg_of_the_same_proportions(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(thumbnail(pixels))) as picture:
        assert picture.format == "JPEG"
        assert picture.mode == "RGB"
        assert picture.size == expected


def test_transparent_pixels_become_white_in_a_thumbnail():
    with Image.open(io.BytesIO(thumbnail(np.zeros((16, 16, 4), np.uint8)))) as picture:
        assert picture.getextrema() == ((255, 255),) * 3


def test_a_thumbnail_of_floats_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(np.zeros((4, 4, 3)))


class _Page(HTMLParser):
    """Scripts, and every address that the page's own tags would load."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.addresses: list[str] = []
        self.scripts: list[tuple[dict, str]] = []
        self.title = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self._open = tag
        self.addresses += [
            found[each] for each in ("src", "href", "data", "action") if each in found
        ]
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_data(self, data):
        if self._open == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self._open == "title":
            self.title += data

    def handle_endtag(self, tag):
        self._open = ""

    def columns(self) -> list[dict]:
        """The data behind each class's points."""
        (text,) = [text for found, text in self.scripts if found.get("type") == "application/json"]
        found: list[dict] = []

        def visit(value):
            if isinstance(value, dict):
                if value.get("name") == "ColumnDataSource":
                    found.append(dict(value["attributes"]["data"]["entries"]))
                value = list(value.values())
            if isinstance(value, list):
                for each in value:
                    visit(each)

        visit(json.loads(html.unescape(text)))
        return found


def _page(path, ids, names=NAMES, title="map"):
    thumbnails = [thumbnail(np.full((9, 9, 3), 40 * each, np.uint8)) for each in range(len(ids))]
    written = embedding_map_html(path, POINTS, LABELS, names, ids, thumbnails, title)
    return _Page(written.read_text(encoding="utf-8")), thumbnails


def test_the_page_asks_nothing_of_the_network(tmp_path):
    page, _ = _page(tmp_path / "map.html", [f"{each}.jpg" for each in range(6)])
    assert page.addresses == []
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "@import" not in text
    policy = text.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_carries_each_image_id_and_class(tmp_path):
    ids = ["a.jpg", "b.jpg", "ö/ü.jpg", "d.jpg", "e.jpg", "f.jpg"]
    page, thumbnails = _page(tmp_path / "map.html", ids)
    carried = {
        id_: (label, base64.b64decode(address.removeprefix("data:image/jpeg;base64,")))
        for columns in page.columns()
        for id_, label, address in zip(
            columns["id"], columns["label"], columns["thumbnail"], strict=True
        )
    }
    names = ["unlabelled" if label < 0 else NAMES[label] for label in LABELS]
    assert carried == dict(zip(ids, zip(names, thumbnails, strict=True), strict=True))


def test_names_cannot_break_out_of_the_page(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    plain, _ = _page(tmp_path / "plain.html", [*"abcdef"])
    page, _ = _page(
        tmp_path / "map.html",
        [hostile, "\udcff.jpg", "{{ 7 * 7 }}", "a&b", '"', "&lt;"],
        names=(hostile, "$$x$$", "<b>shoe</b>"),
        title=f"{hostile} $$x$$",
    )
    assert len(page.scripts) == len(plain.scripts)
    assert "alert" in page.title
    ids = {each for columns in page.columns() for each in columns["id"]}
    assert ids == {hostile, "?.jpg", "{{ 7 * 7 }}", "a&b", '"', "&lt;"}


def test_five_thousand_points_make_a_file_under_25_megabytes(tmp_path):
    count = 5000
    rng = np.random.default_rng(0)
    photos = [
        thumbnail(
            np.kron(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        )
        for _ in range(20)
    ]
    path = embedding_map_html(
        tmp_path / "map.html",
        rng.normal(size=(count, 2)),
        rng.integers(0, 10, count),
        [*map(str, range(10))],
        [f"some/folder/{each}.jpg" for each in range(count)],
        (photos * count)[:count],
    )
    assert path.stat().st_size < 25e6


def test_bytes_that_are_not_an_image_are_refused_as_a_thumbnail(tmp_path):
    with pytest.raises(ValueError, match="JPEG or PNG"):
        embedding_map_html(tmp_path / "a.html", POINTS[:1], LABELS[:1], NAMES, ["a"], [b"<svg/>"])
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "map.html").mkdir()
    with pytest.raises(UserError, match=r"map\.html: cannot be written"):
        _page(tmp_path / "map.html", [*"abcdef"])
    assert [each.name for each in tmp_path.iterdir()] == ["map.html"]
