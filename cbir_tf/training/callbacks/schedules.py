"""Learning rate schedules: pure functions of the optimizer's step, applied before every batch."""

from __future__ import annotations

import math
from typing import Literal

import keras
import numpy as np

from cbir_tf.config.training import (
    BiTHyperRuleSchedule,
    Schedule,
    WarmupCosineSchedule,
    WarmupDecaySchedule,
)


class ScheduledRate(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Sets the optimizer's learning rate before every batch and logs it at the end of the epoch.

    The step is the optimizer's count of updates, so a resumed training continues the schedule.
    Subclasses define `rate`.

    Example:
        >>> class Halving(ScheduledRate):
        ...     def rate(self, step):
        ...         return 0.1 / 2**step
        >>> Halving().plan(3).tolist()
        [0.1, 0.05, 0.025]
    """

    def rate(self, step: int) -> float:
        """The learning rate of one update; step 0 is the first."""
        raise NotImplementedError

    def plan(self, steps: int) -> np.ndarray:
        """(steps,) float64: the rates of the first `steps` updates."""
        return np.array([self.rate(step) for step in range(steps)], dtype=np.float64)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = self.rate(int(optimizer.iterations))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class WarmupDecay(ScheduledRate):
    """Linear rise, plateau, exponential decay.

    In epoch e the rate is

        start + (max - start) * e / ramp_up                     for e < ramp_up,
        max                                                     for the next `sustain` epochs,
        min + (max - min) * decay ** (e - ramp_up - sustain)    from there on.

    Args:
        start: rate of the first epoch.
        max: highest rate.
        min: rate the decay tends to.
        ramp_up: epochs from start to max.
        sustain: epochs at max.
        decay: factor by which the part above min shrinks each epoch.
        per: "epoch" keeps the rate within an epoch; "step" reads all of the above in steps.
        steps_per_epoch: updates in one epoch; None: as many as `fit` announces.

    Example:
        >>> WarmupDecay(ramp_up=2, steps_per_epoch=1).plan(4).round(6).tolist()
        [1e-05, 3e-05, 5e-05, 4.2e-05]
    """

    def __init__(
        self,
        start: float = 1e-5,
        max: float = 5e-5,
        min: float = 1e-5,
        *,
        ramp_up: int = 5,
        sustain: int = 0,
        decay: float = 0.8,
        per: Literal["epoch", "step"] = "epoch",
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self.start = start
        self.max = max
        self.min = min
        self.ramp_up = ramp_up
        self.sustain = sustain
        self.decay = decay
        self.per = per
        self.steps_per_epoch = steps_per_epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.steps_per_epoch is None:
            self.steps_per_epoch = self.params["steps"]

    def rate(self, step: int) -> float:
        time = step
        if self.per == "epoch":
            if self.steps_per_epoch is None:
                raise ValueError("WarmupDecay: give steps_per_epoch, which is not known yet")
            time = step // self.steps_per_epoch
        if time < self.ramp_up:
            return self.start + (self.max - self.start) * time / self.ramp_up
        decaying = time - self.ramp_up - self.sustain
        if decaying < 0:
            return self.max
        return self.min + (self.max - self.min) * self.decay**decaying


class WarmupCosine(ScheduledRate):
    """Linear rise to the peak, then half a cosine down (Loshchilov and Hutter, 2017).

    Args:
        peak: highest rate, reached by the last step of the rise.
        total_steps: updates until the end; the final rate holds beyond it.
        warm_up_steps: updates of the rise, the first at peak / warm_up_steps.
        final: rate at the end, as a share of the peak.

    Example:
        >>> WarmupCosine(0.1, total_steps=4, warm_up_steps=2).plan(5).round(4).tolist()
        [0.05, 0.1, 0.1, 0.0505, 0.001]
    """

    def __init__(
        self, peak: float, total_steps: int, warm_up_steps: int = 0, final: float = 0.01
    ) -> None:
        super().__init__()
        self.peak = peak
        self.total_steps = total_steps
        self.warm_up_steps = warm_up_steps
        self.final = final

    def rate(self, step: int) -> float:
        if step < self.warm_up_steps:
            return self.peak * (step + 1) / self.warm_up_steps
        if step >= self.total_steps:
            return self.peak * self.final
        done = (step - self.warm_up_steps) / (self.total_steps - self.warm_up_steps)
        cosine = (1 + math.cos(math.pi * done)) / 2
        return self.peak * (self.final + (1 - self.final) * cosine)


class BiTHyperRule(ScheduledRate):
    """BiT-HyperRule: the hyper-parameters of fine-tuning from the size of the data set alone.

    SGD with momentum 0.9; the rate rises linearly from 0 to 0.003 * batch_size / 512 until the
    first boundary and is divided by 10 after each of the next three. Source: Kolesnikov et al.,
    "Big Transfer (BiT)", ECCV 2020, section 3.3, and its official repository,
    google-research/big_transfer, bit_hyperrule.py.

    Args:
        images: number of training images.
        batch_size: images in a batch.
        length: steps in all; None: 500, 10,000 or 20,000 by the number of images. Another length
            moves every boundary in proportion, the warm-up's too.

    Attributes:
        boundaries: five steps: end of the warm-up, the three decays, the end.
        total_steps: the last of them; the last rate holds beyond it.
        peak: highest rate.
        mixup: MixUp's alpha, 0 for none.

    Example:
        >>> rule = BiTHyperRule(images=3_000, batch_size=512)
        >>> rule.boundaries, rule.peak, rule.mixup
        ((100, 200, 300, 400, 500), 0.003, 0.0)
    """

    def __init__(self, images: int, batch_size: int, length: int | None = None) -> None:
        super().__init__()
        published = self._published(images)
        scale = 1 if length is None else length / published[-1]
        self.boundaries = tuple(max(1, round(boundary * scale)) for boundary in published)
        self.total_steps = self.boundaries[-1]
        self.peak = 0.003 * batch_size / 512
        self.mixup = 0.0 if images < 20_000 else 0.1

    @staticmethod
    def _published(images: int) -> tuple[int, ...]:
        if images < 20_000:
            return (100, 200, 300, 400, 500)
        if images < 500_000:
            return (500, 3_000, 6_000, 9_000, 10_000)
        return (500, 6_000, 12_000, 18_000, 20_000)

    @staticmethod
    def resolution(height: int, width: int) -> tuple[int, int]:
        """Sides in pixels, (resize, crop), for training images of this size in pixels."""
        return (160, 128) if height * width < 96 * 96 else (512, 480)

    def optimizer(self) -> keras.optimizers.SGD:
        """A new optimizer with the rule's settings."""
        return keras.optimizers.SGD(learning_rate=self.peak, momentum=0.9)

    def rate(self, step: int) -> float:
        warm_up, *decays, _ = self.boundaries
        if step < warm_up:
            return self.peak * step / warm_up
        drops = sum(step > boundary for boundary in decays)
        return float(self.peak / 10**drops)


def build_schedule(
    schedule: Schedule,
    *,
    peak: float,
    steps_per_epoch: int,
    epochs: int,
    images: int,
    batch_size: int,
) -> ScheduledRate | None:
    """The callback of a configured schedule, or None for a constant rate.

    Args:
        schedule: `config.schedule`.
        peak: highest rate of warmup_cosine; the others have their own.
        steps_per_epoch: updates in one epoch.
        epochs: of the training, at most.
        images: number of training images.
        batch_size: images in a batch.
    """
    if isinstance(schedule, WarmupDecaySchedule):
        options = schedule.model_dump(exclude={"name"})
        return WarmupDecay(**options, steps_per_epoch=steps_per_epoch)
    if isinstance(schedule, WarmupCosineSchedule):
        return WarmupCosine(
            peak,
            total_steps=epochs * steps_per_epoch,
            warm_up_steps=round(schedule.warm_up * steps_per_epoch),
            final=schedule.final,
        )
    if isinstance(schedule, BiTHyperRuleSchedule):
        return BiTHyperRule(images, batch_size, schedule.length)
    return None
