"""The search space of a tuning: ranges and choices of keys, checked before any training."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from cbir_tf.config import Config
from cbir_tf.config.parsing import flat, read_yaml
from cbir_tf.config.ranges import Choices, Parameter, Range, Space
from cbir_tf.errors import UserError, nearest

COMBINATIONS = 200
"""Most combinations of ends and choices that are checked before anything is trained."""
SYNTAX = "write low..high, 'low..high log', 'low..high step N' or a|b|c"

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s+(\S.*?))?\s*")

# The trials are compared by their validation metrics, so these keys are the same for all.
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
_IN_TRAINING = "search.metric"  # the distance of the validation metrics

Load = Callable[[Sequence[str]], Config]
"""`section.key=value` overrides -> the configuration with them."""


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `section.key=...` that give a range or choices, and those that set one value.

    Example:
        >>> split_overrides(["loss.margin=0.1..0.5", "model.pooling=max|gem", "seed=3"])
        (['loss.margin=0.1..0.5', 'model.pooling=max|gem'], ['seed=3'])
    """
    tuned = [each for each in overrides if _is_space(each.partition("=")[2])]
    return tuned, [each for each in overrides if each not in tuned]


def _is_space(text: str) -> bool:
    return "|" in text or _RANGE.fullmatch(text) is not None


def written_space(
    tuned: Sequence[str], fixed: Sequence[str], file: Path | None
) -> dict[str, list[str] | str]:
    """The ranges and choices by key, as written on the command line and in a YAML file.

    In the file a range is text as on the command line, and choices are such text or a list.

    Args:
        tuned: `section.key=range or choices`.
        fixed: `section.key=value`, of other keys.
        file: `section.key: range or choices`.

    Raises:
        UserError: an unusable file, or a key given twice.
    """
    written: dict[str, list[str] | str] = {}
    if file is not None:
        for key, value in flat(read_yaml(file)).items():
            if isinstance(value, list):
                written[key] = [each if isinstance(each, str) else _yaml(each) for each in value]
            elif isinstance(value, str) and _is_space(value):
                written[key] = value
            else:
                raise UserError(
                    f"{file}: {key}: {_yaml(value)} is neither a range nor choices; {SYNTAX}, or "
                    "a list; set a single value with section.key=value or in the configuration"
                )
    for override in tuned:
        key, _, text = override.partition("=")
        if key in written:
            raise UserError(f"{override!r}: {key} is tuned already; give it once")
        written[key] = text
    for override in fixed:
        key = override.partition("=")[0]
        if key in written:
            raise UserError(f"{override!r}: {key} is tuned; leave one of the two out")
    return written


def _yaml(value: object) -> str:
    """A value in YAML on one line, which JSON is."""
    return json.dumps(value, ensure_ascii=False)


def make_space(written: Mapping[str, list[str] | str], load: Load) -> Space:
    """The search space, every range and choice of which is valid in the configuration.

    Args:
        written: of `written_space`.
        load: makes the configuration with overrides.

    Returns:
        In order of the keys, so that a section comes before the keys within it.

    Raises:
        UserError: an unknown key, an impossible value or combination, a malformed range, or a key
            that the trials are compared by.
    """
    if not written:
        raise UserError(f"nothing to tune; {SYNTAX} after section.key=")
    base = load([])
    if base.descriptors:
        raise UserError(
            "descriptors: are fitted without epochs, which tuning needs; give visual_words several "
            "vocabulary sizes to choose from instead"
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
    """Raise a UserError for a key that cannot be tuned by validation metrics."""

    def within(sections: Sequence[str]) -> bool:
        return any(f"{key}.".startswith(f"{each}.") for each in sections) or any(
            each.startswith(f"{key}.") for each in sections
        )

    if within(_MEASURED_BY):
        raise UserError(
            f"{key}: decides what the trials are measured by, so it is the same for all; set it to "
            "one value"
        )
    if key != _IN_TRAINING and within(_AFTERWARDS):
        raise UserError(f"{key}: has no effect on training; set it to one value")
    monitor = base.training.monitor
    if monitor == "val_loss" and within(("loss",)) and key != "loss.noise":
        raise UserError(
            f"{key}: cannot be tuned by val_loss, which measures something else with each value; "
            "set training.monitor, for instance to val_map_at_r"
        )


def _check_candidate(candidate: Config, base: Config, overrides: Sequence[str]) -> None:
    """Raise a UserError for a configuration that is valid, but not as a trial."""
    monitors = [each.training.monitor for each in (base, candidate)]
    if monitors[0] != monitors[1]:
        raise UserError(
            f"{' '.join(overrides)}: training.monitor would be {monitors[1]}, but {monitors[0]} "
            "for other values; set it to one of them"
        )
    if candidate.training.epochs == 0:
        raise UserError("training.epochs: 0 trains nothing; give 1 or more")


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
        raise UserError(f"{where!r}: give two choices or more, each once")
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
        raise UserError(
            f"{where!r}: expected 'log' or 'step N' after a range, got {rest!r}; {hint}"
        )
    start, end = Fraction(low), Fraction(high)
    if start >= end:
        raise UserError(f"{where!r}: the range should start below its end; swap them")
    if log and start <= 0:
        raise UserError(
            f"{where!r}: a range with log should start above 0; raise its start, or leave out log"
        )
    for each in (low, high):
        load([f"{key}={each}"])
    integral = start.denominator == end.denominator == 1
    # Whether 0..1 means two integers or all numbers between them depends on the key.
    whole = integral and not _takes(load, f"{key}={float(start) + 0.5}")
    if step is not None:
        _check_step(where, start, end, Fraction(step), whole)
    number = (lambda each: int(Fraction(each))) if whole else float
    return Range(key, number(low), number(high), number(step) if step else None, log, whole)


def _check_step(where: str, start: Fraction, end: Fraction, step: Fraction, whole: bool) -> None:
    if step <= 0 or (whole and step.denominator > 1):
        kind = "a whole number above 0" if whole else "above 0"
        raise UserError(f"{where!r}: the step should be {kind}; correct it")
    if (end - start) % step:
        last = float(start + (end - start) // step * step)
        raise UserError(f"{where!r}: the steps miss the end of the range; end it at {last:g}")


def _takes(load: Load, override: str) -> bool:
    try:
        load([override])
    except UserError:
        return False
    return True
