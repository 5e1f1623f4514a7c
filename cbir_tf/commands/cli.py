"""The command line: one verb, its arguments, and how a failure is told."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cbir_tf.errors import UserError
from cbir_tf.progress import log_to_standard_error
from cbir_tf.startup import quitting_at_once
from cbir_tf.storage.addresses import as_addresses
from cbir_tf.storage.files import user_errno
from cbir_tf.storage.remote import synchronized

# Verb -> what it does; the module of the same name in cbir_tf.commands does it.
VERBS = {
    "train": "train an embedding from a configuration file",
    "tune": "search for the best values of configuration keys, a training for each trial",
    "extract": "embed images into the run's feature store, fit the index, draw the embedding map",
    "search": "find the images most like one image",
    "serve": "answer searches over HTTP, with a page to search from",
    "calibrate": "set the distance from which on search says that nothing matches",
    "evaluate": "measure retrieval: recall, precision, mAP, MAP@R with intervals; draw mistakes",
    "duplicates": "list images that are there again, in the same bytes or scaled; draw them",
    "classify": "fit classifiers to the run's vectors and measure them on the test split",
    "compare": "several runs in one table: quality with intervals, size, speed, differences",
    "release": "pack a run's weights to be published; list, fetch, check and export them",
}

# Arguments whose files a command makes or changes.
RUNS = ("run", "runs")
OUTPUTS = ("grid", "out", "trec", "to")


def main(argv: Sequence[str] | None = None, verb: str | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 2 wrong input, 1 anything else."""
    with quitting_at_once():
        parser = _parser(verb)
    log_to_standard_error()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if rest and not hasattr(arguments, "overrides"):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides = rest
        with synchronized(_given(arguments, RUNS), _given(arguments, OUTPUTS)):
            arguments.action(arguments)
            sys.stdout.flush()
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt as interruption:
        print("\n" + "; ".join(["interrupted", *interruption.args]), file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if user_errno(error):
            return _fail(f"{error.filename or 'file'}: {(error.strerror or str(error)).lower()}")
        raise
    return 0


def _fail(message: str) -> int:
    print(f"error: {as_addresses(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """The paths given for some arguments, each of which may take several."""
    values = [getattr(arguments, name, None) or [] for name in names]
    return [path for each in values for path in ([each] if isinstance(each, Path) else each)]


def _parser(verb: str | None) -> argparse.ArgumentParser:
    if verb is not None:
        parser = argparse.ArgumentParser(description=_sentence(VERBS[verb]), prog=f"{verb}.py")
        _fill(parser, verb)
        return parser
    parser = argparse.ArgumentParser(prog="cbir", description="Image retrieval with Keras.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, summary in VERBS.items():
        _fill(verbs.add_parser(name, help=summary, description=_sentence(summary)), name)
    return parser


def _fill(parser: argparse.ArgumentParser, verb: str) -> None:
    module = importlib.import_module(f"cbir_tf.commands.{verb}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    parser.set_defaults(action=module.main, verb=verb)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
