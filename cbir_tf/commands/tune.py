"""tune: a search for the best values of configuration keys, a training for each trial."""

from __future__ import annotations

import argparse
import csv
import gc
import io
import json
import shutil
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.commands.train import train
from cbir_tf.config import Config
from cbir_tf.errors import UserError, first_line
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json, write_text
from cbir_tf.storage.remote import local
from cbir_tf.tuning.space import Choices, Load, Space, make_space, split_overrides, written_space
from cbir_tf.tuning.study import (
    DATABASE,
    best_number,
    check_installed,
    fail,
    finish,
    hopeless,
    lower_is_better,
    next_trial,
    open_study,
    overrides,
    sole_use,
    take_over_repeated,
    trial_rows,
)

if TYPE_CHECKING:
    import optuna

BEST = "best.yaml"
MADE = (BEST, "trials.csv", "plots/trials.png")

EPILOG = """\
what to search, each in quotes:
  optimizer.learning_rate='1e-5..1e-2 log'    any number between, every factor as likely
  model.embedding_size='32..256 step 32'      32, 64, 96, ... 256
  model.dropout=0..0.5                        any number; of keys of whole numbers, any whole one
  loss.margin='0.1|0.2|0.5'                   one of these
  model.hidden='[]|[512]|[1024, 512]'         anything that may stand in the file
Or in a YAML file with --space, a line a key, choices as a list:
  optimizer.learning_rate: 1e-5..1e-2 log
  model.hidden: [[], [512], [1024, 512]]
section.key=value sets a key for all trials; train.py --help lists the keys.

What is searched for is the highest training.monitor on the validation split (the lowest, if it is
val_loss). The test split is not looked at. The same command goes on with an interrupted search,
and with more --trials adds to a finished one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = (
        "%(prog)s --config FILE [--trials N] [section.key=RANGE ...] [--space FILE] "
        "[section.key=value ...] [--run DIR]"
    )
    parser.add_argument("--config", type=path_of, required=True, metavar="FILE", help="a YAML file")
    parser.add_argument(
        "--trials", type=_count, default=20, metavar="N", help="in all; default: 20"
    )
    parser.add_argument(
        "--space", type=path_of, metavar="FILE", help="a YAML file of what to search"
    )
    parser.add_argument(
        "--run", type=path_of, metavar="DIR", help="default: runs/<config name>-tune"
    )
    parser.add_argument("--restart", action="store_true", help="replace the search in the folder")
    parser.add_argument(
        "--no-pruning",
        action="store_true",
        help="train every trial to its end; otherwise those are ended early whose best epoch is "
        "worse than the median of the others at that epoch",
    )
    parser.add_argument(
        "--keep-models",
        action="store_true",
        help="keep the model of every trial; otherwise the best one's only",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(overrides=[])
    parser.epilog = EPILOG


def main(arguments: argparse.Namespace) -> None:
    """Train trial after trial; prints their table, best first, and where the best one is."""
    check_installed()
    searched, fixed = split_overrides(arguments.overrides)
    config = Config.load(arguments.config, fixed)
    space_file = None if arguments.space is None else local(arguments.space)
    written = written_space(searched, fixed, space_file)
    space = make_space(written, partial(_load, arguments, fixed))
    folder = arguments.run or Path("runs") / f"{config.name}-tune"
    _check_folder(folder)
    with sole_use(folder):
        if arguments.restart:
            _clear(folder, config)
        study = open_study(folder, config, space, not arguments.no_pruning)
        import_tensorflow()
        if not study.get_trials(deepcopy=False):
            _try_models(config, space, partial(_load, arguments, fixed))
        try:
            while trial := next_trial(study, space, config.seed, arguments.trials):
                _one_trial(study, trial, space, _trial_run(folder, arguments, fixed, trial, space))
                _conclude(folder, study, space, config, arguments.keep_models)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from here") from None
        _conclude(folder, study, space, config, arguments.keep_models)
        _print(folder, study, space, config, arguments.json)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: one at least")
    return int(text)


_count.__name__ = "number"  # as argparse names it in its error


def _load(arguments: argparse.Namespace, fixed: Sequence[str], more: Sequence[str]) -> Config:
    return Config.load(arguments.config, [*fixed, *more])


def _check_folder(folder: Path) -> None:
    """Raise a UserError for a folder that holds something else."""
    if (folder / DATABASE).is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(not each.name.startswith(".lock") for each in folder.iterdir()):
        raise UserError(f"{folder}: exists and is no search; choose another --run folder")


def _trials(folder: Path) -> list[Path]:
    return sorted(folder.glob("trial-*[0-9]"))


def _clear(folder: Path, config: Config) -> None:
    """Delete what the search has made, and nothing else that lies in its folder."""
    for each in _trials(folder):
        Run(each, config).clear()
        with suppress(OSError):
            each.rmdir()
    # The study goes last: while it is there, the folder is known as a search.
    for name in (*MADE, f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / "plots").rmdir()


def _try_models(config: Config, space: Space, load: Load) -> None:
    """Raise a UserError for a choice of model that cannot be built, before others are trained."""
    from cbir_tf.models import build_embedder

    for parameter in space:
        if isinstance(parameter, Choices) and f"{parameter.key}.".startswith("model."):
            for value in parameter.values:
                override = f"{parameter.key}={value}"
                try:
                    build_embedder(load([override]).model, config.seed)
                except UserError as error:
                    raise UserError(f"{override!r}: {error}") from None
    _forget()


def _trial_run(
    folder: Path,
    arguments: argparse.Namespace,
    fixed: Sequence[str],
    trial: optuna.Trial,
    space: Space,
) -> Run | UserError:
    """The run of a trial, or why there can be none."""
    number = f"trial-{trial.number:03d}"
    try:
        config = _load(arguments, fixed, overrides(trial, space))
    except UserError as error:  # of two values that do not go together
        return error
    config = config.model_copy(update={"name": f"{config.name}-{number}"})
    return Run(folder / number, config)


def _one_trial(
    study: optuna.Study, trial: optuna.Trial, space: Space, run: Run | UserError
) -> None:
    """Train a trial, from where an interruption left it, and note what came of it.

    In this process, which takes a second where another would take ten to load TensorFlow; the
    memory is given back in between.
    """
    import tensorflow as tf

    from cbir_tf.training.callbacks import Diverged, Pruning

    logger.info("trial %d: %s", trial.number, ", ".join(overrides(trial, space)))
    earlier = take_over_repeated(study, trial)
    if earlier is not None:
        logger.info("trial %d: tried before, as trial %d", trial.number, earlier)
        return
    try:
        if isinstance(run, UserError):
            raise run
        if not run.trained:
            _share_image_table(run)
            monitor = run.config.training.monitor
            train(run, further=[Pruning(monitor, partial(hopeless, trial))])
        finish(study, trial, read_json(run.training), run.config.training.monitor)
    except (Diverged, tf.errors.ResourceExhaustedError) as error:
        assert isinstance(run, Run)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        _failed(study, trial, error)
    except UserError as error:
        if error is not run:
            raise
        _failed(study, trial, error)
    finally:
        _forget()


def _failed(study: optuna.Study, trial: optuna.Trial, error: Exception) -> None:
    logger.warning("trial %d: %s", trial.number, first_line(error))
    fail(study, trial, first_line(error))


def _forget() -> None:
    """Give back the memory of models that are no longer used."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def _share_image_table(run: Run) -> None:
    """Spare a trial the look at every image, where another has looked at the same ones."""

    def needs_labels(config: Config) -> bool:
        return config.loss.name != "reconstruction"

    for folder in _trials(run.folder.parent) if not run.images.exists() else []:
        table = folder / run.images.name
        if not ((folder / "config.yaml").is_file() and table.is_file()):
            continue
        if needs_labels(Run.open(folder).config) == needs_labels(run.config):
            write_text(run.images, table.read_text(encoding="utf-8"))
            return


def _conclude(
    folder: Path, study: optuna.Study, space: Space, config: Config, keep_models: bool
) -> None:
    """Bring the files that tell of the search up to date; delete the models that lost."""
    from cbir_tf.plots.trials import trials_plot

    best = best_number(study)
    rows = trial_rows(study, space)
    write_text(folder / "trials.csv", _csv(rows, space, config.training.monitor))
    trials_plot(folder / "plots" / "trials.png", rows, space, config.training.monitor)
    for row in rows if not keep_models else []:
        if row["number"] != best and row["state"] != "running":
            run = Run(folder / f"trial-{row['number']:03d}", config)
            for model in (run.model, run.classifier, run.autoencoder):
                model.unlink(missing_ok=True)
    if best is not None:
        write_text(folder / BEST, _best_config(folder, rows[best], len(rows), config))


def _best_config(folder: Path, row: dict[str, Any], trials: int, config: Config) -> str:
    run = Run.open(folder / f"trial-{row['number']:03d}")
    named = run.config.model_copy(update={"name": f"{config.name}-best"})
    parameters = ", ".join(f"{key}={value}" for key, value in row["parameters"].items())
    told = (
        f"The best of {trials} trials of `cbir tune` over {config.name} by "
        f"{config.training.monitor} on the validation split: trial {row['number']} with "
        f"{row['value']:.4f}, at epoch {row['best_epoch']} of {row['epochs']}. {parameters}. As "
        "the best of several it is flattered; measure it on the test split."
    )
    lines = textwrap.wrap(told, 98, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines) + named.dump()


def _csv(rows: Sequence[dict[str, Any]], space: Space, monitor: str) -> str:
    columns = ["trial", "state", monitor, *(each.key for each in space)]
    columns += ["epochs", "best_epoch", "seconds", "repeats", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | row["parameters"] | {"trial": row["number"], monitor: row["value"]})
    return text.getvalue()


def _print(folder: Path, study: optuna.Study, space: Space, config: Config, as_json: bool) -> None:
    from cbir_tf.evaluation.table import format_trials

    rows, best = trial_rows(study, space), best_number(study)
    if all(row["state"] == "failed" for row in rows):
        raise UserError(
            f"{folder}: none of the {len(rows)} trials could be trained; the first: "
            f"{rows[0]['reason']}"
        )
    document = {
        "folder": str(folder),
        "monitor": config.training.monitor,
        "direction": "minimize" if lower_is_better(config) else "maximize",
        "seed": config.seed,
        "space": {each.key: str(each) for each in space},
        "trials": rows,
        "best": best,
    }
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
        return
    print(format_trials(document), "", sep="\n")
    if best is not None:
        print(folder / f"trial-{best:03d}")
    for name in MADE:
        if (folder / name).exists():
            print(folder / name)
