"""train: train an embedder, or fit classical features, from a configuration file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys
from cbir_tf.errors import UserError
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json
from cbir_tf.storage.remote import local
from cbir_tf.training.from_config import train
from cbir_tf.training.recipe import recipe_for

MONITORED = ("val_loss", "val_accuracy", "val_recall@1", "val_map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.usage = (
        "%(prog)s (PHOTOS | --config FILE) [section.key=value ...] [--run DIR] [--resume]"
    )
    parser.add_argument(
        "photos",
        nargs="?",
        metavar="PHOTOS",
        help="a folder of class folders, or a manifest, to be trained on without a configuration "
        "file; the one used is kept in the run",
    )
    parser.add_argument("--config", type=path_of, metavar="FILE", help="a YAML file")
    parser.add_argument("--run", type=path_of, metavar="DIR", help="default: runs/<config name>")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run; training.epochs may be larger than before",
    )
    again.add_argument(
        "--restart", action="store_true", help="delete the run in the folder and begin again"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(overrides=[])
    parser.epilog = "\n".join(
        ["keys of the configuration:", *(f"  {key}" for key in describe_keys(Config))]
    )


def main(arguments: argparse.Namespace) -> None:
    """Train, save, draw the curves; print the best epoch and the files."""
    photos, overrides = arguments.photos, arguments.overrides
    if photos is not None and "=" in photos and not path_of(photos).exists():
        photos, overrides = None, [photos, *overrides]
    if (photos is None) == (arguments.config is None):
        raise UserError("give either a folder of pictures or --config FILE")
    run = train(
        arguments.config or recipe_for(local(photos)),
        overrides,
        run=arguments.run,
        resume=arguments.resume,
        restart=arguments.restart,
    )
    report = read_json(run.training)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
        return
    print(_descriptors(report) if run.config.descriptors else _best_epoch(report))
    for path in (run.model, run.history, *sorted(run.plots.glob("*.png"))):
        if path.exists():
            print(path)


def _best_epoch(report: dict[str, Any]) -> str:
    best = report["best"]
    metrics = "".join(f", {name} {best[name]:.4f}" for name in MONITORED if name in best)
    if not report["epochs"]:
        return "not trained, as training.epochs is 0"
    return f"epoch {report['best_epoch']} of {report['epochs']} is the best{metrics}"


def _descriptors(report: dict[str, Any]) -> str:
    """The fitted descriptors, a line for each."""
    lines = []
    for each in report["descriptors"]:
        scores = each.get("davies_bouldin", {})
        chosen = f", {each['words']} words" if scores else ""
        if len(scores) > 1:
            tried = ", ".join(f"{size}: {score:.3f}" for size, score in scores.items())
            chosen += f" (Davies-Bouldin index {tried})"
        lines.append(f"{each['name']}: {each['dimensions']} dimensions{chosen}")
    return "\n".join([*lines, f"{report['dimensions']} dimensions in all"])
