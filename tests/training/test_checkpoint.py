"""Training that is interrupted, killed or out of disk space goes on as if nothing had been."""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cbir_tf.errors import UserError
from cbir_tf.evaluation import evaluate
from cbir_tf.training.callbacks import Checkpoint, averaged_weights

SCRIPT = Path(__file__).with_name("resumable_training.py")
program = runpy.run_path(str(SCRIPT))
build_model, train, embed = program["build_model"], program["train"], program["embed"]


def state(model: keras.Model) -> list[np.ndarray]:
    return [
        np.asarray(variable.numpy()) for variable in [*model.variables, *model.optimizer.variables]
    ]


def assert_same_state(model: keras.Model, other: keras.Model) -> None:
    for one, two in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The model and checkpoint of six epochs in one go."""
    model = build_model(seed=0)
    return model, train(tmp_path_factory.mktemp("uninterrupted"), model)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", program["OPTIMIZERS"])
def test_resumed_training_ends_bit_for_bit_where_uninterrupted_training_does(
    tmp_path, optimizer
) -> None:
    whole = build_model(seed=0, optimizer=optimizer)
    expected = train(tmp_path / "whole", whole)
    train(tmp_path / "halves", build_model(seed=0, optimizer=optimizer), epochs=3)
    # Another seed: everything that matters has to come from the checkpoint.
    resumed = build_model(seed=99, optimizer=optimizer)
    checkpoint = train(tmp_path / "halves", resumed)
    assert_same_state(resumed, whole)
    assert checkpoint.history == expected.history
    assert len(checkpoint.history) == program["EPOCHS"]


def run_script(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    root = str(SCRIPT.parents[2])
    return subprocess.run(
        [*before, sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_training_killed_at_the_worst_moments_ends_as_if_it_had_not_been(
    tmp_path, uninterrupted
) -> None:
    expected_model, expected = uninterrupted
    train(tmp_path, build_model(seed=0), epochs=1, monitor="loss")
    killed = run_script(str(tmp_path), "32", "batch:2", "write:3", "os.rename:4", "os.remove:5")
    deaths = [signal.SIGKILL, signal.SIGXFSZ, signal.SIGKILL, signal.SIGKILL]
    assert [int(line) for line in killed.stdout.split()] == [-each for each in deaths], killed
    resumed = build_model(seed=99)
    checkpoint = train(tmp_path, resumed, monitor="loss")
    assert checkpoint.history == expected.history
    assert_same_state(resumed, expected_model)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best-6.npz", "last.npz"]


@pytest.mark.slow
def test_a_full_disk_is_a_one_line_error_and_the_earlier_checkpoint_stays(tmp_path) -> None:
    mounts = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(mounts, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    # At this width best-1.npz takes 30 kB and last.npz 110 kB; epoch 2 needs as much again.
    mount = f'mount -t tmpfs -o size=220k tmpfs "{tmp_path}" && exec "$@"'
    namespace = ("unshare", "-m", "sh", "-c", mount, "sh")
    done = run_script(str(tmp_path), "500", "never:0", before=namespace)
    assert done.returncode == 2, done.stderr[-2000:]
    error, kept = done.stderr.splitlines()[-2:]
    assert error.startswith(f"UserError: {tmp_path}/last.npz")
    assert "no space left" in error
    assert kept == "kept: 1"


def test_a_folder_that_cannot_be_made_is_a_one_line_error(tmp_path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match="checkpoints"):
        train(tmp_path / "checkpoints", build_model(seed=0), epochs=1)


def test_without_a_checkpoint_training_begins_at_the_beginning(tmp_path) -> None:
    assert Checkpoint(tmp_path / "none").restore(build_model(seed=0)) == 0


def test_the_best_weights_are_the_averages_after_the_best_epoch(tmp_path, uninterrupted) -> None:
    _, checkpoint = uninterrupted
    best = checkpoint.best_epoch
    assert best == 1 + int(np.argmax([row["val_map_at_r"] for row in checkpoint.history]))
    stopped_there = build_model(seed=0)
    train(tmp_path, stopped_there, epochs=best)
    loaded = build_model(seed=5)
    assert checkpoint.load_best(loaded) == best
    # fit ends by giving the model the averages.
    for one, two in zip(loaded.weights, stopped_there.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    figures = evaluate(embed(loaded), None, k=(1,))["figures"]
    assert figures["map_at_r"] == checkpoint.history[best - 1]["val_map_at_r"]
    assert figures["recall@1"] == checkpoint.history[best - 1]["val_recall@1"]


def test_a_checkpoint_of_the_first_of_equal_epochs_is_resumed_with_the_weights_that_are_there(
    tmp_path, uninterrupted
) -> None:
    """Earlier versions kept the first of equals, and a resumed run must not ask for another."""
    build = lambda: build_model(seed=0)  # noqa: E731
    train(tmp_path, build(), epochs=2)
    with np.load(tmp_path / "last.npz") as file:
        arrays = dict(file)
    history = json.loads(str(arrays["note"]))
    for row in history:
        row |= {"val_recall@1": 0.5, "val_map_at_r": row["epoch"] / 10}
    np.savez(tmp_path / "last.npz", **arrays | {"note": np.array(json.dumps(history))})
    (best,) = tmp_path.glob("best-*.npz")
    best.rename(tmp_path / "best-1.npz")

    checkpoint = Checkpoint(tmp_path, "val_recall@1", patience=1)
    assert checkpoint.restore(build()) == 2
    assert checkpoint.load_best(build()) == 1 and checkpoint.stopped
    goes_on = Checkpoint(tmp_path, "val_recall@1")
    model = build()
    goes_on.restore(model)
    goes_on.set_model(model)
    goes_on.on_epoch_end(2, {"loss": 1.0, "val_recall@1": 0.5, "val_map_at_r": 0.05})
    assert goes_on.load_best(build()) == 1
    goes_on.on_epoch_end(3, {"loss": 1.0, "val_recall@1": 0.5, "val_map_at_r": 0.15})
    assert goes_on.load_best(build()) == 4


def test_averaged_weights_are_keras_moving_average_and_are_restored() -> None:
    model = build_model(seed=0)
    kernels = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(model.layers[0].kernel.numpy())
    )
    with averaged_weights(model):
        pass  # Nothing is averaged yet.
    last = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: compare())

    def compare() -> None:
        average = kernels[0]
        for kernel in kernels[1:]:
            average = 0.8 * average + 0.2 * kernel
        before = state(model)
        with averaged_weights(model):
            np.testing.assert_allclose(model.layers[0].kernel.numpy(), average, rtol=1e-5)
        for one, two in zip(before, state(model), strict=True):
            np.testing.assert_array_equal(one, two)

    random = np.random.default_rng(0)
    model.fit(
        random.normal(size=(40, 6)),
        random.normal(size=(40, 4)),
        batch_size=8,
        callbacks=[record, last],
        verbose=0,
    )
    assert len(kernels) == 5


def test_training_stops_early_and_stays_stopped(tmp_path) -> None:
    model = build_model(seed=0, optimizer="sgd")
    nothing = np.zeros((8, 6)), np.zeros((8, 4))
    model.optimizer.learning_rate = 0.0
    checkpoint = Checkpoint(tmp_path, "loss", patience=2, min_delta=10.0)
    model.fit(*nothing, epochs=9, callbacks=[checkpoint], verbose=0)
    assert [row["epoch"] for row in checkpoint.history] == [1, 2, 3]
    again = Checkpoint(tmp_path, "loss", patience=2, min_delta=10.0)
    assert again.restore(build_model(seed=0, optimizer="sgd")) == 3
    assert again.stopped


def test_history_is_written_as_csv_exactly(tmp_path, uninterrupted) -> None:
    _, checkpoint = uninterrupted
    checkpoint.write_history(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == checkpoint.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert list(rows[0]) == ["epoch", "loss", "learning_rate", "val_recall@1", "val_map_at_r"]


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path) -> None:
    train(tmp_path, build_model(seed=0), epochs=1)
    other = build_model(seed=1, width=16)
    other.optimizer.build(other.trainable_variables)
    before = state(other)
    with pytest.raises(UserError, match="another model"):
        Checkpoint(tmp_path).restore(other)
    for one, two in zip(before, state(other), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(UserError, match="another model"):
        Checkpoint(tmp_path).restore(build_model(seed=0, optimizer="sgd"))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "not a checkpoint"])
def test_a_damaged_checkpoint_is_a_one_line_error(tmp_path, damage) -> None:
    train(tmp_path, build_model(seed=0), epochs=1)
    last = tmp_path / "last.npz"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(
        {
            "empty": b"",
            "cut": last.read_bytes()[:-100],
            "flipped": bytes(content),
            "not a checkpoint": b"epoch 3",
        }[damage]
    )
    with pytest.raises(UserError, match=r"last\.npz: .*damaged"):
        Checkpoint(tmp_path).restore(build_model(seed=0))


def test_a_monitor_that_is_not_logged_is_a_one_line_error(tmp_path) -> None:
    model = build_model(seed=0)
    with pytest.raises(UserError, match="no 'val_map_at_r' to monitor"):
        model.fit(np.ones((8, 6)), np.ones((8, 4)), callbacks=[Checkpoint(tmp_path)], verbose=0)


def test_training_that_was_never_any_good_has_no_best_weights(tmp_path) -> None:
    model = build_model(seed=0)
    checkpoint = Checkpoint(tmp_path, "loss")
    targets = np.full((8, 4), np.nan)
    model.fit(np.ones((8, 6)), targets, epochs=2, callbacks=[checkpoint], verbose=0)
    with pytest.raises(UserError, match="no epoch has a finite loss"):
        checkpoint.load_best(model)
