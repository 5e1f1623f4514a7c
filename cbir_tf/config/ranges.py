"""Values of a configuration key to choose from: a range of numbers, or a list of choices."""

from __future__ import annotations

import math
from dataclasses import dataclass

EXAMPLES = 50
"""Most values that `examples` gives of a range."""


@dataclass(frozen=True)
class Range:
    """All numbers from low to high, both included.

    Attributes:
        key: of the configuration, dotted.
        low, high: the ends; low < high.
        step: from one number to the next; None: any number, or any integer where whole.
        log: uniform in the logarithm.
        whole: integers only.

    Example:
        >>> sizes = Range("model.embedding_size", 32, 128, step=32, log=False, whole=True)
        >>> sizes.count, sizes.examples()
        (4, ['32', '64', '96', '128'])
    """

    key: str
    low: float
    high: float
    step: float | None
    log: bool
    whole: bool

    @property
    def count(self) -> float:
        """Number of values."""
        if self.step is None and not self.whole:
            return math.inf
        return round((self.high - self.low) / (self.step or 1)) + 1

    def examples(self) -> list[str]:
        """Both ends and values between them, in YAML."""
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
    """Some values of a key, each in YAML as in the configuration file.

    Attributes:
        key: of the configuration, dotted.
        values: YAML of each; all different.

    Example:
        >>> Choices("model.hidden", ("[]", "[512]")).count
        2
    """

    key: str
    values: tuple[str, ...]

    @property
    def count(self) -> float:
        """Number of values."""
        return len(self.values)

    def examples(self) -> list[str]:
        """All of them."""
        return list(self.values)

    ends = examples

    def __str__(self) -> str:
        return "|".join(self.values)


Parameter = Range | Choices
Space = tuple[Parameter, ...]
