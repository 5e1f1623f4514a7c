"""Queries and additions: the values between HTTP and the gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Steps:
    """How a query is searched.

    Attributes:
        k: neighbours; None: the run's search.k, or all where there are fewer.
        where: conditions (`cbir_tf.features.filters`).
        re_ranking: None: the run's search.re_ranking.
        two_step: name of the classifier; None: the run's search.two_step.
    """

    k: int | None = None
    where: tuple[str, ...] = ()
    re_ranking: str | None = None
    two_step: str | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
        steps: how.
        shares: (C,) probabilities of its classes, where another run gives them; None: of a stored
            image, or where none does.
        id: of a stored image, which is left out of its own neighbours.
    """

    steps: Steps
    shares: np.ndarray | None = None
    id: str | None = None


@dataclass(frozen=True, eq=False)
class Addition:
    """A picture to be added to the gallery.

    Attributes:
        picture: the same, encoded.
        label: name of its class; None: unlabelled.
        metadata: further columns, text or numbers by name.
    """

    picture: bytes
    label: str | None
    metadata: dict[str, str | float]
