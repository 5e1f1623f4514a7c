"""The common look, text that fits, and files that are there whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.artist import Artist
from PIL import Image

from cbir_tf.errors import UserError
from cbir_tf.plots.style import (
    PALETTE,
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


def test_ten_classes_differ_in_colour_and_a_hundred_in_colour_or_shape():
    assert len({appearance(label)[0] for label in range(10)}) == len(PALETTE) == 10
    assert len({appearance(label)[:2] for label in range(100)}) == 100
    assert len({(colour, bokeh) for colour, _, bokeh in map(appearance, range(100))}) == 100
    assert appearance(-1)[0] not in PALETTE
