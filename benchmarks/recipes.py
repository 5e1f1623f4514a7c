"""Train and evaluate configurations with several seeds, and print their metrics as Markdown.

    python benchmarks/recipes.py configs/clothing/mobilenet_v2_035.yaml ... --seeds 0 1 2

Every run calls the commands `cbir train` and `cbir evaluate` (leave-one-out in the test split, and
test against train), each in its own process. An existing run is not trained again, so the program
can be interrupted and started again. docs/results.md shows the last table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PROTOCOLS = {"leave-one-out": "test against test", "test in train": "test against train"}
FIGURES = ("recall@1", "map", "map_at_r")


def main() -> None:
    """Run what is missing, then print a row for every configuration and protocol."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    arguments = parser.parse_args()
    rows = []
    for config in arguments.configs:
        folders = [
            arguments.runs / f"{config.parent.name}-{config.stem}-{seed}"
            for seed in arguments.seeds
        ]
        for seed, folder in zip(arguments.seeds, folders, strict=True):
            _run(config, seed, folder)
        rows += _rows(config, folders)
    print("| configuration | protocol | recall@1 | mAP | MAP@R | minutes to train |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))


def _run(config: Path, seed: int, folder: Path) -> None:
    if not (folder / "model.keras").is_file():
        _call("train", "--config", config, "--run", folder, "--resume", f"seed={seed}")
    measured = folder / "metrics.json"
    done = json.loads(measured.read_text()) if measured.is_file() else {}
    if PROTOCOLS["leave-one-out"] not in done:
        _call("evaluate", "--run", folder, "--gallery", "none")
    if PROTOCOLS["test in train"] not in done:
        _call("evaluate", "--run", folder, "--gallery", "train")


def _call(*command: object) -> None:
    line = [sys.executable, "-m", "cbir_tf", *map(str, command)]
    print(" ".join(line[1:]), file=sys.stderr)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def _rows(config: Path, folders: list[Path]) -> list[str]:
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    seconds = [json.loads((folder / "training.json").read_text())["seconds"] for folder in folders]
    rows = []
    for name, key in PROTOCOLS.items():
        cells = []
        for figure in FIGURES:
            values = np.array([each[key]["figures"][figure] for each in metrics])
            cells.append(f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})")
        rows.append(
            f"| {config.as_posix()} | {name} | {' | '.join(cells)} | {np.mean(seconds) / 60:.1f} |"
        )
    return rows


if __name__ == "__main__":
    main()
