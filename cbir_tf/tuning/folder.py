"""The folder of a tuning: its lock, the runs of its trials, and the files that show the result.

study.db, trials.csv, best.yaml, plots/trials.png, trial-000/, trial-001/, ...
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cbir_tf.config import Config
from cbir_tf.config.ranges import Space
from cbir_tf.errors import UserError
from cbir_tf.run import Run
from cbir_tf.storage.files import cannot_write, write_text
from cbir_tf.tuning.study import DATABASE, TrialRow

BEST = "best.yaml"
RESULTS = (BEST, "trials.csv", "plots/trials.png")
_LOCK = ".lock"


def trial_folder(folder: Path, number: int) -> Path:
    """The folder of the run of a trial."""
    return folder / f"trial-{number:03d}"


def check_folder(folder: Path) -> None:
    """Raise a UserError for a folder that holds files but no tuning."""
    if (folder / DATABASE).is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(not each.name.startswith(_LOCK) for each in folder.iterdir()):
        raise UserError(f"{folder}: holds files but no tuning; choose another --run folder")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from tuning in a folder; the lock ends with the process.

    Raises:
        UserError: another process is tuning there, or the folder cannot be written to.
    """
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another process is tuning here; wait for it, or choose another --run folder"
        ) from None
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def clear(folder: Path, config: Config) -> None:
    """Delete the files of a tuning, and no other file of its folder."""
    for each in _trial_folders(folder):
        Run(each, config).clear()
        with suppress(OSError):
            each.rmdir()
    # The study is deleted last: the folder is recognised as a tuning by it.
    for name in (*RESULTS, f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / "plots").rmdir()


def share_image_table(run: Run) -> None:
    """Copy images.csv from another trial over the same images, which saves their inspection."""
    if run.images.exists():
        return
    for folder in _trial_folders(run.folder.parent):
        table = folder / run.images.name
        if not ((folder / "config.yaml").is_file() and table.is_file()):
            continue
        if _needs_labels(Run.open(folder).config) == _needs_labels(run.config):
            write_text(run.images, table.read_text(encoding="utf-8"))
            return


def write_results(
    folder: Path, rows: Sequence[TrialRow], best: int | None, space: Space, config: Config
) -> None:
    """Write trials.csv, plots/trials.png and, once a trial is complete, best.yaml.

    Args:
        folder: of the tuning.
        rows: of all trials.
        best: number of the best trial.
        space: of the tuned keys.
        config: without the tuned values.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    from cbir_tf.plots.trials import trials_plot  # here, as the command line waits for imports

    monitor = config.training.monitor
    write_text(folder / "trials.csv", _csv(rows, space, monitor))
    trials_plot(folder / "plots" / "trials.png", rows, space, monitor, best)
    if best is not None:
        write_text(folder / BEST, _best_config(folder, rows[best], len(rows), config))


def delete_other_models(folder: Path, rows: Sequence[TrialRow], best: int | None) -> None:
    """Delete the models of all trials that have ended, except the best one's."""
    for row in rows:
        if row["number"] != best and row["state"] != "running":
            for name in ("model.keras", "classifier.keras", "autoencoder.keras"):
                (trial_folder(folder, row["number"]) / name).unlink(missing_ok=True)


def _trial_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("trial-*[0-9]"))


def _needs_labels(config: Config) -> bool:
    return config.loss.name != "reconstruction"


def _csv(rows: Sequence[TrialRow], space: Space, monitor: str) -> str:
    columns = ["trial", "state", monitor, *(each.key for each in space)]
    columns += ["epochs", "best_epoch", "seconds", "repeats", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        trial: dict[str, object] = {"trial": row["number"], monitor: row["value"]}
        writer.writerow({**row, **row["parameters"], **trial})
    return text.getvalue()


def _best_config(folder: Path, row: TrialRow, trials: int, config: Config) -> str:
    run = Run.open(trial_folder(folder, row["number"]))
    renamed = run.config.model_copy(update={"name": f"{config.name}-best"})
    parameters = ", ".join(f"{key}={value}" for key, value in row["parameters"].items())
    comment = (
        f"The best of {trials} trials of `cbir tune` over {config.name} by "
        f"{config.training.monitor} on the validation split: trial {row['number']} with "
        f"{row['value']:.4f}, at epoch {row['best_epoch']} of {row['epochs']}. {parameters}. As "
        "the best of several trials this value is optimistic; measure it on the test split."
    )
    lines = textwrap.wrap(comment, 98, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines) + renamed.dump()
