"""Curves of training."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir_tf.plots.curves import (
    _loss_figure,
    _rate_figure,
    learning_rate_curve,
    loss_curves,
    rate_name,
)

NAN = float("nan")
HISTORY = {
    "loss": [0.5, 0.3, 0.2, 0.1],
    "val_loss": [0.6, 0.4, 0.3, 0.5],
    "val_recall@1": [0.2, 0.5, 0.6, 0.7],
    "val_map_at_r": [0.1, 0.2, 0.3, 0.4],
    "val_mean_distance": [1.0, 1.1, 1.2, 1.3],
    "learning_rate": [1e-4] * 4,
}


def _lines(axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def _marked(axes) -> list[float]:
    return [line.get_xdata()[0] for line in axes.lines if line.get_label().startswith("best")]


def test_losses_stand_in_one_panel_and_retrieval_in_the_other():
    losses, retrieval = _loss_figure(HISTORY, None).axes
    drawn = _lines(losses)
    assert drawn["training"] == HISTORY["loss"]
    assert drawn["validation"] == HISTORY["val_loss"]
    drawn = _lines(retrieval)
    assert drawn["recall@1"] == HISTORY["val_recall@1"]
    assert drawn["MAP@R"] == HISTORY["val_map_at_r"]
    assert "mean_distance" not in drawn
    assert losses.get_xlabel() == retrieval.get_xlabel() == "epoch"


def test_the_best_epoch_is_marked_in_both_panels():
    assert [_marked(axes) for axes in _loss_figure(HISTORY, 3).axes] == [[3], [3]]
    assert [_marked(axes) for axes in _loss_figure(HISTORY, None).axes] == [[], []]


def test_values_that_are_not_finite_are_left_out_and_named():
    (axes,) = _loss_figure({"loss": [0.5, NAN, 0.2], "val_loss": [0.5, math.inf, 0.6]}, None).axes
    drawn = _lines(axes)
    np.testing.assert_array_equal(drawn["training"], [0.5, NAN, 0.2])
    np.testing.assert_array_equal(drawn["validation"], [0.5, NAN, 0.6])
    assert axes.get_title(loc="right") == "not finite: epoch 2"
    assert _marked(axes) == []


@given(
    st.dictionaries(
        st.sampled_from(["loss", "val_loss", "val_recall@1", "val_map_at_r", "other"]),
        st.lists(st.floats(width=32), max_size=3),
    )
)
@settings(max_examples=8, deadline=None)
def test_any_history_makes_a_picture(tmp_path_factory, history):
    path = loss_curves(tmp_path_factory.mktemp("curves") / "loss.png", history)
    with Image.open(path) as picture:
        assert min(picture.size) >= 300


def test_rates_are_drawn_over_epochs_and_hold_until_the_next_step():
    (axes,) = _rate_figure([0, 10, 20], [1e-3, 2e-3, 1e-3], steps_per_epoch=20).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 0.5, 1.0, 1.5]
    assert list(line.get_ydata()) == [1e-3, 2e-3, 1e-3, 1e-3]
    assert line.get_drawstyle() == "steps-post"
    assert axes.get_yscale() == "linear"
    assert "20 steps" in axes.get_xlabel()


def test_a_wide_range_of_rates_is_drawn_on_a_logarithmic_scale():
    (axes,) = _rate_figure([0, 1, 2], [0.0, 1e-6, 1e-3], 1).axes
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("rates", [[], [1e-3], [0.0], [NAN, NAN], [0.0, 0.0], [NAN, 1e-3]])
def test_few_or_broken_rates_make_a_picture(tmp_path, rates):
    path = learning_rate_curve(tmp_path / "rate.png", range(len(rates)), rates, 3)
    with Image.open(path) as picture:
        assert min(picture.size) >= 300


@pytest.mark.parametrize(
    ("rate", "name"), [(0, "0"), (0.01, "0.01"), (1e-5, "1e-5"), (2.5e-4, "2.5e-4"), (3.0, "3")]
)
def test_rates_are_named_as_in_a_configuration(rate, name):
    assert rate_name(rate) == name
    assert float(name) == rate
