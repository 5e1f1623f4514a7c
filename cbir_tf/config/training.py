"""The sections `optimizer`, `schedule` and `training` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cbir_tf.config.parsing import named
from cbir_tf.config.section import Fraction, Section

# An auto-encoder needs no classes, and its images may have none.
WITHOUT_CLASSES = {
    "data": {"batch": {"sampler": "shuffled"}},
    "training": {"monitor": "val_loss"},
}


class Optimizer(Section):
    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """Optimizer of Keras."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate; the schedules warmup_decay and bit_hyperrule have their own."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop."""
    weight_decay: float | None = Field(None, ge=0)
    """Decoupled weight decay; null: none."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest global norm of the gradient; null: no clipping."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum of an exponential moving average of the weights, which is validated and saved; null:
    no average."""


class Constant(Section):
    name: Literal["constant"] = "constant"


class WarmupDecaySchedule(Section):
    name: Literal["warmup_decay"] = "warmup_decay"
    start: float = Field(1e-5, ge=0)
    """Initial learning rate."""
    max: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    min: float = Field(1e-5, ge=0)
    """Learning rate that the decay approaches."""
    ramp_up: int = Field(5, ge=0)
    """Number of epochs (or steps) from start to max."""
    sustain: int = Field(0, ge=0)
    """Number of epochs (or steps) at max."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Factor on the difference to min after each epoch (or step)."""
    per: Literal["epoch", "step"] = "epoch"
    """Unit of ramp_up, sustain and decay."""


class WarmupCosineSchedule(Section):
    name: Literal["warmup_cosine"] = "warmup_cosine"
    warm_up: float = Field(1.0, ge=0)
    """Number of epochs of the linear rise to optimizer.learning_rate."""
    final: Fraction = 0.01
    """Final learning rate as a share of the peak."""


class BiTHyperRuleSchedule(Section):
    name: Literal["bit_hyperrule"] = "bit_hyperrule"
    length: int | None = Field(None, ge=10)
    """Number of steps; null: 500, 10,000 or 20,000, depending on the size of the data set."""


Schedule = Annotated[
    Annotated[
        Constant | WarmupDecaySchedule | WarmupCosineSchedule | BiTHyperRuleSchedule,
        Field(discriminator="name"),
    ],
    BeforeValidator(named),
]


class EarlyStopping(Section):
    patience: int | None = Field(None, ge=1)
    """Number of epochs without improvement before training stops; null: no early stopping."""
    min_delta: float = Field(0.0, ge=0)
    """Smallest change that counts as improvement."""


class Training(Section):
    epochs: int = Field(12, ge=0)
    """Largest number of passes over the training images; 0: no training, the initial weights are
    used. With bit_hyperrule the schedule sets the number."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Number of batches per epoch; null: as many as the training images fill."""
    monitor: Literal["val_loss", "val_recall@1", "val_map_at_r", "val_accuracy"] = "val_map_at_r"
    """Measure that decides the best epoch, early stopping and the best trial of a tuning; where it
    is equal, val_map_at_r decides, then val_loss. val_accuracy needs loss: cross_entropy; the
    default with loss: reconstruction is val_loss."""
    early_stopping: EarlyStopping = EarlyStopping()
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the computation; weights, embeddings and loss stay float32."""
    microbatch: int | None = Field(None, ge=1)
    """Most images that pass the network at once, the loss being that of the whole batch: for
    batches larger than the memory, at the cost of a second forward pass. It needs model.batch_norm:
    frozen; null: the whole batch at once."""
    tensorboard: bool = False
    """Write TensorBoard logs into the run's folder."""
