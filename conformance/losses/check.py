"""Compare our triplet losses with what record.py recorded from TensorFlow Addons 0.23.0.

    python conformance/losses/check.py OUT.npz

Runs in the environment of cbir_tf. Every value and every component of a gradient must be within
1e-5 of the expected one, or of that share of the largest where it exceeds 1. Exit status 1 if not.
Where rounding decides which triplet is chosen, and this TensorFlow rounds the distances
differently, the nested loops of naive.py run on our distances instead; these cases are listed.
"""

from __future__ import annotations

import collections
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tensorflow as tf
from naive import hard, semihard

from cbir_tf.losses import triplet_hard_loss, triplet_semihard_loss
from cbir_tf.losses.distances import distance_function

TOLERANCE = 1e-5

CALLABLES = {
    "manhattan": lambda rows: tf.reduce_sum(tf.abs(rows[:, None] - rows), axis=-1),
    "asymmetric": lambda rows: tf.matmul(rows, rows + 1.0, transpose_b=True),
}

Case = dict[str, np.ndarray]


def ours(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Our loss and its gradient for a recorded case."""
    embeddings = tf.constant(case["embeddings"])
    metric = CALLABLES.get(str(case["metric"]), str(case["metric"]))
    margin, labels = float(case["margin"]), case["labels"]
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        if case["loss"] == "semihard":
            loss = triplet_semihard_loss(labels, embeddings, margin, metric)
        else:
            soft = bool(case["loss"] == "soft")
            loss = triplet_hard_loss(labels, embeddings, margin, soft, metric)
    return loss.numpy(), tape.gradient(loss, embeddings).numpy()


def by_loops(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient by the nested loops, on the distances as we round them."""
    embeddings = tf.constant(case["embeddings"])
    metric = CALLABLES.get(str(case["metric"]), str(case["metric"]))
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        distances = distance_function(metric)(embeddings)
    settings = case["labels"], distances.numpy(), float(case["margin"])
    if case["loss"] == "semihard":
        value, weights = semihard(*settings)
    else:
        value, weights = hard(*settings, soft=bool(case["loss"] == "soft"))
    gradient = tape.gradient(distances, embeddings, tf.constant(weights, tf.float32))
    return np.float32(value), gradient.numpy()


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative where the expected exceeds 1; infinite if not finite."""
    apart = np.abs(actual - expected).max() / max(1.0, np.abs(expected).max())
    return float(apart) if np.isfinite(apart) else float("inf")


def read_cases(file: str) -> list[Case]:
    """The recorded cases in order."""
    cases: dict[int, Case] = collections.defaultdict(dict)
    with np.load(file, allow_pickle=False) as recorded:
        for key in recorded.files:
            number, name = key.split("/")
            cases[int(number)][name] = recorded[key]
    return [cases[number] for number in sorted(cases)]


def compare(case: Case) -> tuple[str, tuple[float, float]]:
    """The reference of a case, and the differences of value and gradient."""
    actual = ours(case)
    reason = str(case["reason"])
    against = f"our rule ({reason})" if reason else "TensorFlow Addons"
    apart = tuple(map(difference, actual, (case["value"], case["gradient"])))
    if max(apart) > TOLERANCE and case["delicate"]:
        against = "our rule on our own distances, as the last bits decide"
        apart = tuple(map(difference, actual, by_loops(case)))
    return against, apart


def main(recorded: str) -> int:
    """Print the references and the largest differences; 0 if all are within 1e-5."""
    cases = read_cases(recorded)
    compared: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    for case in cases:
        against, apart = compare(case)
        compared[against].append(apart)
        if max(apart) > TOLERANCE or "bits" in against:
            settings = ", ".join(str(case[name]) for name in ("loss", "metric", "kind", "margin"))
            shape = "x".join(map(str, case["embeddings"].shape))
            print(f"{settings}, {shape}: {apart[0]:.1e}, {apart[1]:.1e} from {against}")
    for against, differences in sorted(compared.items()):
        value_apart, gradient_apart = np.max(differences, axis=0)
        print(
            f"{len(differences):5d} cases against {against}: largest difference "
            f"{value_apart:.1e} in values, {gradient_apart:.1e} in gradients"
        )
    failed = sum(max(apart) > TOLERANCE for several in compared.values() for apart in several)
    print(f"{len(cases)} cases, {failed} beyond {TOLERANCE:.0e}")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
