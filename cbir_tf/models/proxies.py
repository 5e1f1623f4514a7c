"""Proxies: learnt vectors that stand for classes, which losses compare embeddings with."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from cbir_tf.losses.similarities import unit_vectors

Tensor = Any


@keras.saving.register_keras_serializable(package="cbir_tf")
class ProxySimilarities(keras.layers.Layer):  # type: ignore[misc]  # Keras has no type hints
    """Cosine similarities of embeddings to the proxies of each class.

    Args:
        classes: C.
        per_class: proxies of a class, of which the nearest counts (Deng et al. 2020, Sub-center
            ArcFace).
        factor: the proxies are `factor` times the trained variable, so that an optimizer whose
            steps do not depend on the size of the gradient, as Adam, moves them `factor` times as
            far as its learning rate says.
        name: of the layer.

    Example:
        >>> import numpy as np
        >>> ProxySimilarities(classes=3)(np.ones((2, 8), np.float32)).shape.as_list()
        [2, 3]
    """

    def __init__(
        self, classes: int, per_class: int = 1, factor: float = 1.0, name: str | None = None
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.classes = classes
        self.per_class = per_class
        self.factor = factor

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Random proxies of about unit length, in all directions."""
        dimensions = input_shape[-1]
        assert dimensions is not None
        self.directions = self.add_weight(
            shape=(self.classes * self.per_class, dimensions),
            initializer=keras.initializers.RandomNormal(stddev=dimensions**-0.5 / self.factor),
            name="directions",
        )

    def call(self, embeddings: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, C) float32 similarities."""
        proxies = unit_vectors(self.factor * self.directions)
        similarities = ops.matmul(unit_vectors(embeddings), ops.transpose(proxies))
        if self.per_class == 1:
            return similarities
        return ops.max(ops.reshape(similarities, (-1, self.classes, self.per_class)), axis=2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        own = {"classes": self.classes, "per_class": self.per_class, "factor": self.factor}
        return config | own
