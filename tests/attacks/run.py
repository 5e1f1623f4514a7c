"""Attack a service and print what each attack did to another client, to memory and to Ctrl-C.

    python -m tests.attacks.run [--seconds 6] [--only searches wrong_keys] [--run DIR]

Each attack meets a service of its own, of a small run made for it. Another client, with an address
of its own, searches by id and by picture; its median is divided by what it was before the attack.
Memory is that of the service and its processes. Ctrl-C is pressed while the attack goes on; it may
take `server.request_timeout`, 30 s. Prints a table in Markdown. All traffic stays on this machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.attacks import ATTACKS
from tests.attacks.served import Served, ask, attacked, make_run, serving


@dataclass(frozen=True)
class Outcome:
    """What an attack did.

    Attributes:
        by_id, by_picture: another client's median, by what it was without the attack.
        refused: answers other than 200 to that client, of `asked`.
        memory: most megabytes during the attack, by those before.
        after: megabytes some seconds after it, by those before.
        ctrl_c: seconds until the service had ended.
        quiet: another client's medians without the attack, in seconds.
        statuses: what the attacker was answered; 0: a closed connection.
    """

    by_id: float
    by_picture: float
    refused: int
    asked: int
    memory: float
    after: float
    ctrl_c: float
    quiet: tuple[float, float]
    statuses: Counter


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of each attack")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--run", type=Path, help="folder of a run made by this program before")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or make_run(Path(folder)).folder
        print(
            "| attack | by id | by picture | refused | memory | after | Ctrl-C |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            sep="\n",
            flush=True,
        )
        for name in arguments.only:
            copy = Path(shutil.copytree(run, Path(folder) / name))
            outcome = measure(copy, name, arguments.seconds)
            print(row(name, outcome), flush=True)
            quiet = [f"{1e3 * each:.0f}" for each in outcome.quiet]
            print(
                f"{name}: {' and '.join(quiet)} ms before it; answered {dict(outcome.statuses)}",
                file=sys.stderr,
                flush=True,
            )


def row(name: str, outcome: Outcome) -> str:
    """A line of the table."""
    return (
        f"| {name.replace('_', ' ')} | {outcome.by_id:.1f} | {outcome.by_picture:.1f} "
        f"| {outcome.refused} of {outcome.asked} | {outcome.memory:.2f} | {outcome.after:.2f} "
        f"| {outcome.ctrl_c:.1f} s |"
    )


def measure(folder: Path, name: str, seconds: float) -> Outcome:
    """One attack on a service of its own."""
    with serving(folder) as served, ThreadPoolExecutor(1) as pool:
        ask(served.port, 1)
        quiet = ask(served.port, seconds).medians()
        before = served.megabytes()
        with attacked(served, name) as statuses:
            time.sleep(1)
            watching = pool.submit(most_megabytes, served, seconds)
            felt = ask(served.port, seconds)
            most = watching.result()
        time.sleep(3)
        after = served.megabytes()
        with attacked(served, name):
            time.sleep(1)
            ctrl_c = served.interrupt()
    during = felt.medians()
    return Outcome(
        during[0] / quiet[0],
        during[1] / quiet[1],
        felt.refused,
        len(felt.by_id) + len(felt.by_picture),
        most / before,
        after / before,
        ctrl_c,
        quiet,
        statuses,
    )


def most_megabytes(served: Served, seconds: float) -> float:
    """The most memory in some seconds."""
    most, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        most = max(most, served.megabytes())
        time.sleep(0.1)
    return most


if __name__ == "__main__":
    main()
