"""Heads: pooling, dense layers and normalisation, from feature map to embedding, in float32."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from cbir_tf.config import model as config_model


@keras.saving.register_keras_serializable("cbir_tf")
class GeneralizedMeanPooling(keras.Layer):  # type: ignore[misc]  # Keras has no type hints
    """Generalised mean over height and width, with one trainable power p for all channels.

    (B, H, W, C) -> (B, C): mean(max(x, epsilon) ** p) ** (1 / p). p = 1 is average pooling; a
    large p approaches maximum pooling. Radenovic et al. 2018, https://arxiv.org/abs/1711.02512.

    Args:
        power: initial p.
        epsilon: smallest activation, above 0, which keeps values and gradients finite.

    Example:
        >>> import numpy as np
        >>> float(GeneralizedMeanPooling(power=2.0)(np.array([[[[1.0], [7.0]]]]))[0, 0])
        5.0
    """

    def __init__(self, power: float = 3.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create p."""
        self.p = self.add_weight(
            name="p", shape=(), initializer=keras.initializers.Constant(self.power)
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Pool a feature map (B, H, W, C) into (B, C)."""
        x = ops.maximum(inputs, self.epsilon)
        # Division by the maximum keeps x ** p from overflowing and cancels out in the result, so
        # that no gradient needs to pass through it.
        largest = ops.stop_gradient(ops.max(x, axis=(1, 2), keepdims=True))
        mean = ops.mean(ops.power(x / largest, self.p), axis=(1, 2))
        return ops.power(mean, 1 / self.p) * ops.squeeze(largest, axis=(1, 2))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, H, W, C) -> (B, C)."""
        return input_shape[0], input_shape[3]

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {**super().get_config(), "power": self.power, "epsilon": self.epsilon}


POOLINGS = {
    "average": layers.GlobalAveragePooling2D,
    "max": layers.GlobalMaxPooling2D,
    "gem": GeneralizedMeanPooling,
}


def apply_head(feature_map: keras.KerasTensor, model: config_model.Model) -> keras.KerasTensor:
    """Pool a feature map (B, H, W, C) and turn it into embeddings (B, D), float32.

    The layers are called pooling, hidden_1, hidden_1_norm, hidden_2, ..., dropout, embedding and
    normalize; only those of the configuration are there.
    """
    x = POOLINGS[model.pooling](name="pooling", dtype="float32")(feature_map)
    for number, size in enumerate(model.hidden, start=1):
        x = layers.Dense(size, activation="relu", name=f"hidden_{number}", dtype="float32")(x)
        if model.hidden_norm == "batch":
            x = layers.BatchNormalization(name=f"hidden_{number}_norm", dtype="float32")(x)
    if model.dropout:
        x = layers.Dropout(model.dropout, name="dropout", dtype="float32")(x)
    if model.embedding_size is not None:
        x = layers.Dense(model.embedding_size, name="embedding", dtype="float32")(x)
    if model.normalize:
        x = layers.UnitNormalization(name="normalize", dtype="float32")(x)
    return x
