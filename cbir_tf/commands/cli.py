"""The command line: verbs, their arguments, exit statuses and error messages.

Modules that take time to import are imported inside functions, so that a signal in the first
seconds ends a program with one line instead of a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cbir_tf.startup import (
    advising,
    exit_status,
    handle_signals,
    interruption_line,
    quiet_tensorflow,
    quitting_at_once,
    restore_signals,
    write_any_text,
)

# Verb -> summary; the module of the same name in cbir_tf.commands implements it.
VERBS = {
    "train": "train an embedding from a configuration file",
    "tune": "search for the best values of configuration keys, a training for each trial",
    "extract": "embed images into the run's feature store, fit the index, draw the embedding map",
    "galleries": "list the galleries of a run: its own images, and further folders",
    "remove": "take images, a gallery or a folder out of the run's feature store",
    "export": "write the run's vectors with ids, labels and metadata for other tools",
    "import": "read vectors that export wrote into a run of the same encoder",
    "search": "find the images most similar to one or several query images",
    "serve": "search over HTTP, with a web page",
    "calibrate": "set the distance threshold beyond which a query counts as out of the gallery",
    "evaluate": "measure retrieval: recall, precision, mAP, MAP@R with intervals; draw mistakes",
    "inspect": "list likely wrong labels, pictures under two labels, outliers, classes too small",
    "duplicates": "list duplicate images: identical files, scaled or compressed copies",
    "classify": "fit classifiers to the run's vectors and measure them on the test split",
    "compare": "compare runs in one table: quality with intervals, size, speed, differences",
    "release": "pack a run's weights for publication; list, fetch, check and export releases",
}

_ENCODED = "the images encoded so far are kept; repeat the command to go on"
_UNCHANGED = "nothing has changed; repeat the command"
# Verb -> what an interruption of it leaves, and how to go on; `train` and `tune` know better.
ADVICE = {
    "extract": _ENCODED,
    "evaluate": _ENCODED,
    "calibrate": _ENCODED,
    "classify": _ENCODED,
    "compare": _ENCODED,
    "release": "nothing incomplete is left; repeat the command",
}

# Arguments that name runs, and arguments that name files a command writes.
RUNS = ("run", "runs")
OUTPUTS = ("grid", "page", "out", "trec", "to")


def script() -> None:
    """Entry point of the installed `cbir` program."""
    raise SystemExit(program())


def program(verb: str | None = None) -> int:
    """Run the command line as a program; returns its exit status.

    Args:
        verb: verb of a script such as train.py; None: the first argument is the verb.
    """
    handle_signals()
    quiet_tensorflow()
    write_any_text()
    status = main(verb=verb)
    restore_signals()
    return status


def main(argv: Sequence[str] | None = None, verb: str | None = None) -> int:
    """Run one verb; returns the exit status.

    0 success, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 1 any other failure.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        with advising(lambda: ADVICE.get(verb or "".join(argv[:1]), _UNCHANGED)):
            with quitting_at_once():
                from cbir_tf.progress import log_to_standard_error

                parser = _program_parser(argv) if verb is None else _script_parser(verb)
            log_to_standard_error()
            _run(parser, argv)
    except KeyboardInterrupt as interruption:
        from cbir_tf.storage.addresses import as_addresses

        print(f"\n{as_addresses(interruption_line(str(interruption)))}", file=sys.stderr)
        return exit_status(interruption)
    except Exception as error:
        return _failed(error)
    return 0


def _run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    from cbir_tf.storage.remote import synchronized

    arguments, rest = parser.parse_known_args(argv)
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = rest
    with synchronized(_given(arguments, RUNS), _given(arguments, OUTPUTS)):
        arguments.action(arguments)
        sys.stdout.flush()


def _failed(error: Exception) -> int:
    """Report what the user can mend; anything else is raised again, a fault of the program."""
    from cbir_tf.errors import UserError
    from cbir_tf.storage.files import user_errno

    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError) and user_errno(error):
        return _fail(f"{error.filename or 'file'}: {(error.strerror or str(error)).lower()}")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        # How Python has the bytes of a file name that are not UTF-8, where another library refuses.
        return _fail(f"{error.object[:200]}: not a name in UTF-8; rename the file or folder")
    raise error


def _fail(message: str) -> int:
    from cbir_tf.storage.addresses import as_addresses

    line = f"error: {as_addresses(' '.join(message.split()))}"
    # A caller's own standard error may refuse file names that are not UTF-8.
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)
    return 2


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """The paths given for these arguments, one or several for each."""
    values = [getattr(arguments, name, None) or [] for name in names]
    return [path for each in values for path in ([each] if isinstance(each, Path) else each)]


def _script_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of a script such as train.py."""
    parser = argparse.ArgumentParser(description=_sentence(VERBS[verb]), prog=f"{verb}.py")
    parser.add_argument("--version", action=_Version)
    _fill(parser, verb)
    return parser


def _program_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of cbir. Only the module of the verb in `argv` is imported, to save time."""
    parser = argparse.ArgumentParser(prog="cbir", description="Image retrieval with Keras.")
    parser.add_argument("--version", action=_Version)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        inner = verbs.add_parser(verb, help=summary, description=_sentence(summary))
        if verb in argv[:1]:
            _fill(inner, verb)
    return parser


def _fill(parser: argparse.ArgumentParser, verb: str) -> None:
    name = f"{verb}_" if keyword.iskeyword(verb) else verb
    module = importlib.import_module(f"cbir_tf.commands.{name}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    parser.set_defaults(action=module.main, verb=verb)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


class _Version(argparse.Action):
    """Prints the version and exits; the version is looked up only for this option."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        from cbir_tf import __version__

        print(f"cbir-tf {__version__}")
        parser.exit()
