"""The common look, text that fits, and files that are there whole or not at all."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.artist import Artist
from PIL import Image

from cbir_tf.errors import UserError
from cbir_tf.plots.style import (
    PALETTE,
    UNLABELLED_COLOUR,
    appearance,
    clean,
    fitted,
    new_figure,
    note,
    save,
    shortened,
    text_width,
)


class _Broken(Artist):
    """Fails in the midst of drawing."""

    def draw(self, renderer):
        raise RuntimeError("broken")


def test_a_figure_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = save(note("first"), tmp_path / "plot.png")
    before = path.read_bytes()
    figure = new_figure(2, 2)
    figure.add_artist(_Broken())
    with pytest.raises(RuntimeError, match="broken"):
        save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(UserError, match=r"plot\.png: cannot be written"):
        save(note("text"), tmp_path / "plot.png")
    assert [each.name for each in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_suffix_names_the_format(tmp_path, suffix):
    with Image.open(save(note("text"), tmp_path / f"plot.{suffix}")) as picture:
        assert picture.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
        assert picture.size == (900, 300)


@pytest.mark.parametrize("name", ["plot.pngg", "plot", "plot.txt"])
def test_an_unknown_format_is_named(tmp_path, name):
    with pytest.raises(UserError, match="no picture format"):
        save(note("text"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_users_own_settings_are_put_back_and_left_out(tmp_path):
    plain = save(note("a $x^2$"), tmp_path / "plain.png").read_bytes()
    with matplotlib.rc_context({"text.color": "red", "font.size": 30, "text.parse_math": True}):
        before = dict(matplotlib.rcParams)
        assert save(note("a $x^2$"), tmp_path / "own.png").read_bytes() == plain
        assert dict(matplotlib.rcParams) == before


def test_pictures_can_be_drawn_from_several_threads(tmp_path):
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda each: save(note("same"), tmp_path / f"{each}.png"), range(8)))
    assert len({path.read_bytes() for path in paths}) == 1
    assert dict(matplotlib.rcParams) == before


@given(st.text(max_size=60), st.integers(1, 40))
def test_shortened_text_keeps_its_ends(text, length):
    whole, short = clean(text), shortened(text, length)
    assert len(short) <= length
    if len(whole) <= length:
        assert short == whole
    else:
        head, _, tail = short.partition("…")
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) - len(tail) in (0, 1)


@given(st.text(max_size=40), st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_fitted_text_is_never_wider_than_its_place(text, width):
    short = fitted(text, width, 10)
    assert text_width(short, 10) <= width
    assert short.isprintable()
    if text_width(clean(text), 10) <= width:
        assert short == clean(text)


def lab(colours: list[str], seen: np.ndarray) -> np.ndarray:
    """(N, 3) CIELAB, for D65, of what eyes make of sRGB colours."""
    rgb = np.array([[int(each[place : place + 2], 16) for place in (1, 3, 5)] for each in colours])
    rgb = rgb / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ seen.T, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    x, y, z = np.cbrt(linear @ to_xyz.T / [0.95047, 1, 1.08883]).T  # no colour here is near black
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    """CIEDE2000 difference, as in Sharma et al., Color Research & Application 30 (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * math.sqrt(mean**7 / (mean**7 + 25**7))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0
    hue = math.radians((h1 + turn / 2) % 360)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    weight = (
        1
        - 0.17 * math.cos(hue - math.radians(30))
        + 0.24 * math.cos(2 * hue)
        + 0.32 * math.cos(3 * hue + math.radians(6))
        - 0.20 * math.cos(4 * hue - math.radians(63))
    )
    of_l = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / math.hypot(20**0.5, lightness - 50))
    of_c = (c2 - c1) / (1 + 0.045 * chroma)
    of_h = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2)) / (1 + 0.015 * chroma * weight)
    blue = 60 * math.exp(-(((math.degrees(hue) - 275) / 25) ** 2))
    rotation = -2 * math.sqrt(chroma**7 / (chroma**7 + 25**7)) * math.sin(math.radians(blue))
    return math.sqrt(of_l**2 + of_c**2 + of_h**2 + rotation * of_c * of_h)


# Machado et al. (2009), table 1, severity 1: what is left without one kind of cone.
VISION = {
    "all": np.eye(3),
    "without red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("vision", VISION)
def test_the_colours_of_classes_differ_with_every_kind_of_colour_vision(vision):
    seen = lab([*PALETTE, UNLABELLED_COLOUR], np.asarray(VISION[vision]))
    apart = [ciede2000(one, other) for one, other in combinations(seen, 2)]
    assert min(apart) >= (24 if vision == "all" else 12)
    if vision == "all":  # of gray it is about 0
        assert min(math.hypot(a, b) for _, a, b in seen[:-1]) > 30


@pytest.mark.parametrize(
    ("one", "other", "published"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_of_colours_is_as_published(one, other, published):
    assert ciede2000(one, other) == pytest.approx(published, abs=5e-5)


def test_ten_classes_differ_in_colour_and_a_hundred_in_colour_or_shape():
    assert len({appearance(label)[0] for label in range(10)}) == len(PALETTE) == 10
    assert len({appearance(label)[:2] for label in range(100)}) == 100
    assert len({(colour, bokeh) for colour, _, bokeh in map(appearance, range(100))}) == 100
    assert appearance(-1)[0] not in PALETTE
