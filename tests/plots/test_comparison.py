"""The plot of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cbir_tf.errors import UserError
from cbir_tf.plots.comparison import comparison_plot
from cbir_tf.plots.style import appearance


def run(name: str, value: float, intervals: bool = True):
    figures = {f"{figure}@{k}": value for figure in ("recall", "precision") for k in (1, 10)}
    figures["map"] = value
    spread = {each: [value - 0.05, value + 0.05] for each in figures}
    return {
        "run": name,
        "figures": figures,
        "intervals": spread if intervals else {},
        "images_per_second": {"median": 100 * value, "low": 1, "high": 2},
    }


def has_colour(path, number: int) -> bool:
    colour = [int(appearance(number)[0][each : each + 2], 16) for each in (1, 3, 5)]
    return bool((np.asarray(Image.open(path).convert("RGB")) == colour).all(axis=2).sum() > 50)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_every_run_has_its_colour(tmp_path, count):
    runs = [run(f"run {number}", 0.2 + number / 20) for number in range(count)]
    path = comparison_plot(tmp_path / "plot.png", runs)
    assert Image.open(path).width > 1000
    assert [has_colour(path, number) for number in range(10)] == [
        number < count for number in range(10)
    ]


def test_runs_without_intervals_and_with_odd_names_are_drawn(tmp_path):
    names = ["$x_{1}$", "_hidden", "名前" * 40, ""]
    runs = [run(name, 1.0, intervals=False) for name in names]
    assert Image.open(comparison_plot(tmp_path / "plot.png", runs)).width > 1000


def test_a_file_that_cannot_be_written_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        comparison_plot(tmp_path / "file" / "plot.png", [run("a", 0.5)])
