"""The names of distances; `cbir_tf.search.distances.find_metric` returns the distance of a name."""

from __future__ import annotations

import math
import re

from cbir_tf.errors import UserError, nearest

METRIC_NAMES = ("cosine", "euclidean", "manhattan")


def minkowski_order(name: str) -> float | None:
    """The order P in the name minkowski-P; None for the other distances.

    P is at least 1: below 1 the triangle inequality does not hold.

    Raises:
        UserError: the name is not that of a distance.
    """
    if name in METRIC_NAMES:
        return None
    if not isinstance(name, str):
        raise UserError(f"metric: {name!r} is no name; choose one of {', '.join(METRIC_NAMES)}")
    word, _, number = name.partition("-")
    if word != "minkowski":
        raise UserError(f"metric: no {name!r}; {nearest(name, [*METRIC_NAMES, 'minkowski-P'])}")
    order = float(number) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) else math.nan
    if not 1 <= order < math.inf:
        raise UserError(
            f"metric: no {name!r}; the P of minkowski-P is a number from 1 up, as in minkowski-3"
        )
    return order
