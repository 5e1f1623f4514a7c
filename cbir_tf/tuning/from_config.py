"""From a configuration with ranges to the best of many trained runs: what `cbir tune` does."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.config import Config
from cbir_tf.config.arguments import texts, whole_number
from cbir_tf.config.ranges import Choices, Space
from cbir_tf.errors import UserError, first_line
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import advising, import_tensorflow, quitting_at_once
from cbir_tf.storage.files import read_json
from cbir_tf.storage.remote import local
from cbir_tf.training.from_config import load_config
from cbir_tf.training.standing import lower_is_better
from cbir_tf.tuning.folder import (
    check_folder,
    clear,
    delete_other_models,
    exclusive,
    share_image_table,
    trial_folder,
    write_results,
)
from cbir_tf.tuning.space import Load, make_space, split_overrides, written_space
from cbir_tf.tuning.study import (
    TrialRow,
    best_number,
    check_installed,
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

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning; its fields are those of `cbir tune --json`.

    Attributes:
        folder: of the tuning.
        monitor: training.monitor, which the trials are compared by.
        direction: "minimize" or "maximize".
        seed: of the choice of values.
        space: range or choices by key, as written.
        trials: in order of their numbers.
        best: number of the best trial; None where all were pruned or failed.
    """

    folder: str
    monitor: str
    direction: str
    seed: int
    space: dict[str, str]
    trials: list[TrialRow]
    best: int | None


@dataclass(frozen=True)
class _Setup:
    """What all trials have in common."""

    folder: Path
    config: Config
    space: Space
    load: Load
    keep_models: bool


def tune(
    config: Config | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] | str,
    *,
    space: str | Path | None = None,
    trials: int = 20,
    run: str | Path | None = None,
    restart: bool = False,
    prune: bool = True,
    keep_models: bool = False,
) -> Tuning:
    """Train one run for each trial, with values chosen by Optuna's TPE sampler, and compare them.

    Called again, it continues an interrupted tuning, and with more trials extends a finished one.
    Each trial is a run of its own in the folder; best.yaml is the configuration of the best.

    Args:
        config: a Config, the same keys as a nested mapping, or the path of a YAML file.
        overrides: `section.key=value`, or `section.key=range or choices`, such as
            "optimizer.learning_rate=1e-5..1e-2 log" and "model.pooling=max|gem".
        space: a YAML file of further ranges and choices by key.
        trials: in all, those of earlier calls included.
        run: folder of the tuning; None: runs/<config.name>-tune.
        restart: delete what the tuning in the folder holds.
        prune: end a trial early whose best epoch is worse than the median of the others.
        keep_models: keep the model of every trial, not only the best one's.

    Raises:
        UserError: Optuna is not installed; unusable ranges, configuration or folder; another
            process tunes there; or no trial could be trained.
        KeyboardInterrupt: on Ctrl-C; the same call continues from there.

    Example:
        >>> from cbir_tf.tuning import tune
        >>> ranges = ["loss.margin=0.1..0.5", "model.pooling=max|gem"]
        >>> result = tune("configs/digits.yaml", ranges, trials=2)  # doctest: +SKIP
        >>> result.trials[result.best]["parameters"]  # doctest: +SKIP
        {'loss.margin': 0.23, 'model.pooling': 'gem'}
    """
    check_installed()
    trials = whole_number(trials, "trials", 1)
    tuned, fixed = split_overrides(texts(overrides, "overrides"))
    load = partial(_load, config, fixed)
    base = load([])
    folder = Path(run) if run is not None else Path("runs") / f"{base.name}-tune"
    if not restart:
        fixed += _former_defaults(base, folder)
        base = load([])
    written = written_space(tuned, fixed, None if space is None else local(space))
    setup = _Setup(folder, base, make_space(written, load), load, keep_models)
    check_folder(setup.folder)
    again = "without --restart, " if restart else ""
    with (
        advising(lambda: f"finished epochs and trials are kept; {again}the same command goes on"),
        exclusive(setup.folder),
        reporting_storage_errors(setup.folder),
    ):
        if restart:
            clear(setup.folder, base)
        study = open_study(setup.folder, base, setup.space, prune)
        import_tensorflow()
        if not study.get_trials(deepcopy=False):
            _check_models(setup)
        while trial := next_trial(study, setup.space, base.seed, trials):
            _train_trial(study, trial, setup)
            _update_files(study, setup)
        _update_files(study, setup)
        return _result(study, setup)


def _former_defaults(config: Config, folder: Path) -> list[str]:
    """Overrides by which a tuning goes on with the defaults of the time when it began."""
    begun = next(folder.glob("trial-*/config.yaml"), None)
    return [] if begun is None else config.former_defaults(Run.open(begun.parent).config)


def _load(
    config: Config | Mapping[str, Any] | str | Path, fixed: Sequence[str], more: Sequence[str]
) -> Config:
    return load_config(config, [*fixed, *more])


def _check_models(setup: _Setup) -> None:
    """Raise a UserError for a choice of model that cannot be built, before others are trained."""
    from cbir_tf.models import build_embedder

    for parameter in setup.space:
        if isinstance(parameter, Choices) and f"{parameter.key}.".startswith("model."):
            for value in parameter.values:
                override = f"{parameter.key}={value}"
                try:
                    build_embedder(setup.load([override]).model, setup.config.seed)
                except UserError as error:
                    raise UserError(f"{override!r}: {error}") from None
    _free_memory()


def _train_trial(study: optuna.Study, trial: optuna.Trial, setup: _Setup) -> None:
    """Train a trial, from where an interruption left it, and record the result.

    In this process, which takes a second where another one would take ten to load TensorFlow; the
    memory is freed in between.
    """
    values = overrides_of(trial, setup.space)
    logger.info("trial %d: %s", trial.number, ", ".join(values))
    earlier = copy_repeated(study, trial)
    if earlier is not None:
        logger.info("trial %d: has the values of trial %d, and its result", trial.number, earlier)
        return
    try:
        config = setup.load(values)
    except UserError as error:  # two values that exclude each other
        _record_failure(study, trial, error)
        return
    folder = trial_folder(setup.folder, trial.number)
    run = Run(folder, config.model_copy(update={"name": f"{config.name}-{folder.name}"}))
    _train_run(study, trial, run)


def _train_run(study: optuna.Study, trial: optuna.Trial, run: Run) -> None:
    import tensorflow as tf

    with quitting_at_once():
        from cbir_tf.training.callbacks import Diverged, Pruning
        from cbir_tf.training.train_embedder import train_embedder

    monitor = run.config.training.monitor
    try:
        if not run.trained:
            share_image_table(run)
            train_embedder(run, callbacks=[Pruning(monitor, partial(should_prune, trial))])
        record_result(study, trial, read_json(run.training), monitor)
    except (Diverged, tf.errors.ResourceExhaustedError) as error:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        _record_failure(study, trial, error)
    finally:
        _free_memory()


def _record_failure(study: optuna.Study, trial: optuna.Trial, error: Exception) -> None:
    logger.warning("trial %d: %s", trial.number, first_line(error))
    record_failure(study, trial, first_line(error))


def _free_memory() -> None:
    """Free the memory of models that are no longer used."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def _update_files(study: optuna.Study, setup: _Setup) -> None:
    monitor = setup.config.training.monitor
    rows, best = trial_rows(study, setup.space), best_number(study, monitor)
    write_results(setup.folder, rows, best, setup.space, setup.config)
    if not setup.keep_models:
        delete_other_models(setup.folder, rows, best)


def _result(study: optuna.Study, setup: _Setup) -> Tuning:
    rows = trial_rows(study, setup.space)
    if all(row["state"] == "failed" for row in rows):
        raise UserError(
            f"{setup.folder}: none of the {len(rows)} trials could be trained; mend the first: "
            f"{rows[0]['reason']}"
        )
    monitor = setup.config.training.monitor
    return Tuning(
        folder=str(setup.folder),
        monitor=monitor,
        direction="minimize" if lower_is_better(monitor) else "maximize",
        seed=setup.config.seed,
        space={each.key: str(each) for each in setup.space},
        trials=rows,
        best=best_number(study, monitor),
    )
