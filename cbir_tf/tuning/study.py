"""The trials of a search, kept by Optuna in an SQLite file beside them."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.config import Config
from cbir_tf.errors import UserError, first_line
from cbir_tf.tuning.space import Choices, Parameter, Space

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
_LOCK = ".lock"
_NAME = "tune"
UNPRUNED_TRIALS = 5
"""Trials before the first that can be ended early: a median of fewer says little."""
UNPRUNED_SHARE = 4
"""A trial is not ended in the first such part of its epochs."""


def check_installed() -> None:
    """Raise a UserError unless Optuna is there."""
    try:
        import optuna
    except ImportError:
        raise UserError("tune: Optuna is not installed; pip install 'cbir-tf[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep other processes from searching in a folder; the lock ends with the process.

    Raises:
        UserError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = sqlite3.connect(folder / _LOCK, timeout=0, isolation_level=None)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise UserError(
                f"{folder}: another process searches here; wait for it, or choose another --run "
                "folder"
            ) from None
        yield
    finally:
        lock.close()


def open_study(folder: Path, config: Config, space: Space, prune: bool) -> optuna.Study:
    """The study in a folder, new or of this very search.

    Raises:
        UserError: it is of another configuration or space, or damaged.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = folder / DATABASE

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")  # it may be looked at meanwhile
        return connection

    pruner = (
        optuna.pruners.MedianPruner(
            UNPRUNED_TRIALS, n_warmup_steps=config.training.epochs // UNPRUNED_SHARE
        )
        if prune
        else optuna.pruners.NopPruner()
    )
    damaged = (SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError, RuntimeError)
    try:
        # By a function, as not every path can be put into an address.
        storage = optuna.storages.RDBStorage("sqlite:///", engine_kwargs={"creator": connect})
        study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            load_if_exists=True,
            direction="minimize" if lower_is_better(config) else "maximize",
            pruner=pruner,
        )
    except damaged as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); --restart searches anew"
        ) from None
    _identify(study, folder, config, space)
    return study


def _identify(study: optuna.Study, folder: Path, config: Config, space: Space) -> None:
    """Note what a new study searches; refuse one that searches something else."""
    ours = {each.key: str(each) for each in space}
    if "space" not in study.user_attrs:
        study.set_user_attr("config", config.model_dump(mode="json"))
        study.set_user_attr("space", ours)
        return
    theirs = study.user_attrs["space"]
    differences = [
        f"{key}: {ours.get(key, 'not searched')} here, {theirs.get(key, 'not searched')} there"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ] or config.differences(Config.check(study.user_attrs["config"], str(folder / DATABASE)))
    if differences:
        raise UserError(
            f"{folder}: holds another search ({differences[0]}); choose another --run folder, or "
            "--restart to replace it"
        )


def lower_is_better(config: Config) -> bool:
    """Whether the monitored value is a loss."""
    return config.training.monitor.endswith("loss")


def next_trial(study: optuna.Study, space: Space, seed: int, trials: int) -> optuna.Trial | None:
    """The interrupted trial, else a new one; None where there are as many as wanted.

    What a trial tries follows from the seed, its number and the trials before it, whether or not
    the search was interrupted. A space with no more combinations than wanted trials is tried out
    in order, each of them once.
    """
    import optuna

    known = study.get_trials(deepcopy=False)
    combinations = math.prod(each.count for each in space)
    if combinations <= trials:
        for values in product(*(each.examples() for each in space)):
            named = zip(space, values, strict=True)
            study.enqueue_trial(
                {each.key: _typed(each, value) for each, value in named}, skip_if_exists=True
            )
    states = optuna.trial.TrialState
    interrupted = [each for each in known if each.state == states.RUNNING]
    waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
    started = len(study.get_trials(deepcopy=False)) - len(waiting)
    number = interrupted[0].number if interrupted else started
    if not interrupted and not waiting and started >= min(trials, combinations):
        return None
    # A sampler's state is not stored: each trial has one of its own.
    seeds = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(seeds[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna has no other way back to a trial that is running.
        trial = optuna.Trial(study, interrupted[0]._trial_id) if interrupted else study.ask()
        for parameter in space:
            _suggest(trial, parameter)
    return trial


def _typed(parameter: Parameter, value: str) -> str | float:
    if isinstance(parameter, Choices):
        return value
    return int(value) if parameter.whole else float(value)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> None:
    """Have a value chosen; a trial that has one already keeps it."""
    if isinstance(parameter, Choices):
        trial.suggest_categorical(parameter.key, parameter.values)
    elif parameter.whole:
        trial.suggest_int(
            parameter.key,
            int(parameter.low),
            int(parameter.high),
            step=int(parameter.step or 1),
            log=parameter.log,
        )
    else:
        trial.suggest_float(
            parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log
        )


def overrides(trial: optuna.Trial, space: Space) -> list[str]:
    """The trial's values as `section.key=value`."""
    return [f"{each.key}={trial.params[each.key]}" for each in space]


def take_over_repeated(study: optuna.Study, trial: optuna.Trial) -> int | None:
    """End a trial of values that were tried before with what came of them.

    Returns:
        The number of the earlier trial; None where there is none, and the trial goes on.
    """
    for earlier in study.get_trials(deepcopy=False):
        if earlier.number != trial.number and earlier.state.is_finished():
            if earlier.params != trial.params:
                continue
            first = earlier.user_attrs.get("repeats", earlier.number)
            for name, value in (earlier.user_attrs | {"repeats": first, "seconds": 0.0}).items():
                trial.set_user_attr(name, value)
            for step, value in earlier.intermediate_values.items():
                trial.report(value, step)
            complete = earlier.values if earlier.state.name == "COMPLETE" else None
            study.tell(trial, complete, state=earlier.state)
            return first
    return None


def hopeless(trial: optuna.Trial, epoch: int, value: float, goes_on: bool) -> bool:
    """Note the value of an epoch, counted from 0; whether the trial is to end with it.

    A trial once found hopeless stays so, should the process have been killed before it ended.
    """
    if "pruned_after" in trial.user_attrs:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an epoch trained again after a kill is noted already
        trial.report(value, epoch)
    if not goes_on or not trial.should_prune():
        return False
    trial.set_user_attr("pruned_after", epoch + 1)
    return True


def finish(study: optuna.Study, trial: optuna.Trial, report: dict[str, Any], monitor: str) -> None:
    """Note what came of a trained trial.

    Args:
        study: of the trial.
        trial: that was trained.
        report: of its training.json.
        monitor: name of what is searched by.
    """
    from optuna.trial import TrialState

    value = report["best"][monitor]
    for name in ("epochs", "best_epoch", "seconds"):
        trial.set_user_attr(name, report[name])
    trial.set_user_attr("value", value)
    if "pruned_after" in trial.user_attrs:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """Note that a trial could not be trained, and why."""
    from optuna.trial import TrialState

    trial.set_user_attr("reason", reason)
    study.tell(trial, state=TrialState.FAIL)


def best_number(study: optuna.Study) -> int | None:
    """Number of the best trial, the first of equals; None where none has come to its end."""
    with suppress(ValueError):
        best = study.best_trial
        return int(best.user_attrs.get("repeats", best.number))
    return None


def trial_rows(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    """A row for every trial, ready for JSON.

    number; state (complete, pruned, failed, running); value, the best of the monitored figure, or
    null; parameters by key, choices as written; epochs, best_epoch and seconds, where it was
    trained; repeats, the earlier trial of the same values; reason, why it failed.
    """
    states = {"FAIL": "failed"}
    return [
        {
            "number": each.number,
            "state": states.get(each.state.name, each.state.name.lower()),
            "value": each.user_attrs.get("value"),
            "parameters": {
                parameter.key: each.params[parameter.key]
                for parameter in space
                if parameter.key in each.params
            },
            **{
                name: each.user_attrs[name]
                for name in ("epochs", "best_epoch", "seconds", "repeats", "reason")
                if name in each.user_attrs
            },
        }
        for each in study.get_trials(deepcopy=False)
        if each.state.name != "WAITING"
    ]
