"""The losses as subclasses of keras.losses.Loss, for model.compile and saved models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from cbir_tf.config.arguments import flag, real_number
from cbir_tf.errors import UserError
from cbir_tf.losses.distances import DistanceMetric, Tensor, distance_function
from cbir_tf.losses.mining import comparable_labels, flat_labels
from cbir_tf.losses.pairs import (
    circle_loss,
    contrastive_loss,
    multi_similarity_loss,
    supervised_contrastive_loss,
)
from cbir_tf.losses.proxies import arcface_loss, proxy_anchor_loss, proxy_nca_loss
from cbir_tf.losses.ranking import smooth_ap_loss
from cbir_tf.losses.triplet import triplet_hard_loss, triplet_semihard_loss


class BatchLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras has no type hints
    """Base of losses of a whole batch: exact labels, float32 arithmetic, no sample weights.

    Args:
        name: name of the loss in logs.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name, dtype="float32")

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            y_true: (N,) or (N, 1) labels.
            y_pred: (N, D) embeddings.
            sample_weight: must be None, as a pair or triplet has no single sample.

        Raises:
            UserError: sample weights, or shapes that do not fit.
        """
        if sample_weight is not None:
            raise UserError(
                f"{type(self).__name__}: does not support sample_weight or class_weight, as "
                "samples count together; leave it out"
            )
        return super().__call__(_small_labels(y_true), y_pred)


class TripletLoss(BatchLoss):
    """Base of both triplet losses.

    Args:
        margin: by how much the negative has to be farther than the positive.
        distance_metric: "L2", "squared-L2", "angular", or a function from (N, D) embeddings to
            (N, N) distances; a function must be registered with Keras to be loaded again.
        name: name of the loss in logs.

    Raises:
        UserError: the distance is unknown.
    """

    def __init__(
        self, margin: float = 1.0, distance_metric: DistanceMetric = "L2", name: str | None = None
    ) -> None:
        super().__init__(name)
        distance_function(distance_metric)
        self.margin = real_number(margin, "margin")
        self.distance_metric = distance_metric

    def get_config(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "distance_metric": keras.saving.serialize_keras_object(self.distance_metric),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TripletLoss:
        metric = keras.saving.deserialize_keras_object(config["distance_metric"])
        return cls(**config | {"distance_metric": metric})


@keras.saving.register_keras_serializable(package="cbir_tf")
class TripletSemiHardLoss(TripletLoss):
    """`triplet_semihard_loss` for Keras; the default margin of 1.0 is TensorFlow Addons'.

    Example:
        >>> import numpy as np
        >>> loss = TripletSemiHardLoss(margin=2.0)
        >>> float(loss(np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]])))
        0.5
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _as_one_value(
            triplet_semihard_loss(y_true, y_pred, self.margin, self.distance_metric)
        )


@keras.saving.register_keras_serializable(package="cbir_tf")
class TripletHardLoss(TripletLoss):
    """`triplet_hard_loss` for Keras; the default margin of 1.0 is TensorFlow Addons'.

    Args:
        margin: by how much the negative has to be farther than the positive; unused if soft.
        soft: log(1 + exp(x)) of the difference x in place of max(0, margin + x).
        distance_metric: as for `TripletLoss`.
        name: name of the loss in logs.

    Raises:
        UserError: the distance is unknown.

    Example:
        >>> import numpy as np
        >>> loss = TripletHardLoss(margin=2.0)
        >>> round(float(loss(np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]]))), 4)
        0.3333
    """

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: DistanceMetric = "L2",
        name: str | None = None,
    ) -> None:
        super().__init__(margin, distance_metric, name)
        self.soft = flag(soft, "soft")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _as_one_value(
            triplet_hard_loss(y_true, y_pred, self.margin, self.soft, self.distance_metric)
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"soft": self.soft}


class FunctionLoss(BatchLoss):
    """Base of losses whose arguments are those of one function.

    Args:
        name: name of the loss in logs.
        arguments: of the function, by name; its defaults where they are not given.

    Raises:
        TypeError: the function has no such argument.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, *, name: str | None = None, **arguments: Any) -> None:
        super().__init__(name)
        signature = inspect.signature(type(self).function)
        bound = signature.bind(None, None, **arguments)
        bound.apply_defaults()
        self.arguments = {key: bound.arguments[key] for key in list(signature.parameters)[2:]}
        if "distance_metric" in self.arguments:
            distance_function(self.arguments["distance_metric"])

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _as_one_value(type(self).function(y_true, y_pred, **self.arguments))

    def get_config(self) -> dict[str, Any]:
        serialized = keras.saving.serialize_keras_object(self.arguments)
        return {"name": self.name, **serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionLoss:
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable(package="cbir_tf")
class ContrastiveLoss(FunctionLoss):
    """`contrastive_loss` for Keras.

    Example:
        >>> import numpy as np
        >>> loss = ContrastiveLoss(margin=2.5)
        >>> float(loss(np.array([0, 0, 1]), np.array([[0.0], [1.0], [3.0]])))
        1.25
    """

    function = contrastive_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class MultiSimilarityLoss(FunctionLoss):
    """`multi_similarity_loss` for Keras."""

    function = multi_similarity_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class SupervisedContrastiveLoss(FunctionLoss):
    """`supervised_contrastive_loss` for Keras."""

    function = supervised_contrastive_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class CircleLoss(FunctionLoss):
    """`circle_loss` for Keras."""

    function = circle_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class SmoothAPLoss(FunctionLoss):
    """`smooth_ap_loss` for Keras."""

    function = smooth_ap_loss


class ProxyLoss(FunctionLoss):
    """Base of losses beside proxies, whose outputs are (N, C) similarities; see `FunctionLoss`."""

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        """As for `BatchLoss`; the labels are numbers of proxies, and remain what they are."""
        return keras.losses.Loss.__call__(self, flat_labels(y_true), y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="cbir_tf")
class ProxyAnchorLoss(ProxyLoss):
    """`proxy_anchor_loss` for Keras."""

    function = proxy_anchor_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class ProxyNCALoss(ProxyLoss):
    """`proxy_nca_loss` for Keras."""

    function = proxy_nca_loss


@keras.saving.register_keras_serializable(package="cbir_tf")
class ArcFaceLoss(ProxyLoss):
    """`arcface_loss` for Keras."""

    function = arcface_loss


def _small_labels(labels: Tensor) -> Tensor:
    """(N,) for each label the position of the first one equal to it.

    Keras casts labels to float32, where integers above 2^24 merge; positions are smaller.

    Raises:
        UserError: the labels are neither (N,) nor (N, 1).
    """
    labels = comparable_labels(labels)
    return ops.argmax(ops.cast(labels[:, None] == labels, "int32"), axis=1)


def _as_one_value(loss: Tensor) -> Tensor:
    """(1,) in place of a scalar, which Keras would not divide by the number of replicas."""
    return ops.reshape(loss, (1,))
