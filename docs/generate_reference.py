"""Writes the reference pages of the site: configuration, command line, and a page a room.

mkdocs-gen-files runs this at every build, so that the pages follow the code.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import keyword
import os
import re
from collections import defaultdict
from pathlib import Path

import mkdocs_gen_files

from cbir_tf.commands.cli import VERBS
from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cbir_tf"
ROOMS = {
    "config": "the configuration: one module a section",
    "storage": "paths, atomic writes and object storage",
    "data": "sources, decoding, augmentation, sampling and batches",
    "losses": "triplet losses and their distances",
    "models": "backbones, heads, weights: the embedder",
    "search": "index back ends behind one protocol",
    "features": "encoder, feature store, filters and classical features",
    "evaluation": "metrics, trec_eval files and comparison: functions of arrays",
    "retrieval": "gallery, query engine, retriever and the steps of a search",
    "training": "objectives, fit, callbacks and checkpoints",
    "plots": "pictures of a run",
    "releases": "the registry of releases, fetching and checking them",
    "publishing": "packing, publishing and exporting releases",
    "tuning": "hyper-parameter tuning",
    "server": "the HTTP service",
}
GENERAL = ("run", "types", "errors", "progress", "parallel")
"""Modules beside the rooms."""


def write(path: str, text: str) -> None:
    """A page of the site."""
    with mkdocs_gen_files.open(path, "w") as page:
        page.write(text)


def cell(text: str) -> str:
    """A text as the cell of a table."""
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def configuration() -> str:
    """A table of keys for each section of the configuration."""
    sections: dict[str, list[str]] = defaultdict(list)
    for line in describe_keys(Config):
        head, *rest = line.split("  ")
        key, _, default = head.partition(" =")
        choices = rest.pop(0) if rest and rest[0].startswith("(") else ""
        meaning = cell(" ".join(rest))
        if choices:
            meaning += "<br>One of: " + cell(choices.strip("()").replace(" | ", ", "))
        section = re.split(r"[.\[]", key)[0] if re.search(r"[.\[]", key) else "general"
        shown = f"`{default.strip()}`" if default.strip() else ""
        sections[section].append(f"| `{key}` | {shown} | {meaning} |")
    pages = [
        "# Configuration",
        "",
        "Every key of a configuration file, with its default. Made from the schema in "
        "`cbir_tf/config/` at every build of this site.",
        "",
        "A file is YAML; a key is a path through its sections: `loss.margin` is `margin` in the "
        "section `loss`. On the command line `section.key=value` sets one. A key written "
        "`loss[triplet_hard].soft` belongs to one choice of its section: "
        "`loss: {name: triplet_hard, soft: true}`. One word is short for a name: `loss: "
        "cross_entropy`. A misspelt key is an error, which names the nearest key.",
    ]
    for section, rows in sections.items():
        pages += ["", f"## {section}", "", "| key | default | meaning |", "| --- | --- | --- |"]
        pages += rows
    return "\n".join(pages) + "\n"


def command_line() -> str:
    """The help of every verb."""
    os.environ["COLUMNS"] = "96"
    pages = [
        "# Command line",
        "",
        "`cbir VERB --help` prints the same. Standard output carries the result, with `--json` "
        "one JSON document and nothing else; standard error carries the progress. Exit status: "
        "0 done; 2 wrong input, with one line that names what is wrong, where, and how to mend "
        "it; 1 anything else. `cbir --version` prints the version. In a checkout `python "
        "train.py`, `python extract.py` and `python search.py` are the first three verbs.",
    ]
    for verb, summary in VERBS.items():
        parser = argparse.ArgumentParser(
            prog=f"cbir {verb}",
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        name = f"{verb}_" if keyword.iskeyword(verb) else verb
        importlib.import_module(f"cbir_tf.commands.{name}").add_arguments(parser)
        note = ""
        if (parser.epilog or "").startswith("keys") or verb == "serve":
            parser.epilog = None
            note = "\nThe keys are those of the [configuration](configuration.md).\n"
        pages += ["", f"## {verb}", note, "```text", parser.format_help().rstrip(), "```"]
        for each in parser._actions:
            if isinstance(each, argparse._SubParsersAction):
                for name, inner in each.choices.items():
                    help_ = inner.format_help().rstrip()
                    pages += ["", f"### {verb} {name}", "", "```text", help_, "```"]
    return "\n".join(pages) + "\n"


def modules(room: str) -> list[str]:
    """The public modules of a room, by dotted name."""
    files = sorted((PACKAGE / room).rglob("*.py"))
    names = [".".join(each.relative_to(ROOT).with_suffix("").parts) for each in files]
    return [name.removesuffix(".__init__") for name in names]


def entry(name: str) -> str:
    """The directive of a module; what a package re-exports stands with its own module."""
    directive = f"\n::: {name}"
    path = ROOT / Path(*name.split(".")) / "__init__.py"
    if not path.is_file():
        return directive
    kinds = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    own = [each.name for each in body if isinstance(each, kinds) and each.name[0] != "_"]
    return f"{directive}\n    options:\n      members: {own}"


def python() -> None:
    """A page for each room, and one that lists them."""
    overview = [
        "# Python",
        "",
        "The names to import from `cbir_tf`:",
        "",
        "```python",
        "from cbir_tf import Config, Run, ImageSet, Embeddings, Gallery, Results, Retriever",
        "from cbir_tf import UserError, train, extract, evaluate",
        "```",
        "",
        "| room | |",
        "| --- | --- |",
    ]
    overview += [f"| [{room}]({room}.md) | {meaning} |" for room, meaning in ROOMS.items()]
    overview += [f"\n::: cbir_tf.{name}" for name in GENERAL]
    write("reference/python/index.md", "\n".join(overview) + "\n")
    for room, meaning in ROOMS.items():
        page = [f"# {room}", "", meaning[0].upper() + meaning[1:] + "."]
        page += [entry(name) for name in modules(room)]
        write(f"reference/python/{room}.md", "\n".join(page) + "\n")


write("reference/configuration.md", configuration())
write("reference/command_line.md", command_line())
python()
