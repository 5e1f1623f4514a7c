"""Rankings and relevance judgements in trec_eval's file formats, and our metrics of such files.

A run file has lines `query Q0 item rank score name`, a qrels file `query 0 item relevance`.
trec_eval ignores the rank: it sorts by score and then by item name, both descending. Its names for
our metrics: recall@k is success_k, precision@k P_k, map@k map_cut_k, mrr recip_rank, r_precision
Rprec, ndcg@k ndcg_cut_k. https://github.com/usnistgov/trec_eval
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.evaluation.rankings import normalized_gain, score_rankings
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import replacing
from cbir_tf.types import UNLABELLED, Embeddings, Results

Judgements = Mapping[str, Mapping[str, int]]
"""Relevance by query and item; above 0 is relevant."""
Scores = Mapping[str, Mapping[str, float]]
"""Score by query and item."""

Value = TypeVar("Value", int, float)

# Fields are separated by blanks, so ids are written without them.
_SAFE = "/:;,.!?*'()[]{}@&=+$~#|^<>\\\"`"


def write_trec_run(
    path: str | Path, query_ids: Sequence[str] | np.ndarray, neighbours: Results, name: str = "cbir"
) -> None:
    """Write rankings as a run file.

    The score is the number of items ranked lower, so that trec_eval keeps our order where
    distances are equal. Blanks and percent signs in ids are percent-encoded (%20).

    Args:
        path: file to write.
        query_ids: (Q,) ids.
        neighbours: a row for each query.
        name: name of the run, its last column.

    Raises:
        UserError: the file could not be written.
    """
    with replacing(path_of(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, ids in zip(query_ids, neighbours.ids.tolist(), strict=True):
            found = [id_ for id_ in ids if id_]
            for rank, id_ in enumerate(found, 1):
                score = len(found) - rank
                file.write(f"{_field(query)} Q0 {_field(id_)} {rank} {score} {_field(name)}\n")


def write_trec_qrels(path: str | Path, queries: Embeddings, gallery: Embeddings) -> None:
    """Write the relevant items of each query: those with its label, except the query itself.

    Raises:
        UserError: the file could not be written.
    """
    items = {
        label: [_field(id_) for id_ in gallery.ids[gallery.labels == label].tolist()]
        for label in set(queries.labels.tolist()) - {UNLABELLED}
    }
    with replacing(path_of(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, label in zip(queries.ids.tolist(), queries.labels.tolist(), strict=True):
            name = _field(query)
            lines = (f"{name} 0 {item} 1\n" for item in items.get(label, ()) if item != name)
            file.writelines(lines)


def read_trec_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Scores by query and item.

    Raises:
        UserError: the file could not be read, a line has another format, or an item is listed
            twice for one query.
    """
    return _read(path_of(path), "query Q0 item rank score name", 4, _score)


def read_trec_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Relevance by query and item.

    Raises:
        UserError: the file could not be read, a line has another format, or an item is listed
            twice for one query.
    """
    return _read(path_of(path), "query 0 item relevance", 3, int)


def trec_figures(
    judgements: Judgements, scores: Scores, k: Sequence[int] = (5, 10)
) -> dict[str, dict[str, float]]:
    """Our metrics, computed from what trec_eval reads.

    Args:
        judgements: relevance as in a qrels file; items that are not in it are not relevant.
        scores: scores as in a run file.
        k: ranks for recall@k, precision@k, map@k and ndcg@k.

    Returns:
        Query -> metric -> value, for the queries that are in both and have relevant items.

    Example:
        >>> trec_figures({"q": {"a": 1}}, {"q": {"a": 0.2, "b": 0.9}}, k=(1,))["q"]["mrr"]
        0.5
    """
    figures = {}
    for query in sorted(judgements.keys() & scores.keys()):
        relevance = judgements[query]
        ideal = np.array(sorted((each for each in relevance.values() if each > 0), reverse=True))
        if not len(ideal):
            continue
        # trec_eval holds scores in single precision, where close ones become ties.
        order = sorted((np.float32(score), item) for item, score in scores[query].items())
        gains = np.array([[max(0, relevance.get(item, 0)) for _, item in reversed(order)]])
        found = score_rankings(gains > 0, np.array([len(ideal)]), k)
        found |= normalized_gain(gains, ideal[None], k)
        figures[query] = {name: float(value[0]) for name, value in found.items()}
    return figures


def _field(text: str) -> str:
    return quote(text, safe=_SAFE)


def _score(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _read(
    path: Path, form: str, place: int, value_of: Callable[[str], Value]
) -> dict[str, dict[str, Value]]:
    """The field at that position of each line, by query and item."""
    values: dict[str, dict[str, Value]] = {}
    for number, line in _lines(path):
        try:
            fields = line.split()
            query, _, item, *_ = fields
            value = value_of(fields[place])
            if len(fields) != len(form.split()):
                raise ValueError(line)
        except (ValueError, IndexError):
            raise UserError(
                f"{path} line {number}: expected {len(form.split())} fields, {form!r}, got "
                f"{line.strip()[:80]!r}"
            ) from None
        of_query = values.setdefault(query, {})
        if item in of_query:
            raise UserError(
                f"{path} line {number}: item {item!r} is listed twice for query {query!r}; "
                "delete one"
            )
        of_query[item] = value
    return values


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The non-blank lines with their numbers."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: could not be read ({error}); check the file") from None
