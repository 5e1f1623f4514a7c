"""Sheets of images."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cbir_tf.plots.grids import (
    Member,
    NeighbourRow,
    _group_figure,
    _image_figure,
    _query_figure,
    augmentation_grid,
    group_grid,
    image_grid,
    neighbour_grid,
    query_grid,
    sample_grid,
)
from cbir_tf.plots.style import RIGHT, WRONG, look

GRAY = np.full((40, 40, 3), 128, np.uint8)


def _pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def _places(pixels: np.ndarray, colour: str) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of exactly this colour."""
    return np.argwhere((pixels == np.round(np.array(to_rgb(colour)) * 255)).all(axis=-1))


def _texts(figure) -> list[str]:
    found = [each.get_text() for each in figure.texts]
    return found + [each.get_text() for axes in figure.axes for each in axes.texts]


def _neighbours(correct) -> NeighbourRow:
    count = len(correct)
    return NeighbourRow(GRAY, "q.jpg\nhat", [GRAY] * count, ["coat\n0.5"] * count, correct)


def test_frames_are_green_where_right_and_red_where_wrong(tmp_path):
    for correct in ([True, False], [False, True]):
        row = _neighbours(correct)
        path = tmp_path / "grid.png"
        neighbour_grid(
            path, GRAY, row.query_caption, row.neighbour_images, row.captions, correct, "t"
        )
        pixels = _pixels(path)
        green, red = _places(pixels, RIGHT), _places(pixels, WRONG)
        assert len(green) > 1000
        assert len(red) > 1000
        assert (green[:, 1].max() < red[:, 1].min()) == correct[0]
        assert (red[:, 1].max() < green[:, 1].min()) == correct[1]


def test_a_frame_goes_all_round_its_image(tmp_path):
    path = query_grid(tmp_path / "grid.png", [_neighbours([True])])
    green = _places(_pixels(path), RIGHT)
    (top, left), (bottom, right) = green.min(axis=0), green.max(axis=0)
    inside = _pixels(path)[top + 20 : bottom - 40, left + 20 : right - 60]
    assert (np.abs(inside - 128) <= 1).all()
    for row, column in [(top, left), (top, right), (bottom, left), (bottom, right)]:
        assert [row, column] in green.tolist()


def test_right_and_wrong_have_signs_besides_colours():
    texts = _texts(_query_figure([_neighbours([True, False, False, None])], "t"))
    assert texts.count("✓") == 1
    assert texts.count("✗") == 2


def test_an_image_of_unknown_class_has_neither_frame_nor_sign(tmp_path):
    rows = [_neighbours([None, None])]
    pixels = _pixels(query_grid(tmp_path / "grid.png", rows))
    assert not len(_places(pixels, RIGHT))
    assert not len(_places(pixels, WRONG))
    assert not [each for each in _texts(_query_figure(rows, "t")) if "✓" in each or "✗" in each]


def test_neighbours_are_numbered_and_captioned_in_their_order():
    captions = ["coat\n0.125", "hat\n0.250"]
    row = NeighbourRow(GRAY, "q.jpg\nhat", [GRAY, GRAY], captions, [False, True])
    figure = _query_figure([row], "Nearest 2")
    placed = {text.get_text(): text.get_position() for text in figure.texts}
    assert {"Nearest 2", "query", "q.jpg", "1", "2", "0.125", "0.250"} <= placed.keys()
    assert placed["query"][0] < placed["1"][0] < placed["2"][0]
    assert placed["1"][0] == placed["0.125"][0]
    assert placed["2"][0] == placed["0.250"][0]


def test_many_neighbours_go_on_in_further_lines():
    figure = _query_figure([_neighbours([None] * 23)], "t")
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert heights["1"] == heights["10"] > heights["11"] == heights["20"] > heights["21"]
    assert len(figure.axes) == 24


@pytest.mark.parametrize(("count", "columns", "lines"), [(1, 6, 1), (6, 6, 1), (7, 3, 3)])
def test_images_fill_rows_in_reading_order(count, columns, lines):
    names = [f"image {each}" for each in range(count)]
    figure = _image_figure([GRAY] * count, names, columns, "t")
    places = {each.get_text(): each.get_position() for each in figure.texts}
    order = sorted(names, key=lambda name: (-round(places[name][1], 6), places[name][0]))
    assert order == names
    assert len({round(places[name][1], 6) for name in names}) == lines


def test_small_groups_share_a_line_and_stand_apart():
    sizes = (9, 4, 4, 3)
    groups = [
        [Member(GRAY, "near" if each else "keep", f"{group}-{each}") for each in range(size)]
        for group, size in enumerate(sizes)
    ]
    places = {each.get_text(): each.get_position() for each in _group_figure(groups, "t").texts}
    heights = [
        {round(places[f"{group}-{each}"][1], 6) for each in range(size)}
        for group, size in enumerate(sizes)
    ]
    assert all(len(each) == 1 for each in heights)
    first, second, third, fourth = (each.pop() for each in heights)
    assert first > second == third > fourth
    within, between = (
        places[one][0] - places[other][0] for one, other in [("1-3", "1-2"), ("2-0", "1-3")]
    )
    assert between > 1.2 * within


def test_images_of_any_shape_keep_their_proportions():
    shapes = [(8, 8), (1, 1, 1), (30, 90, 3), (700, 20, 4), (1, 3000, 3)]
    figure = _image_figure([np.zeros(each, np.uint8) for each in shapes], ["a"] * 5, 3, "t")
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    drawn = [box.height * height / (box.width * width) for box in boxes]
    assert drawn[:3] == pytest.approx([1, 1, 1 / 3])
    assert drawn[3] > 20
    assert drawn[4] < 1 / 20
    assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)


def test_the_pixels_shown_are_the_images_own(tmp_path):
    colours = [(200, 30, 10), (10, 90, 200)]
    images = [np.full((50, 50, 3), each, np.uint8) for each in colours]
    pixels = _pixels(sample_grid(tmp_path / "samples.png", images, ["red", "blue"]))
    red, blue = (np.argwhere((np.abs(pixels - each) <= 1).all(axis=-1)) for each in colours)
    assert len(red) > 40_000
    assert len(blue) > 40_000
    assert red[:, 1].max() < blue[:, 1].min()


def test_wide_captions_are_cut_in_the_middle_and_never_touch():
    names = ["W" * 60 + ".jpg", "_$x^2$_" * 9, "日本語" * 20, "\udcff\t" + "i" * 200]
    figure = _image_figure([GRAY] * 4, names, 4, "t" * 500)
    with look():
        boxes = [each.get_window_extent() for each in figure.texts]
    for first, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert not any(box.overlaps(other) for other in boxes[first + 1 :])
    assert any(each.get_text().endswith("W.jpg") for each in figure.texts)


def test_a_missing_image_has_an_empty_place_with_a_note():
    assert "no image" in _texts(_image_figure([None, GRAY], ["gone", "here"], 2, ""))


def test_each_original_stands_before_its_variants(tmp_path):
    original, variant = (200, 30, 10), (10, 90, 200)
    image, other = (np.full((20, 20, 3), each, np.uint8) for each in (original, variant))
    path = augmentation_grid(tmp_path / "a.png", [image] * 2, [[other] * 3] * 2)
    pixels = _pixels(path)
    first, later = (
        np.argwhere((np.abs(pixels - each) <= 1).all(axis=-1)) for each in (original, variant)
    )
    assert first[:, 1].max() < later[:, 1].min()


@pytest.mark.parametrize("draw", [sample_grid, query_grid, augmentation_grid, group_grid])
def test_nothing_to_show_is_still_a_picture(tmp_path, draw):
    arguments = ([],) if draw is query_grid else ([], "t" if draw is group_grid else [])
    with Image.open(draw(tmp_path / "empty.png", *arguments)) as picture:
        assert min(picture.size) > 100


@pytest.mark.slow
def test_a_sheet_of_very_many_rows_stays_within_what_can_be_drawn(tmp_path):
    tiny = np.zeros((2, 2), np.uint8)
    with Image.open(image_grid(tmp_path / "long.png", [tiny] * 130, [""] * 130, 1)) as picture:
        assert picture.height <= 30_000


def test_unequal_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="length"):
        NeighbourRow(GRAY, "q", [GRAY], [], [True])
    with pytest.raises(ValueError, match="shorter"):
        image_grid(tmp_path / "a.png", [GRAY], [])
    assert not list(tmp_path.iterdir())


def test_real_photos_in_a_grid(shared_data, tmp_path):
    with tarfile.open(shared_data / "clothing224.tar") as archive:
        photos = [each for each in archive if each.name.endswith(".jpg")][:3]
        images = [
            np.asarray(Image.open(io.BytesIO(archive.extractfile(each).read())).convert("RGB"))
            for each in photos
        ]
    path = sample_grid(tmp_path / "photos.png", images, [each.name for each in photos])
    assert len(np.unique(_pixels(path).reshape(-1, 3), axis=0)) > 5000
