"""Record values and gradients of TensorFlow Addons 0.23.0 for thousands of random batches.

    python conformance/losses/record.py OUT.npz [--repeats 80] [--seed 0] [--fixture FILE.json]

Runs in an environment of its own, made from requirements.txt beside this file. Where TensorFlow
Addons is undefined or arbitrary (see cbir_tf/losses/triplet.py) the expected value or gradient is
that of the nested loops in naive.py, and the case carries the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tensorflow as tf
from cases import Case, random_cases
from naive import hard, semihard
from tensorflow_addons.losses import metric_learning, triplet

LARGEST_FIXTURE_BATCH = (6, 3)

DISTANCES = {
    "L2": metric_learning.pairwise_distance,
    "squared-L2": lambda rows: metric_learning.pairwise_distance(rows, squared=True),
    "angular": metric_learning.angular_distance,
    "manhattan": lambda rows: tf.reduce_sum(tf.abs(rows[:, None] - rows), axis=-1),
    "asymmetric": lambda rows: tf.matmul(rows, rows + 1.0, transpose_b=True),
}


def addons(case: Case, embeddings: tf.Tensor) -> tf.Tensor:
    """Their loss."""
    named = case.metric in ("L2", "squared-L2", "angular")
    metric = case.metric if named else DISTANCES[case.metric]
    if case.loss == "semihard":
        return triplet.triplet_semihard_loss(case.labels, embeddings, case.margin, metric)
    return triplet.triplet_hard_loss(
        case.labels, embeddings, case.margin, case.loss == "soft", metric
    )


def reasons(case: Case, distances: np.ndarray) -> tuple[str, str]:
    """Why their value, and why their gradient, is not the one to expect; empty if it is."""
    positive, negative = pairs(case.labels)
    if not positive.any():
        return ("no positive pair",) * 2
    if not negative.any():
        return ("no negative",) * 2
    if case.loss != "semihard" and not positive.any(axis=1).all():
        return ("anchor without a positive",) * 2
    if any(
        _theirs_leak(case.loss, *each) for each in zip(distances, positive, negative, strict=True)
    ):
        return "", "tie with what is not to be chosen"
    if case.loss == "semihard" and _theirs_rounds_past_margin(case, distances):
        return "", "exactly at the margin"
    return "", ""


def pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs are positive and which negative, each (N, N)."""
    same = labels[:, None] == labels
    return same & ~np.eye(len(labels), dtype=bool), ~same


def _theirs_leak(loss: str, row: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> bool:
    """Whether one of the masked extremes that they take of this row leaks its gradient."""
    if loss != "semihard":
        return _leaks(-row, positive) or _leaks(row, negative)
    farther = [negative & (row > threshold) for threshold in row[positive]]
    return any(_leaks(row, each) if each.any() else _leaks(-row, negative) for each in farther)


def _leaks(row: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether the least of the chosen is the row's largest and something else is as large.

    Then every product with their mask is zero, and the gradient goes to all that is largest.
    """
    largest = row.max()
    return bool(row[chosen].min() == largest and (row[~chosen] == largest).any())


def chosen_negatives(case: Case, distances: np.ndarray) -> Iterator[tuple[int, int, np.float32]]:
    """For every pair of the semi-hard loss: anchor, positive, distance of the negative."""
    positive, negative = pairs(case.labels)
    for anchor, partner in np.argwhere(positive & negative.any(axis=1, keepdims=True)):
        row = distances[anchor]
        farther = row[negative[anchor] & (row > row[partner])]
        yield anchor, partner, farther.min() if len(farther) else row[negative[anchor]].max()


def _theirs_rounds_past_margin(case: Case, distances: np.ndarray) -> bool:
    """Whether their detour over the row's largest distance moves a triplet across the margin."""
    margin, largest = np.float32(case.margin), distances.max(axis=1)
    return any(
        (margin + (distances[anchor, partner] - distance) >= 0)
        != (
            margin + (distances[anchor, partner] - (distance - largest[anchor] + largest[anchor]))
            >= 0
        )
        for anchor, partner, distance in chosen_negatives(case, distances)
    )


def is_delicate(case: Case, distances: np.ndarray) -> bool:
    """Whether the last bits decide: distances nearly tie or vanish, or a triplet is at the margin.

    Another release of TensorFlow may round the distances otherwise, and then choose otherwise; and
    a gradient along a small difference of two embeddings keeps few digits.
    """
    few_bits = 1e-6 * max(1.0, float(np.abs(distances).max()))
    neighbours = np.diff(np.sort(distances, axis=1), axis=1)
    differences = distances[:, :, None] - distances[:, None, :] + np.float32(case.margin)
    small = (distances > 0) & (distances < 0.1)
    return bool(
        small.any() or (neighbours < few_bits).any() or (np.abs(differences) < few_bits).any()
    )


def is_close(values: tuple, others: tuple) -> bool:
    """Whether loss and gradient are the same to 1e-5 of the larger of 1 and their size."""
    return all(
        np.all(np.abs(value - other) <= 1e-5 * max(1.0, np.abs(other).max()))
        for value, other in zip(values, others, strict=True)
    )


def expected(case: Case) -> dict[str, object]:
    """The value and gradient to expect, theirs where sound, and why not where not."""
    embeddings = tf.constant(case.embeddings)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(embeddings)
        value = addons(case, embeddings)
        distances = DISTANCES[case.metric](embeddings)
    theirs = value.numpy(), tape.gradient(value, embeddings).numpy()

    matrix = distances.numpy()
    if case.loss == "semihard":
        naive_value, weights = semihard(case.labels, matrix, case.margin)
    else:
        naive_value, weights = hard(case.labels, matrix, case.margin, case.loss == "soft")
    weights = tf.constant(weights, tf.float32)
    naive = np.float32(naive_value), tape.gradient(distances, embeddings, weights).numpy()

    agree = is_close(theirs, naive)
    value_reason, gradient_reason = ("", "") if agree else reasons(case, matrix)
    if not value_reason and not np.isfinite(theirs[0]):
        value_reason = gradient_reason = "soft margin overflows"
    delicate = is_delicate(case, matrix)
    return {
        "loss": case.loss,
        "metric": case.metric,
        "kind": case.kind,
        "margin": case.margin,
        "reason": gradient_reason,
        "labels": case.labels,
        "embeddings": case.embeddings,
        "value": naive[0] if value_reason else theirs[0],
        "gradient": naive[1] if gradient_reason else theirs[1],
        "delicate": delicate,
        "unexplained": not (agree or gradient_reason or delicate),
    }


def write_fixture(file: Path, cases: list[dict]) -> None:
    """One small case of every sort as JSON, for the test suite."""
    chosen: dict[tuple, dict] = {}
    for case in cases:
        size, dimension = case["embeddings"].shape
        if 2 < size <= LARGEST_FIXTURE_BATCH[0] and dimension <= LARGEST_FIXTURE_BATCH[1]:
            sort = case["loss"], case["metric"], case["kind"] == "grid", case["reason"] == ""
            chosen.setdefault(sort, case)
    records = [
        {
            name: _plain(value)
            for name, value in case.items()
            if name not in ("delicate", "unexplained")
        }
        for case in chosen.values()
    ]
    lines = ",\n".join(json.dumps(record) for record in records)
    file.write_text(f"[\n{lines}\n]\n")


def _plain(value: object) -> object:
    """What JSON knows; float32 by its shortest decimal."""
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.float32):
        return float(str(value))
    return int(value) if isinstance(value, np.integer) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixture", type=Path)
    arguments = parser.parse_args()
    tf.config.run_functions_eagerly(True)
    cases = [expected(case) for case in random_cases(arguments.repeats, arguments.seed)]
    np.savez_compressed(
        arguments.out,
        **{
            f"{number}/{name}": value
            for number, case in enumerate(cases)
            for name, value in case.items()
        },
    )
    if arguments.fixture:
        write_fixture(arguments.fixture, cases)
    unexplained = sum(case["unexplained"] for case in cases)
    print(f"{len(cases)} cases recorded; the nested loops differ in {unexplained} without a reason")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
