"""tune: search for the best values of configuration keys, one training for each trial."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from cbir_tf.storage.addresses import path_of
from cbir_tf.tuning.folder import RESULTS, trial_folder
from cbir_tf.tuning.from_config import tune

EPILOG = """\
ranges and choices, each in quotes:
  optimizer.learning_rate='1e-5..1e-2 log'    any number in the range, uniform in the logarithm
  model.embedding_size='32..256 step 32'      32, 64, 96, ... 256
  model.dropout=0..0.5                        any number; integers only, if the key is an integer
  loss.margin='0.1|0.2|0.5'                   one of these values
  model.hidden='[]|[512]|[1024, 512]'         values as in the configuration file
Or in a YAML file with --space, a line for each key, choices as a list:
  optimizer.learning_rate: 1e-5..1e-2 log
  model.hidden: [[], [512], [1024, 512]]
section.key=value sets a key for all trials; cbir train --help lists the keys.

The best trial has the highest training.monitor on the validation split (the lowest val_loss); of
equal ones the one with the highest val_map_at_r, then with the lowest val_loss. The test split is
not used. The same command continues an interrupted tuning, and with more --trials it extends a
finished one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = (
        "%(prog)s --config FILE [--trials N] [section.key=RANGE ...] [--space FILE] "
        "[section.key=value ...] [--run DIR]"
    )
    parser.add_argument("--config", type=path_of, required=True, metavar="FILE", help="a YAML file")
    parser.add_argument(
        "--trials", type=_count, default=20, metavar="N", help="number of trials; default: 20"
    )
    parser.add_argument(
        "--space", type=path_of, metavar="FILE", help="a YAML file of ranges and choices by key"
    )
    parser.add_argument(
        "--run", type=path_of, metavar="DIR", help="default: runs/<config name>-tune"
    )
    parser.add_argument(
        "--restart", action="store_true", help="delete the tuning in the folder and begin again"
    )
    parser.add_argument(
        "--no-pruning",
        action="store_true",
        help="train every trial to its end; without this option a trial stops early if its best "
        "epoch is worse than the median of the other trials at the same epoch",
    )
    parser.add_argument(
        "--keep-models",
        action="store_true",
        help="keep the models of all trials; without this option only the best trial's",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(overrides=[])
    parser.epilog = EPILOG


def main(arguments: argparse.Namespace) -> None:
    """Train the trials in turn; print their table, best first, and the best trial's folder."""
    result = tune(
        arguments.config,
        arguments.overrides,
        space=arguments.space,
        trials=arguments.trials,
        run=arguments.run,
        restart=arguments.restart,
        prune=not arguments.no_pruning,
        keep_models=arguments.keep_models,
    )
    document = asdict(result)
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False))
        return
    from cbir_tf.evaluation.table import format_trials

    print(format_trials(document), "", sep="\n")
    folder = Path(result.folder)
    if result.best is not None:
        print(trial_folder(folder, result.best))
    for name in RESULTS:
        if (folder / name).exists():
            print(folder / name)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: should be 1 or more")
    return int(text)


_count.__name__ = "number"  # argparse shows this name in its error
