"""Losses of samples beside proxies: learnt vectors that stand for the classes.

They take the cosine similarities of each sample to each proxy, as `Proxies` gives them, so that no
pairs are needed in a batch: any sampler will do. The classes are those of the training split.
"""

from __future__ import annotations

import math

from keras import ops

from cbir_tf.errors import UserError
from cbir_tf.losses.distances import Tensor, precise
from cbir_tf.losses.mining import flat_labels
from cbir_tf.losses.similarities import log_one_plus, mean_of


def proxy_anchor_loss(
    y_true: Tensor, y_pred: Tensor, margin: float = 0.1, scale: float = 32.0
) -> Tensor:
    """Proxy-Anchor loss: every proxy attracts its class and repels all other samples.

    L = mean over proxies p with samples of log(1 + sum over them of exp(-scale (s(x, p) - margin)))
      + mean over all proxies of log(1 + sum over all other x of exp(scale (s(x, p) + margin)))

    Kim et al. 2020, Proxy Anchor Loss for Deep Metric Learning, https://arxiv.org/abs/2003.13911.

    Args:
        y_true: (N,) or (N, 1) integer labels in 0..C-1.
        y_pred: (N, C) cosine similarities of samples to proxies.
        margin: by how much the similarity has to exceed and fall below zero.
        scale: sharpness.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
        >>> bool(proxy_anchor_loss(np.array([0, 1]), opposite) < 1e-6)
        True
    """
    own, similarities = _own_and_similarities(y_true, y_pred)
    attracting = log_one_plus(-scale * (similarities - margin), own, axis=0)
    repelling = log_one_plus(scale * (similarities + margin), ops.logical_not(own), axis=0)
    everywhere = ops.ones_like(repelling, dtype="bool")
    return mean_of(attracting, ops.any(own, axis=0)) + mean_of(repelling, everywhere)


def proxy_nca_loss(y_true: Tensor, y_pred: Tensor, temperature: float = 1 / 9) -> Tensor:
    """ProxyNCA++: the probability of a sample's own proxy, by distance to all proxies.

    L = mean over x of -log(exp(-d(x, own) / T) / sum over all proxies p of exp(-d(x, p) / T))

    with d(x, p) = |x - p|^2 = 2 - 2 s(x, p) of unit vectors: Teh et al. 2020, ProxyNCA++:
    Revisiting and Revitalizing Proxy Neighborhood Component Analysis,
    https://arxiv.org/abs/2004.01113.

    Args:
        y_true: (N,) or (N, 1) integer labels in 0..C-1.
        y_pred: (N, C) cosine similarities of samples to proxies.
        temperature: T.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        Both proxies are equally near: the probability is 1 / 2.

        >>> import numpy as np
        >>> round(float(proxy_nca_loss(np.array([0]), np.array([[0.5, 0.5]]))), 4)
        0.6931
    """
    own, similarities = _own_and_similarities(y_true, y_pred)
    return _cross_entropy(own, 2 * similarities / temperature)


def arcface_loss(
    y_true: Tensor, y_pred: Tensor, margin: float = 0.5, scale: float = 32.0
) -> Tensor:
    """ArcFace: a classification in which the own class has to win by an angle.

    L = mean over x of -log(softmax over classes of scale cos(theta + margin [own class]))

    theta is the angle between a sample and its nearest proxy (sub-centre) of the class: Deng et al.
    2019, ArcFace, https://arxiv.org/abs/1801.07698, and 2020, Sub-center ArcFace. Where theta +
    margin exceeds pi, cos(theta) - margin sin(margin) goes on falling.

    Args:
        y_true: (N,) or (N, 1) integer labels in 0..C-1.
        y_pred: (N, C) cosine similarities of samples to proxies.
        margin: in radians.
        scale: sharpness.

    Returns:
        A float scalar.

    Raises:
        UserError: the shapes do not fit.

    Example:
        Without a margin it is a softmax of the scaled similarities.

        >>> import numpy as np
        >>> similarities = np.array([[0.5, 0.5, 0.5]])
        >>> round(float(arcface_loss(np.array([2]), similarities, margin=0.0)), 4)  # log 3
        1.0986
    """
    own, cosines = _own_and_similarities(y_true, y_pred)
    cosines = ops.clip(cosines, -1.0, 1.0)
    squares = 1 - ops.square(cosines)
    touching = squares <= 0  # where the gradient of the root would be infinite
    sines = ops.where(touching, 0.0, ops.sqrt(ops.where(touching, 1.0, squares)))
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    beyond = cosines < math.cos(math.pi - margin)
    turned = ops.where(beyond, cosines - margin * math.sin(margin), turned)
    return _cross_entropy(own, scale * ops.where(own, turned, cosines))


def _own_and_similarities(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) bool, whether a proxy is that of the sample's class; and the similarities."""
    labels, similarities = ops.cast(flat_labels(y_true), "int32"), precise(y_pred)
    if len(similarities.shape) != 2:
        raise UserError(
            f"y_pred: similarities to proxies must be (N, C), got {tuple(similarities.shape)}; "
            "reshape them"
        )
    lengths = (labels.shape[0], similarities.shape[0])
    if None not in lengths and lengths[0] != lengths[1]:
        raise UserError(
            f"y_true: {lengths[0]} labels for {lengths[1]} samples in y_pred; give one for each"
        )
    classes = ops.arange(ops.shape(similarities)[1], dtype="int32")
    return labels[:, None] == classes, similarities


def _cross_entropy(own: Tensor, logits: Tensor) -> Tensor:
    losses = ops.logsumexp(logits, axis=1) - ops.sum(ops.where(own, logits, 0.0), axis=1)
    return mean_of(losses, ops.ones_like(losses, dtype="bool"))
