"""How a program starts: what it imports, its version, and arguments that cannot be parsed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cbir_tf
from cbir_tf.commands.cli import VERBS, main

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_lists_every_verb_and_imports_none():
    program = (
        "import sys\n"
        "from cbir_tf.commands.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    heavy = {'numpy', 'pydantic', 'keras', 'tensorflow'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"\n    {verb}" in done.stdout


def test_help_of_a_verb_waits_for_no_tensorflow():
    program = (
        "import sys\n"
        "from cbir_tf.commands.cli import VERBS, main\n"
        "for verb in VERBS:\n"
        "    try:\n"
        "        main([verb, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, verb\n"
        "    assert not {'keras', 'tensorflow'} & set(sys.modules), verb\n"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: cbir ") == len(VERBS)


def test_cbir_and_the_scripts_tell_the_same_version():
    version = f"cbir-tf {cbir_tf.__version__}\n"
    for program in (["-m", "cbir_tf"], ["train.py"], ["extract.py"], ["search.py"]):
        assert run(*program, "--version").stdout == version


@pytest.mark.parametrize(
    "arguments", [[], ["trian"], ["compare"], ["duplicates", "--images", "a", "--none"]]
)
def test_a_command_line_that_cannot_be_parsed_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert ": error: " in error.splitlines()[-1]
