"""The pair, proxy and ranking losses as loops over samples, written from their papers.

In float64 with NumPy and math alone; they run beside any implementation. `similarities` and
`distances` are (N, N), or (N, C) beside proxies.
"""

from __future__ import annotations

import math

import numpy as np


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, N) cosine similarities."""
    count = len(embeddings)
    return np.array(
        [
            [
                float(embeddings[a] @ embeddings[b])
                / (np.linalg.norm(embeddings[a]) * np.linalg.norm(embeddings[b]))
                for b in range(count)
            ]
            for a in range(count)
        ]
    )


def _kinds(labels, anchor):
    others = [each for each in range(len(labels)) if each != anchor]
    positives = [each for each in others if labels[each] == labels[anchor]]
    return positives, [each for each in others if labels[each] != labels[anchor]]


def _mean(values):
    return sum(values) / len(values) if values else 0.0


def contrastive(labels, distances, margin):
    pulled, pushed = [], []
    for anchor in range(len(labels)):
        positives, negatives = _kinds(labels, anchor)
        pulled += [distances[anchor, each] ** 2 for each in positives]
        pushed += [
            (margin - distances[anchor, each]) ** 2
            for each in negatives
            if distances[anchor, each] < margin
        ]
    return _mean(pulled) + _mean(pushed)


def multi_similarity(labels, similarities, alpha, beta, base, epsilon):
    losses = []
    for anchor in range(len(labels)):
        positives, negatives = _kinds(labels, anchor)
        row = similarities[anchor]
        if epsilon is not None:
            hardest_positive = min((row[each] for each in positives), default=math.inf)
            hardest_negative = max((row[each] for each in negatives), default=-math.inf)
            positives = [each for each in positives if row[each] - epsilon < hardest_negative]
            negatives = [each for each in negatives if row[each] + epsilon > hardest_positive]
        pull = sum(math.exp(-alpha * (row[each] - base)) for each in positives)
        push = sum(math.exp(beta * (row[each] - base)) for each in negatives)
        losses.append(math.log(1 + pull) / alpha + math.log(1 + push) / beta)
    return _mean(losses)


def supervised_contrastive(labels, similarities, temperature):
    losses = []
    for anchor in range(len(labels)):
        positives, negatives = _kinds(labels, anchor)
        if not positives:
            continue
        row = similarities[anchor]
        total = sum(math.exp(row[each] / temperature) for each in positives + negatives)
        losses.append(
            _mean([-math.log(math.exp(row[each] / temperature) / total) for each in positives])
        )
    return _mean(losses)


def circle(labels, similarities, margin, scale, weights=None):
    """`weights`: similarities that the weights come from, where they are held fixed."""
    fixed = similarities if weights is None else weights
    losses = []
    for anchor in range(len(labels)):
        positives, negatives = _kinds(labels, anchor)
        if not positives or not negatives:
            continue
        push = sum(
            math.exp(
                scale
                * max(0.0, fixed[anchor, each] + margin)
                * (similarities[anchor, each] - margin)
            )
            for each in negatives
        )
        pull = sum(
            math.exp(
                -scale
                * max(0.0, 1 + margin - fixed[anchor, each])
                * (similarities[anchor, each] - (1 - margin))
            )
            for each in positives
        )
        losses.append(math.log(1 + push * pull))
    return _mean(losses)


def smooth_ap(labels, similarities, temperature):
    def step(difference):
        return 1 / (1 + math.exp(max(-700.0, min(700.0, -difference / temperature))))

    losses = []
    for anchor in range(len(labels)):
        positives, negatives = _kinds(labels, anchor)
        if not positives:
            continue
        row, precisions = similarities[anchor], []
        for each in positives:
            before = [step(row[other] - row[each]) for other in positives if other != each]
            wrong = [step(row[other] - row[each]) for other in negatives]
            precisions.append((1 + sum(before)) / (1 + sum(before) + sum(wrong)))
        losses.append(1 - _mean(precisions))
    return _mean(losses)


def proxy_anchor(labels, similarities, margin, scale):
    pulled, pushed = [], []
    for proxy in range(similarities.shape[1]):
        own = [row for row in range(len(labels)) if labels[row] == proxy]
        others = [row for row in range(len(labels)) if labels[row] != proxy]
        if own:
            pull = sum(math.exp(-scale * (similarities[row, proxy] - margin)) for row in own)
            pulled.append(math.log(1 + pull))
        push = sum(math.exp(scale * (similarities[row, proxy] + margin)) for row in others)
        pushed.append(math.log(1 + push))
    return _mean(pulled) + _mean(pushed)


def proxy_nca(labels, similarities, temperature):
    losses = []
    for row, label in enumerate(labels):
        near = [math.exp(-(2 - 2 * each) / temperature) for each in similarities[row]]
        losses.append(-math.log(near[label] / sum(near)))
    return _mean(losses)


def arcface(labels, similarities, margin, scale):
    losses = []
    for row, label in enumerate(labels):
        logits = [scale * each for each in similarities[row]]
        cosine = min(1.0, max(-1.0, similarities[row, label]))
        angle = math.acos(cosine)
        turned = (
            math.cos(angle + margin)
            if angle + margin <= math.pi
            else cosine - margin * math.sin(margin)
        )
        logits[label] = scale * turned
        losses.append(-logits[label] + math.log(sum(math.exp(each) for each in logits)))
    return _mean(losses)
