"""The trials of a search: which they are, and that an interruption changes nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cbir_tf.config import Config
from cbir_tf.config.ranges import Choices, Range
from cbir_tf.errors import UserError
from cbir_tf.tuning.folder import exclusive
from cbir_tf.tuning.from_config import _former_defaults
from cbir_tf.tuning.study import (
    best_number,
    copy_repeated,
    next_trial,
    open_study,
    overrides_of,
    record_failure,
    record_result,
    reporting_storage_errors,
    should_prune,
    trial_rows,
)

optuna = pytest.importorskip("optuna")

ROOT = Path(__file__).parents[2]
MONITOR = "val_recall@1"
SPACE = (
    Range("loss.margin", 0.0, 1.0, None, False, False),
    Range("model.embedding_size", 32, 256, 32, False, True),
    Choices("model.hidden", ("[]", "[512]")),
    Range("optimizer.learning_rate", 1e-5, 1e-2, None, True, False),
)
FEW = (
    Choices("model.pooling", ("average", "max")),
    Range("training.epochs", 1, 3, None, False, True),
)


@pytest.fixture
def config() -> Config:
    return Config.check({"data": {"source": "digits"}, "training": {"epochs": 8}})


def quality(parameters) -> float:
    """Something to search for the best of."""
    return 1 - abs(parameters["loss.margin"] - 0.3) - abs(parameters["model.embedding_size"]) / 1e3


def report(value: float, epochs: int = 4) -> dict:
    return {"epochs": epochs, "best_epoch": 2, "seconds": 1.5, "best": {MONITOR: value}}


def searched(study, trials: int, space=SPACE, seed: int = 3) -> list[dict]:
    while (trial := next_trial(study, space, seed, trials)) is not None:
        record_result(study, trial, report(quality(trial.params)), MONITOR)
    return [row["parameters"] for row in trial_rows(study, space)]


def test_the_same_seed_tries_the_same_interrupted_or_not(tmp_path, config):
    (tmp_path / "a").mkdir()
    (tmp_path / "b ?#%").mkdir()
    whole = searched(open_study(tmp_path / "a", config, SPACE, True), 14)
    assert len({str(each) for each in whole}) == 14
    for trials in (1, 5, 12):
        study = open_study(tmp_path / "b ?#%", config, SPACE, True)
        searched(study, trials)
        next_trial(study, SPACE, 3, 14)  # begun, and never ended
    again = open_study(tmp_path / "b ?#%", config, SPACE, True)
    assert searched(again, 14) == whole
    assert {row["state"] for row in trial_rows(again, SPACE)} == {"complete"}
    (tmp_path / "c").mkdir()
    other = searched(open_study(tmp_path / "c", config, SPACE, True), 2, seed=4)
    assert other != whole[:2]


def test_values_are_within_the_space(tmp_path, config):
    for each in searched(open_study(tmp_path, config, SPACE, True), 12):
        assert 0 <= each["loss.margin"] <= 1
        assert each["model.embedding_size"] in range(32, 257, 32)
        assert each["model.hidden"] in ("[]", "[512]")
        assert 1e-5 <= each["optimizer.learning_rate"] <= 1e-2


def test_few_combinations_are_each_tried_once(tmp_path, config):
    study = open_study(tmp_path, config, FEW, True)
    tried = []
    while (trial := next_trial(study, FEW, 0, 20)) is not None:
        tried.append(overrides_of(trial, FEW))
        record_result(study, trial, report(trial.number / 10), MONITOR)
    assert tried == [
        [f"model.pooling={pooling}", f"training.epochs={epochs}"]
        for pooling in ("average", "max")
        for epochs in (1, 2, 3)
    ]
    assert best_number(study, MONITOR) == 5


def test_what_was_tried_before_is_taken_over(tmp_path, config):
    study = open_study(tmp_path, config, FEW, True)
    for value in (0.5, None):
        study.enqueue_trial({"model.pooling": "max", "training.epochs": 2})
        trial = next_trial(study, FEW, 0, 3)
        if value is not None:
            assert copy_repeated(study, trial) is None
            record_result(study, trial, report(value), MONITOR)
    assert copy_repeated(study, trial) == 0
    first, second = trial_rows(study, FEW)
    assert second["value"] == first["value"] == 0.5
    assert (second["state"], second["repeats"]) == ("complete", 0)
    assert best_number(study, MONITOR) == 0


def test_a_trial_below_the_median_is_ended_and_stays_so(tmp_path, config):
    study = open_study(tmp_path, config, SPACE, True)
    for _ in range(5):
        trial = next_trial(study, SPACE, 0, 9)
        for epoch in range(8):
            assert not should_prune(trial, epoch, 0.8, epoch < 7)
        record_result(study, trial, report(0.8), MONITOR)
    trial = next_trial(study, SPACE, 0, 9)
    # A quarter of the epochs, two, are left in peace, and so is a trial that has ended anyway.
    assert [should_prune(trial, epoch, 0.1, True) for epoch in range(3)] == [False, False, True]
    study = open_study(tmp_path, config, SPACE, True)
    again = next_trial(study, SPACE, 0, 9)
    assert again.number == trial.number
    assert should_prune(again, 3, 0.99, True)
    record_result(study, again, report(0.1, epochs=3), MONITOR)
    assert trial_rows(study, SPACE)[-1]["state"] == "pruned"
    last = next_trial(study, SPACE, 0, 9)
    assert not should_prune(last, 5, 0.1, False)


def test_without_pruning_and_by_a_loss(tmp_path):
    values = {"data": {"source": "digits"}, "training": {"epochs": 8, "monitor": "val_loss"}}
    study = open_study(tmp_path, Config.check(values), SPACE, False)
    for value in (0.4, 0.2, 0.3, 0.5, 0.6, 0.7):
        trial = next_trial(study, SPACE, 0, 9)
        assert not should_prune(trial, 5, value, True)
        record_result(study, trial, report(0) | {"best": {"val_loss": value}}, "val_loss")
    assert best_number(study, "val_loss") == 1


def test_of_equal_trials_the_best_has_the_higher_map_at_r_then_the_lower_loss(tmp_path, config):
    study = open_study(tmp_path, config, FEW, True)
    expected = [0, 1, 1, 3, 3, 3]
    found = [(0.9, 0.6, 0.1), (0.9, 0.7, 0.3), (0.9, 0.7, 0.3), (0.9, 0.7, 0.2), (0.8, 1.0, 0.0)]
    for best, (recall, map_at_r, loss) in zip(expected, found, strict=False):
        figures = {MONITOR: recall, "val_map_at_r": map_at_r, "val_loss": loss, "loss": 1.0}
        record_result(study, next_trial(study, FEW, 0, 9), report(0) | {"best": figures}, MONITOR)
        assert best_number(study, MONITOR) == best
    # A trial of an earlier version has its value alone.
    trial = next_trial(study, FEW, 0, 9)
    study.tell(trial, 0.9)
    assert best_number(study, MONITOR) == expected[-1]
    assert trial_rows(study, FEW)[3]["figures"] == {"val_map_at_r": 0.7, "val_loss": 0.2}


def test_a_tuning_begun_with_a_former_default_goes_on_with_it(tmp_path, config):
    assert _former_defaults(config, tmp_path) == []
    begun = config.model_copy(
        update={"training": config.training.model_copy(update={"monitor": MONITOR})}
    )
    (tmp_path / "trial-000").mkdir()
    (tmp_path / "trial-000" / "config.yaml").write_text(begun.dump())
    assert _former_defaults(config, tmp_path) == [f"training.monitor={MONITOR}"]
    named = Config.check({"data": {"source": "digits"}, "training": {"monitor": "val_map_at_r"}})
    assert _former_defaults(named, tmp_path) == []


def test_a_failed_trial_is_reported_and_never_the_best(tmp_path, config):
    study = open_study(tmp_path, config, SPACE, True)
    record_failure(study, next_trial(study, SPACE, 0, 2), "diverged")
    assert best_number(study, MONITOR) is None
    assert trial_rows(study, SPACE)[0]["reason"] == "diverged"
    assert next_trial(study, SPACE, 0, 2).number == 1


def test_another_search_is_refused(tmp_path, config):
    open_study(tmp_path, config, SPACE, True)
    with pytest.raises(
        UserError, match=r"another tuning \(model.embedding_size: not tuned here, 32"
    ):
        open_study(tmp_path, config, (*FEW, SPACE[0]), True)
    other = config.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match=r"another tuning \(seed: 5 here, 0 there\)"):
        open_study(tmp_path, other, SPACE, True)


def test_a_damaged_study_is_a_one_line_error_with_the_option_to_begin_again(tmp_path, config):
    (tmp_path / "study.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="damaged") as error, reporting_storage_errors(tmp_path):
        open_study(tmp_path, config, SPACE, True)
    assert "--restart" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_that_cannot_be_opened_is_not_to_be_replaced(tmp_path, config):
    (tmp_path / "study.db").mkdir()
    with pytest.raises(UserError, match="could not") as error, reporting_storage_errors(tmp_path):
        open_study(tmp_path, config, SPACE, True)
    assert "--restart" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_disk_that_fills_up_is_a_one_line_error_and_keeps_the_trials(tmp_path, config):
    study = open_study(tmp_path, config, SPACE, True)
    record_result(study, next_trial(study, SPACE, 0, 9), report(0.5), MONITOR)
    # The kernel refuses to let a file grow, as it does when the disk is full.
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT / "tests" / "tuning")!r})
from pathlib import Path
from test_study import SPACE, Config, next_trial, open_study, reporting_storage_errors
folder = Path({str(tmp_path)!r})
config = Config.check({{"data": {{"source": "digits"}}, "training": {{"epochs": 8}}}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
with reporting_storage_errors(folder):
    next_trial(open_study(folder, config, SPACE, True), SPACE, 0, 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert "could not" in last
    assert "--restart" not in last
    rows = trial_rows(open_study(tmp_path, config, SPACE, True), SPACE)
    assert [row["value"] for row in rows] == [0.5]


def test_the_study_is_read_while_it_is_written(tmp_path, config):
    open_study(tmp_path, config, SPACE, True)
    with sqlite3.connect(tmp_path / "study.db") as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_folder_that_cannot_be_made_is_a_one_line_error(tmp_path):
    (tmp_path / "in the way").write_text("a file")
    with pytest.raises(UserError, match="in the way"), exclusive(tmp_path / "in the way" / "run"):
        pass


def test_one_process_searches_at_a_time_and_a_killed_one_is_none(tmp_path):
    program = f"""
from pathlib import Path
from cbir_tf.tuning.folder import exclusive
from cbir_tf.tuning.from_config import _former_defaults
with exclusive(Path({str(tmp_path)!r})):
    print("locked", flush=True)
    input()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another process"), exclusive(tmp_path):
        pass
    other.kill()
    other.wait()
    with exclusive(tmp_path):
        pass
