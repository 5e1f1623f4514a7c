"""The sections of the configuration that say how to train: loss, optimizer, schedule, epochs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cbir_tf.config.parsing import named
from cbir_tf.config.section import Fraction, Section


class Triplets(Section):
    name: str
    margin: float = Field(0.2, ge=0)
    """How much farther the negative has to be."""
    distance: Literal["L2", "squared-L2", "angular"] = "L2"
    """Distance between embeddings, under TensorFlow Addons' names."""


class SemiHardTriplets(Triplets):
    name: Literal["triplet_semi_hard"] = "triplet_semi_hard"


class HardTriplets(Triplets):
    name: Literal["triplet_hard"] = "triplet_hard"
    soft: bool = False
    """log(1 + exp(x)) in place of the margin."""


class CrossEntropy(Section):
    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread evenly over all classes."""


class Reconstruction(Section):
    name: Literal["reconstruction"] = "reconstruction"
    noise: Fraction = 0.0
    """Standard deviation of the Gaussian noise on the pixels, 0..1, that the encoder sees in
    training; what it is held against has none."""


def _loss(value: Any) -> Any:
    """Triplets where there is no name; older runs say `soft: false` of semi-hard ones too."""
    value = named(value)
    if not isinstance(value, dict):
        return value
    value = {"name": "triplet_semi_hard"} | value
    if value["name"] == "triplet_semi_hard" and value.get("soft") is False:
        del value["soft"]
    return value


Loss = Annotated[
    Annotated[
        SemiHardTriplets | HardTriplets | CrossEntropy | Reconstruction,
        Field(discriminator="name"),
    ],
    BeforeValidator(_loss),
]

# An auto-encoder has no use for classes, and images may have none.
WITHOUT_CLASSES = {
    "data": {"batch": {"sampler": "shuffled"}},
    "training": {"monitor": "val_loss"},
}


class Optimizer(Section):
    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """The Keras optimizer."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate; the schedules warmup_decay and bit_hyperrule set their own."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """sgd and rmsprop."""
    weight_decay: float | None = Field(None, ge=0)
    """Decoupled weight decay."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest global norm of the gradient."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum of an exponential moving average of the weights, used for validation and saved."""


class Constant(Section):
    name: Literal["constant"] = "constant"


class WarmupDecaySchedule(Section):
    name: Literal["warmup_decay"] = "warmup_decay"
    start: float = Field(1e-5, ge=0)
    """Learning rate at the beginning."""
    max: float = Field(5e-5, gt=0)
    """Learning rate at the top."""
    min: float = Field(1e-5, ge=0)
    """Learning rate that the decay approaches."""
    ramp_up: int = Field(5, ge=0)
    """Epochs (or steps) from start to max."""
    sustain: int = Field(0, ge=0)
    """Epochs (or steps) at max."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Factor by which the part above min shrinks each epoch (or step)."""
    per: Literal["epoch", "step"] = "epoch"
    """What ramp_up, sustain and decay count."""


class WarmupCosineSchedule(Section):
    name: Literal["warmup_cosine"] = "warmup_cosine"
    warm_up: float = Field(1.0, ge=0)
    """Epochs of linear rise to optimizer.learning_rate."""
    final: Fraction = 0.01
    """Share of the peak reached at the end."""


class BiTHyperRuleSchedule(Section):
    name: Literal["bit_hyperrule"] = "bit_hyperrule"
    length: int | None = Field(None, ge=10)
    """Steps; null: 500, 10,000 or 20,000 by the size of the data set."""


Schedule = Annotated[
    Annotated[
        Constant | WarmupDecaySchedule | WarmupCosineSchedule | BiTHyperRuleSchedule,
        Field(discriminator="name"),
    ],
    BeforeValidator(named),
]


class EarlyStopping(Section):
    patience: int | None = Field(None, ge=1)
    """Epochs without improvement after which to stop; null: never."""
    min_delta: float = Field(0.0, ge=0)
    """Smallest change that counts as improvement."""


class Training(Section):
    epochs: int = Field(12, ge=0)
    """Passes over the training images, at most; 0: use the model as it is. With bit_hyperrule the
    schedule decides."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Null: as many batches as the training images fill."""
    monitor: Literal["val_loss", "val_recall@1", "val_map_at_r", "val_accuracy"] = "val_recall@1"
    """What chooses the best epoch, and what early stopping looks at; val_accuracy with
    loss: cross_entropy; the default with loss: reconstruction is val_loss."""
    early_stopping: EarlyStopping = EarlyStopping()
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Compute precision; weights, embeddings and loss stay float32."""
    tensorboard: bool = False
    """Write TensorBoard logs into the run's folder."""
