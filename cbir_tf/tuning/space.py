"""The configurations that a search chooses from: ranges and choices of keys, checked beforehand."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from cbir_tf.config import Config
from cbir_tf.config.parsing import flat, read_yaml
from cbir_tf.errors import UserError, nearest

EXAMPLES = 50
"""So many values of a range are checked before anything is trained."""
COMBINATIONS = 200
"""So many combinations of the ends of ranges and the choices, too."""
SYNTAX = "write low..high, 'low..high log', 'low..high step N' or a|b|c"

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s+(\S.*?))?\s*")

# What the trials are measured by is the same for all, or the best would be the one measured best.
_MEASURED_BY = (
    "name",
    "seed",
    "data.source",
    "data.path",
    "data.annotations",
    "data.coco",
    "data.dataset",
    "data.split",
    "training.monitor",
)
_AFTERWARDS = ("descriptors", "search", "evaluation", "plots")
_IN_TRAINING = "search.metric"  # validation figures are measured with it

Load = Callable[[Sequence[str]], Config]
"""`section.key=value` overrides -> the configuration with them."""


@dataclass(frozen=True)
class Range:
    """All numbers from low to high, both included.

    Attributes:
        key: of the configuration, dotted.
        low, high: the ends; low < high.
        step: from one number to the next; None: any number, any whole one where whole.
        log: every factor is as likely as any other, not every difference.
        whole: whole numbers only.
    """

    key: str
    low: float
    high: float
    step: float | None
    log: bool
    whole: bool

    @property
    def count(self) -> float:
        """How many values there are."""
        if self.step is None and not self.whole:
            return math.inf
        return round((self.high - self.low) / (self.step or 1)) + 1

    def examples(self) -> list[str]:
        """Both ends and values between them, as the configuration file has them."""
        count = int(min(self.count, EXAMPLES))
        places = [number / (count - 1) for number in range(count)]
        if self.count > EXAMPLES:
            values = [self.low + place * (self.high - self.low) for place in places]
        else:
            values = [self.low + number * (self.step or 1) for number in range(count)]
        values[-1] = self.high
        return [str(round(each)) if self.whole else repr(each) for each in values]

    def ends(self) -> list[str]:
        """The lowest and the highest value."""
        return [self.examples()[0], self.examples()[-1]]

    def __str__(self) -> str:
        step = "" if self.step is None else f" step {self.step}"
        return f"{self.low}..{self.high}{step}{' log' * self.log}"


@dataclass(frozen=True)
class Choices:
    """Some values, written as the configuration file has them.

    Attributes:
        key: of the configuration, dotted.
        values: YAML of each; all different.
    """

    key: str
    values: tuple[str, ...]

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.values)

    def examples(self) -> list[str]:
        """All of them."""
        return list(self.values)

    ends = examples

    def __str__(self) -> str:
        return "|".join(self.values)


Parameter = Range | Choices
Space = tuple[Parameter, ...]


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `section.key=...` that say what to search, and those that set one value."""
    searched = [each for each in overrides if _is_searched(each.partition("=")[2])]
    return searched, [each for each in overrides if each not in searched]


def _is_searched(text: str) -> bool:
    return "|" in text or _RANGE.fullmatch(text) is not None


def written_space(
    searched: Sequence[str], fixed: Sequence[str], file: Path | None
) -> dict[str, list[str] | str]:
    """What is to be searched, by key: from the command line and a YAML file.

    In the file a range is text as on the command line, and choices are that or a list.

    Raises:
        UserError: an unusable file, or a key given twice.
    """
    written: dict[str, Any] = {}
    if file is not None:
        for key, value in flat(read_yaml(file)).items():
            if isinstance(value, list):
                written[key] = [each if isinstance(each, str) else _yaml(each) for each in value]
            elif isinstance(value, str) and _is_searched(value):
                written[key] = value
            else:
                raise UserError(
                    f"{file}: {key}: {_yaml(value)} is no range and no choice; {SYNTAX}, or a "
                    "list; a single value is set with section.key=value or in the configuration"
                )
    for override in searched:
        key, _, text = override.partition("=")
        if key in written:
            raise UserError(f"{override!r}: {key} is to be searched already; name it once")
        written[key] = text
    for override in fixed:
        key = override.partition("=")[0]
        if key in written:
            raise UserError(f"{override!r}: {key} is to be searched; leave one of the two out")
    return written


def _yaml(value: Any) -> str:
    """A value on one line; what is JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def make_space(written: Mapping[str, list[str] | str], load: Load) -> Space:
    """Ranges and choices by key, each of which the configuration takes.

    Args:
        written: what `written_space` returned.
        load: makes the configuration with overrides.

    Returns:
        In order of the keys, so that a section comes before what is within it.

    Raises:
        UserError: an unknown key, an impossible value or combination, a malformed range, or a key
            that the trials would be measured by.
    """
    if not written:
        raise UserError(f"nothing to search; {SYNTAX} after section.key=")
    base = load([])
    if base.descriptors:
        raise UserError(
            "descriptors: nothing is trained by epochs and watched on the validation split; give "
            "visual_words several words to choose from instead"
        )
    space = tuple(_parameter(key, written[key], load) for key in sorted(written))
    for parameter in space:
        _check_key(parameter.key, base)
    first = [f"{each.key}={each.ends()[0]}" for each in space]
    alone = (
        [*first[:place], f"{each.key}={value}", *first[place + 1 :]]
        for place, each in enumerate(space)
        for value in each.examples()
    )
    ends = ([f"{each.key}={value}" for value in each.ends()] for each in space)
    together = itertools.islice(itertools.product(*ends), COMBINATIONS)
    for overrides in itertools.chain(alone, together):
        _check_candidate(load(list(overrides)), base, overrides)
    return space


def _check_key(key: str, base: Config) -> None:
    """Raise a UserError for a key that cannot be searched by what is watched in training."""

    def within(sections: Sequence[str]) -> bool:
        return any(f"{key}.".startswith(f"{each}.") for each in sections) or any(
            each.startswith(f"{key}.") for each in sections
        )

    if within(_MEASURED_BY):
        raise UserError(
            f"{key}: it decides what the trials are measured by, so it is the same for all; set "
            "it to one value"
        )
    if key != _IN_TRAINING and within(_AFTERWARDS):
        raise UserError(f"{key}: plays no part in training; set it to one value")
    monitor = base.training.monitor
    if monitor == "val_loss" and within(("loss",)) and key != "loss.noise":
        raise UserError(
            f"{key}: cannot be searched by val_loss, which is another quantity with each; set "
            "training.monitor, as to val_map_at_r"
        )


def _check_candidate(candidate: Config, base: Config, overrides: Sequence[str]) -> None:
    """Raise a UserError for a configuration that is valid, but no trial."""
    monitors = [each.training.monitor for each in (base, candidate)]
    if monitors[0] != monitors[1]:
        raise UserError(
            f"{' '.join(overrides)}: training would be watched by {monitors[1]}, elsewhere by "
            f"{monitors[0]}; set training.monitor to one of them"
        )
    if candidate.training.epochs == 0:
        raise UserError("training.epochs: 0 trains nothing; search among more")


def _parameter(key: str, written: list[str] | str, load: Load) -> Parameter:
    if isinstance(written, str):
        found = _RANGE.fullmatch(written)
        if found:
            return _range(key, found[1], found[2], found[3] or "", load)
        written = written.split("|")
    values = tuple(each.strip() for each in written)
    where = f"{key}={'|'.join(values)}"
    if "" in values:
        raise UserError(f"{where!r}: a choice is empty; write null for none")
    if len(set(values)) < max(len(values), 2):
        raise UserError(f"{where!r}: choose among two or more, each named once")
    for value in values:
        load([f"{key}={value}"])
    return Choices(key, values)


def _range(key: str, low: str, high: str, rest: str, load: Load) -> Range:
    where = f"{key}={low}..{high} {rest}".rstrip()
    words = rest.split()
    step, log = None, words == ["log"]
    if len(words) == 2 and words[0] == "step" and re.fullmatch(_NUMBER, words[1]):
        step = words[1]
    elif words and not log:
        hint = "choose log or step" if "log" in words else nearest(words[0], ["log", "step"])
        raise UserError(f"{where!r}: after a range comes 'log' or 'step N', not {rest!r}; {hint}")
    start, end = Fraction(low), Fraction(high)
    if start >= end:
        raise UserError(f"{where!r}: the range should go up, from less to more")
    if log and start <= 0:
        raise UserError(f"{where!r}: a range with log starts above 0")
    for each in (low, high):
        load([f"{key}={each}"])
    integral = start.denominator == end.denominator == 1
    # Whether 0..1 means two numbers or all between them is for the key to say.
    whole = integral and not _takes(load, f"{key}={float(start) + 0.5}")
    if step is not None:
        _check_step(where, start, end, Fraction(step), whole)
    number = (lambda each: int(Fraction(each))) if whole else float
    return Range(key, number(low), number(high), number(step) if step else None, log, whole)


def _check_step(where: str, start: Fraction, end: Fraction, step: Fraction, whole: bool) -> None:
    if step <= 0 or (whole and step.denominator > 1):
        kind = "a whole number from 1 up" if whole else "above 0"
        raise UserError(f"{where!r}: the step should be {kind}")
    if (end - start) % step:
        last = float(start + (end - start) // step * step)
        raise UserError(f"{where!r}: the steps do not meet the end; end it at {last:g}")


def _takes(load: Load, override: str) -> bool:
    try:
        load([override])
    except UserError:
        return False
    return True
