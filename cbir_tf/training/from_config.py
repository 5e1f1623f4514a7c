"""From a configuration to a trained run: what `cbir_tf.train` and `cbir train` do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir_tf.config import Config
from cbir_tf.config.arguments import flag, mapping, of_kind, texts
from cbir_tf.config.parsing import apply_override
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import advising, import_tensorflow, quitting_at_once
from cbir_tf.storage.addresses import is_mirrored, path_of

if TYPE_CHECKING:
    import keras

LAST = "last.npz"
"""Checkpoint of the last finished epoch."""
EXTENDABLE = ("constant", "warmup_decay")
"""Schedules whose learning rates do not depend on the number of epochs to come."""
_ALL_EPOCHS = "train all epochs with --restart, or in another --run folder"


def train(
    config: Config | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    run: str | Path | None = None,
    resume: bool = False,
    restart: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Train the embedder, or fit the descriptors, of a configuration; keep everything in a run.

    The same as `cbir train`, without its output: nothing is written to standard output, progress
    goes to standard error and to the logger `cbir_tf`. A run that has finished already is returned
    as it is. Keras's random seed is set to config.seed. Messages name the command's options, which
    are the arguments here: --resume is resume=True.

    Args:
        config: a Config, the same keys as a nested mapping, or the path of a YAML file.
        overrides: `section.key=value` each, the value in YAML.
        run: folder of the run, which is made when missing; None: runs/<config.name>.
        resume: continue an interrupted run from its last epoch, bit for bit as if it had not been
            interrupted; training.epochs may be more than at its beginning.
        restart: delete what the run holds and train from the beginning.
        callbacks: further Keras callbacks, which come after the checkpoint of the epoch; not with
            descriptors, which are fitted without epochs.

    Returns:
        The trained run: `run.model`, `run.history`, `run.training`, `run.plots`.

    Raises:
        UserError: unusable configuration, data, model or folder; a folder of another
            configuration; an interrupted run without resume or restart; or a training that
            diverges. One line each: what is wrong, where, and how to mend it.
        KeyboardInterrupt: on Ctrl-C; the finished epochs are kept for resume.

    Example:
        >>> import tempfile
        >>> settings = {
        ...     "name": "digits",
        ...     "data": {"source": "digits", "image_size": 16, "split": {"by": "stratified"}},
        ...     "model": {"backbone": "small_cnn", "options": {"width": 4}, "weights": None},
        ...     "training": {"epochs": 1, "steps_per_epoch": 2},
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(settings, ["loss.margin=0.1"], run=folder)
        ...     run.trained, run.config.loss.margin
        (True, 0.1)
    """
    config = load_config(config, overrides)
    resume, restart = flag(resume, "resume"), flag(restart, "restart")
    callbacks = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    if resume and restart:
        raise UserError("resume and restart: an interrupted run is continued or replaced; give one")
    if callbacks and config.descriptors:
        raise UserError("callbacks: descriptors are fitted without epochs; leave callbacks out")
    folder = _folder(run, config)
    if not restart:
        config = as_begun(config, folder)
    longer = resume and _only_more_epochs(folder, config)
    target = Run.at(folder, config, replace=restart or longer)
    if target.trained and not restart:
        logger.info("%s: already trained; use --restart to train it again", folder)
        return target
    checkpoint = target.checkpoints / LAST
    if checkpoint.is_file() and not (resume or restart):
        raise UserError(
            f"{folder}: holds an interrupted run; continue it with --resume, or begin again with "
            "--restart"
        )
    if resume and not checkpoint.is_file():
        logger.info("%s: no checkpoint to resume from; starting from the beginning", folder)
    before = _written(target)
    with advising(lambda: _kept(target, restart, restart and _written(target) == before)):
        import_tensorflow()
        with quitting_at_once():
            import keras

            for each in callbacks:
                of_kind(each, keras.callbacks.Callback, "callbacks", "Keras callbacks")
            from cbir_tf.training.train_descriptors import train_descriptors
            from cbir_tf.training.train_embedder import train_embedder
        if config.descriptors:
            train_descriptors(target, restart)
        else:
            train_embedder(target, restart, callbacks)
    return target


def _written(run: Run) -> int | None:
    """When the configuration of the run was written, in nanoseconds; None: it is not there."""
    return run.config_file.stat().st_mtime_ns if run.config_file.is_file() else None


def _kept(run: Run, restart: bool, unchanged: bool) -> str:
    """What an interruption leaves of a training, and how to go on."""
    if unchanged:
        return "nothing has changed; repeat the command"
    if run.trained:
        return f"the run in {run.folder} is complete"
    if (run.checkpoints / LAST).is_file():
        instead = " in place of --restart" if restart else ""
        return f"the finished epochs are kept in {run.folder}; continue with --resume{instead}"
    return "no epoch is finished; repeat the command"


def load_config(
    config: Config | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()
) -> Config:
    """A configuration from a Config, a mapping or a YAML file, with overrides applied.

    Raises:
        UserError: missing or unreadable file, unknown key, wrong type or impossible value.

    Example:
        >>> load_config({"data": {"source": "digits"}}, ["loss.margin=0.1"]).loss.margin
        0.1
    """
    overrides = texts(overrides, "overrides")
    if isinstance(config, (str, Path)):
        return Config.load(config, overrides)
    if isinstance(config, Config):
        if not overrides:
            return config
        config = config.model_dump(mode="json")
    mapping(config, "config", "a Config, its sections, or the path of a YAML file")
    values = dict(config)
    for override in overrides:
        apply_override(values, override)
    return Config.check(values)


def as_begun(config: Config, folder: Path) -> Config:
    """A configuration with the defaults of the time at which the run in a folder, if any, began.

    Raises:
        UserError: the configuration of that run could not be read.
    """
    if not (folder / "config.yaml").is_file():
        return config
    former = config.former_defaults(Run.open(folder).config)
    return load_config(config, former) if former else config


def _folder(run: str | Path | None, config: Config) -> Path:
    if run is None:
        if not config.name:
            raise UserError("name: is empty, so the run has no folder; set it, or give run")
        return Path("runs") / config.name
    folder = path_of(run)
    if isinstance(run, str) and is_mirrored(folder):
        raise UserError(
            f"{run}: train() writes to a local folder; for S3 use cbir train --run {run}"
        )
    return folder


def _only_more_epochs(folder: Path, config: Config) -> bool:
    """Whether a run is to have more epochs than at its beginning, and everything else is equal.

    Raises:
        UserError: it is so, but the run has finished, or its learning rates depend on the epochs.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = Run.open(folder)
    begun, wanted = run.config.training.epochs, config.training.epochs
    training = config.training.model_copy(update={"epochs": begun})
    if wanted <= begun or config.model_copy(update={"training": training}) != run.config:
        return False
    if run.trained:
        reason = f"has finished its training, and its optimizer state is not kept; {_ALL_EPOCHS}"
    elif config.schedule.name not in EXTENDABLE:
        reason = (
            f"its learning rates are planned from the beginning ({config.schedule.name}); "
            f"resume without training.epochs={wanted}, or {_ALL_EPOCHS}"
        )
    else:
        return True
    raise UserError(f"{folder}: {reason}")
