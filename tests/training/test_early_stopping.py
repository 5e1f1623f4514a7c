"""Best epoch and early stopping against Keras's EarlyStopping."""

from __future__ import annotations

import math

import keras
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.training.callbacks import best_epoch, should_stop


def rows(monitor: str, values: list[float]) -> list[dict[str, float]]:
    return [{"epoch": number, monitor: value} for number, value in enumerate(values, start=1)]


def keras_stops_after(monitor: str, values: list[float], patience: int, delta: float) -> int | None:
    """The epoch after which Keras's callback would stop."""
    model = keras.Model()
    callback = keras.callbacks.EarlyStopping(
        monitor,
        min_delta=delta,
        patience=patience,
        mode="min" if monitor == "val_loss" else "max",
    )
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {monitor: value})
        if model.stop_training:
            return epoch + 1
    return None


@settings(deadline=None)
@given(
    st.sampled_from(["val_loss", "val_recall@1"]),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.125, 0.25]),
)
def test_training_stops_after_the_epoch_keras_would_stop_after(
    monitor, values, patience, delta
) -> None:
    history = rows(monitor, values)
    stops = [
        count
        for count in range(1, len(values) + 1)
        if should_stop(history[:count], monitor, patience, delta)
    ]
    assert next(iter(stops), None) == keras_stops_after(monitor, values, patience, delta)


def test_a_tie_goes_to_map_at_r_then_to_the_loss_then_to_the_first() -> None:
    recall, map_at_r, loss = "val_recall@1", "val_map_at_r", "val_loss"
    history = [
        {"epoch": 1, recall: 0.8, map_at_r: 0.9, loss: 0.1},
        {"epoch": 2, recall: 1.0, map_at_r: 0.709, loss: 0.2},
        {"epoch": 3, recall: 1.0, map_at_r: 0.777, loss: 0.3},
        {"epoch": 4, recall: 1.0, map_at_r: 0.777, loss: 0.25},
        {"epoch": 5, recall: 1.0, map_at_r: 0.777, loss: 0.25},
        {"epoch": 6, recall: 1.0, map_at_r: math.nan, loss: 0.0},
        {"epoch": 7, recall: math.nan, map_at_r: 0.99, loss: 0.0},
    ]
    assert best_epoch(history, recall) == 4
    assert best_epoch(history, recall, min_delta=0.1) == 4
    assert not should_stop(history[:4], recall, patience=1)
    assert should_stop(history[:5], recall, patience=1)
    # Of equal losses the one with the higher MAP@R; of equal MAP@R the one with the lower loss.
    assert best_epoch([row | {loss: 0.5} for row in history[:3]], loss) == 1
    assert best_epoch([row | {loss: 0.5} for row in history[1:4]], loss) == 3
    assert best_epoch(history[:6], map_at_r) == 1
    assert best_epoch(history[1:6], map_at_r) == 4


def test_the_best_epoch_is_the_first_of_equals() -> None:
    assert best_epoch(rows("val_map_at_r", [0.1, 0.7, 0.7, 0.3]), "val_map_at_r") == 2
    assert best_epoch(rows("val_loss", [0.9, 0.2, 0.3, 0.2]), "val_loss") == 2


def test_a_smaller_change_than_min_delta_is_no_improvement() -> None:
    history = rows("val_recall@1", [0.5, 0.505, 0.52])
    assert best_epoch(history, "val_recall@1", min_delta=0.01) == 3
    assert best_epoch(history[:2], "val_recall@1", min_delta=0.01) == 1


def test_nan_never_improves() -> None:
    assert best_epoch(rows("val_loss", [math.nan, math.nan]), "val_loss") is None
    assert best_epoch(rows("val_loss", [math.nan, 3.0, math.nan]), "val_loss") == 2
    assert should_stop(rows("val_loss", [math.nan, math.nan]), "val_loss", patience=2)


def test_without_patience_or_history_training_goes_on() -> None:
    assert not should_stop(rows("val_loss", [1.0] * 50), "val_loss", patience=None)
    assert not should_stop([], "val_loss", patience=1)
