"""The trials of a tuning, kept by Optuna in an SQLite file beside their runs."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.ranges import Choices, Parameter, Space
from cbir_tf.errors import UserError, first_line
from cbir_tf.training.standing import TIE_BREAKERS, lower_is_better, standing

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
_NAME = "tune"
UNPRUNED_TRIALS = 5
"""Trials before the first that can be pruned: a median of fewer says little."""
UNPRUNED_SHARE = 4
"""A trial is not pruned in the first quarter of its epochs."""


class TrialRow(TypedDict):
    """One trial, ready for JSON."""

    number: int
    state: str
    """complete, pruned, failed or running."""
    value: float | None
    """The best of training.monitor."""
    figures: NotRequired[dict[str, float]]
    """Those of the best epoch that decide between trials of equal value."""
    parameters: dict[str, str | float]
    """By key; choices as written."""
    epochs: NotRequired[int]
    """This and the next two: where the trial was trained."""
    best_epoch: NotRequired[int]
    seconds: NotRequired[float]
    repeats: NotRequired[int]
    """Number of the earlier trial of the same values."""
    reason: NotRequired[str]
    """Why the trial failed."""


def check_installed() -> None:
    """Raise a UserError unless Optuna is installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("tune: Optuna is not installed; pip install 'cbir-tf[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def reporting_storage_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of the study's database into one line each.

    Only a damaged database is to be replaced; one that is locked, read-only or without room is
    not.

    Raises:
        UserError: the database is damaged, or could not be read or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = folder / DATABASE
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        reason = _sqlite_error(error)
        if isinstance(reason, sqlite3.OperationalError):
            raise UserError(
                f"{path}: could not be read or written ({first_line(reason)}); check its "
                "permissions and the free room, then repeat the command"
            ) from None
        raise UserError(
            f"{path}: is damaged ({first_line(reason)}); use --restart to begin again"
        ) from None


def _sqlite_error(error: BaseException) -> Exception:
    """The error of SQLite behind those that SQLAlchemy and Optuna wrap it in."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, sqlite3.Error):
        inner = getattr(inner, "orig", None) or inner.__cause__
    return inner if isinstance(inner, Exception) else Exception(str(error))


def open_study(folder: Path, config: Config, space: Space, prune: bool) -> optuna.Study:
    """The study in a folder: a new one, or that of the same configuration and space.

    Args:
        folder: of the tuning.
        config: without the tuned values.
        space: of the tuned keys.
        prune: end trials that are worse than the median of the others.

    Raises:
        UserError: the study is of another configuration or space, or of another Optuna.
    """
    import optuna

    path = folder / DATABASE

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")  # so that it can be read meanwhile
        return connection

    pruner = (
        optuna.pruners.MedianPruner(
            UNPRUNED_TRIALS, n_warmup_steps=config.training.epochs // UNPRUNED_SHARE
        )
        if prune
        else optuna.pruners.NopPruner()
    )
    try:
        # By a function, as not every path can be written as a URL.
        storage = optuna.storages.RDBStorage("sqlite:///", engine_kwargs={"creator": connect})
        study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            load_if_exists=True,
            direction="minimize" if lower_is_better(config.training.monitor) else "maximize",
            pruner=pruner,
        )
    except RuntimeError as error:  # of an Optuna whose files this one does not read
        raise UserError(
            f"{path}: could not be read ({first_line(error)}); use --restart to begin again"
        ) from None
    _identify(study, folder, config, space)
    return study


def _identify(study: optuna.Study, folder: Path, config: Config, space: Space) -> None:
    """Record what a new study tunes; refuse a study of something else."""
    ours = {each.key: str(each) for each in space}
    if "space" not in study.user_attrs:
        study.set_user_attr("config", config.model_dump(mode="json"))
        study.set_user_attr("space", ours)
        return
    theirs = study.user_attrs["space"]
    differences = [
        f"{key}: {ours.get(key, 'not tuned')} here, {theirs.get(key, 'not tuned')} there"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ] or config.differences(Config.check(study.user_attrs["config"], str(folder / DATABASE)))
    if differences:
        raise UserError(
            f"{folder}: holds another tuning ({differences[0]}); choose another --run folder, or "
            "replace it with --restart"
        )


def next_trial(study: optuna.Study, space: Space, seed: int, trials: int) -> optuna.Trial | None:
    """The interrupted trial, else a new one; None once there are as many as wanted.

    The values of a trial follow from the seed, its number and the trials before it, whether or not
    the tuning was interrupted. A space with no more combinations than wanted trials is tried
    exhaustively, in order.
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
    # The state of a sampler is not stored, so each trial has a sampler of its own.
    seeds = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(seeds[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna has no public way to continue a trial that is running.
        trial = optuna.Trial(study, interrupted[0]._trial_id) if interrupted else study.ask()
        for parameter in space:
            _suggest(trial, parameter)
    return trial


def _typed(parameter: Parameter, value: str) -> str | float:
    if isinstance(parameter, Choices):
        return value
    return int(value) if parameter.whole else float(value)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> None:
    """Let the sampler choose a value; a trial that has one already keeps it."""
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


def overrides_of(trial: optuna.Trial, space: Space) -> list[str]:
    """The values of the trial as `section.key=value`."""
    return [f"{each.key}={trial.params[each.key]}" for each in space]


def copy_repeated(study: optuna.Study, trial: optuna.Trial) -> int | None:
    """End a trial whose values were tried before with the result of the earlier trial.

    Returns:
        The number of the earlier trial; None where there is none, and the trial is to be trained.
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
            return int(first)
    return None


def should_prune(trial: optuna.Trial, epoch: int, value: float, continues: bool) -> bool:
    """Record the value of an epoch, and decide whether the trial is to end with it.

    A decision to end is kept, in case the process is killed before the trial has ended.

    Args:
        trial: in training.
        epoch: from 0.
        value: of training.monitor.
        continues: whether the training would continue.
    """
    if "pruned_after" in trial.user_attrs:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an epoch repeated after a kill is recorded already
        trial.report(value, epoch)
    if not continues or not trial.should_prune():
        return False
    trial.set_user_attr("pruned_after", epoch + 1)
    return True


def record_result(
    study: optuna.Study, trial: optuna.Trial, report: Mapping[str, Any], monitor: str
) -> None:
    """Record the result of a trained trial.

    Args:
        study: of the trial.
        trial: trained to its end, or pruned.
        report: the content of its training.json.
        monitor: training.monitor.
    """
    from optuna.trial import TrialState

    best = report["best"]
    value = best[monitor]
    figures = {name: best[name] for name in TIE_BREAKERS if name in best}
    for name in ("epochs", "best_epoch", "seconds"):
        trial.set_user_attr(name, report[name])
    trial.set_user_attr("value", value)
    trial.set_user_attr("figures", figures)
    if "pruned_after" in trial.user_attrs:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def record_failure(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """Record that a trial could not be trained, and why."""
    from optuna.trial import TrialState

    trial.set_user_attr("reason", reason)
    study.tell(trial, state=TrialState.FAIL)


def best_number(study: optuna.Study, monitor: str) -> int | None:
    """Number of the best trial, ranked as epochs are; None while none is complete."""
    best, highest = None, None
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "COMPLETE" or trial.value is None:
            continue
        this = standing({**trial.user_attrs.get("figures", {}), monitor: trial.value}, monitor)
        if highest is None or this > highest:
            best, highest = int(trial.user_attrs.get("repeats", trial.number)), this
    return best


def trial_rows(study: optuna.Study, space: Space) -> list[TrialRow]:
    """A row for every trial that has begun, in order of their numbers."""
    return [
        _row(each, space)
        for each in study.get_trials(deepcopy=False)
        if each.state.name != "WAITING"
    ]


def _row(trial: optuna.trial.FrozenTrial, space: Space) -> TrialRow:
    known = trial.user_attrs
    parameters = {each.key: trial.params[each.key] for each in space if each.key in trial.params}
    row: TrialRow = {
        "number": trial.number,
        "state": "failed" if trial.state.name == "FAIL" else trial.state.name.lower(),
        "value": known.get("value"),
        "parameters": parameters,
    }
    if "epochs" in known:
        row["epochs"] = known["epochs"]
        row["best_epoch"] = known["best_epoch"]
    for name in ("figures", "seconds", "repeats", "reason"):
        if name in known:
            row[name] = known[name]
    return row
