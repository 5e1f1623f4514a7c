"""Ctrl-C and SIGTERM in the cbir program: one line that says what is kept, and the status."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cbir_tf import startup
from cbir_tf.commands.cli import VERBS

ROOT = Path(__file__).parents[2]
SIGNALS = pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# Every verb in turn, each hit by the signal where its work would begin; then the same while
# something is imported, which ends the process.
EVERY_VERB = """
import importlib, keyword, os, signal, sys
from cbir_tf import startup
from cbir_tf.commands import cli

number = getattr(signal, sys.argv[1])
for verb in cli.VERBS:
    name = verb + "_" * keyword.iskeyword(verb)
    module = importlib.import_module(f"cbir_tf.commands.{name}")
    module.add_arguments = lambda parser: None
    module.main = lambda arguments: signal.raise_signal(number)
    sys.argv[1:] = [verb]
    startup._Signals.first = None
    print(verb, cli.program(), flush=True)

def imported(name):
    print("importing", flush=True)
    signal.raise_signal(number)

cli.importlib.import_module = imported
sys.argv[1:] = ["extract", "--run", "r"]
startup._Signals.first = None
print(cli.program())
"""


@SIGNALS
def test_every_verb_says_in_one_line_what_is_kept_and_how_to_go_on(name, status):
    done = python(EVERY_VERB, name)
    assert done.stdout.split() == [
        *(word for verb in VERBS for word in (verb, str(status))),
        "importing",
    ]
    assert done.returncode == status
    lines = [each for each in done.stderr.splitlines() if each]
    assert len(lines) == len(VERBS) + 1
    for line in lines:
        assert line.startswith("interrupted; ")
        assert "kept" in line or "nothing" in line
        assert "repeat the command" in line


UNTIMELY = """
import signal, sys, time
from cbir_tf import startup
from cbir_tf.commands import cli, serve

def main(arguments):
    {body}

serve.main = main
sys.argv[1:] = ["serve", "--run", "r"]
raise SystemExit(cli.program())
"""
SWALLOWED = """
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise ImportError("numpy.core.multiarray failed to import")
"""
TWICE = """
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)  # as a launcher passes it on
        print("cleaned up", flush=True)
"""
STUCK = """
    startup.PATIENCE = 0.05
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        print("never")
"""


@pytest.mark.parametrize(
    ("body", "status", "output"),
    [(SWALLOWED, 143, ""), (TWICE, 130, "cleaned up\n"), (STUCK, 130, "")],
    ids=["turned into another error", "passed on by a launcher", "while cleaning up for long"],
)
def test_an_interruption_stays_one(body, status, output):
    done = python(UNTIMELY.format(body=body))
    assert (done.returncode, done.stdout) == (status, output)
    assert "interrupted; " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_that_is_to_be_ignored_stays_ignored():
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    body = "\n    signal.raise_signal(signal.SIGINT)\n    print('done')\n"
    done = python(ignoring + UNTIMELY.format(body=body))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_user_s_own_program_keeps_its_signals():
    before = [signal.getsignal(each) for each in startup.STATUS]
    with (
        pytest.raises(KeyboardInterrupt, match="2 are kept"),
        startup.advising(lambda: "2 are kept"),
        startup.quitting_at_once(),
    ):
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in startup.STATUS] == before


def test_the_inner_advice_goes_first():
    with (
        pytest.raises(startup.Terminated, match=r"^inner$"),
        startup.advising(lambda: "outer"),
        startup.advising(lambda: "inner"),
    ):
        raise startup.Terminated
