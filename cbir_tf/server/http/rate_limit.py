"""How often a client may ask: a token bucket for each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

CLIENTS = 10_000
"""Of which is known how often they asked; the one that was silent longest is forgotten first."""


class RateLimit:
    """Buckets of `burst` tokens, filled again at `rate` a second; a request takes one.

    Args:
        rate: tokens a second; 0: no limit.
        burst: tokens of a full bucket.
        clock: seconds.

    Example:
        >>> limit = RateLimit(rate=2, burst=1, clock=lambda: 0.0)
        >>> limit.take("a"), limit.take("a"), limit.take("b")
        (0.0, 0.5, 0.0)
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 where the client may go on, else in how many seconds it may."""
        if not self.rate:
            return 0.0
        now = self._clock()
        tokens, before = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - before) * self.rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return wait
