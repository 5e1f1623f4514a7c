"""Learning rates against the published tables, Keras's own schedules and naive loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config import training as config
from cbir_tf.training.callbacks import (
    BiTHyperRule,
    ScheduledRate,
    WarmupCosine,
    WarmupDecay,
    build_schedule,
)


def tiny_model(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def fit(model: keras.Model, batches: int, **arguments) -> keras.callbacks.History:
    return model.fit(
        np.ones((batches, 2)), np.ones((batches, 1)), batch_size=1, verbose=0, **arguments
    )


class Recorder(keras.callbacks.Callback):
    """The rate every batch was trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


def test_warmup_decay_reproduces_system_a() -> None:
    # 1e-5 rises by 8e-6 an epoch to 5e-5, then 4e-5 * 0.8 ** n above 1e-5.
    published = [1e-5, 1.8e-5, 2.6e-5, 3.4e-5, 4.2e-5, 5e-5, 4.2e-5, 3.56e-5, 3.048e-5, 2.6384e-5]
    schedule = WarmupDecay(steps_per_epoch=3)
    np.testing.assert_allclose(schedule.plan(30), np.repeat(published, 3), rtol=1e-12)


def test_warmup_decay_per_step_reads_the_same_curve_in_steps() -> None:
    per_epoch = WarmupDecay(sustain=2, steps_per_epoch=4).plan(80)[::4]
    np.testing.assert_array_equal(WarmupDecay(sustain=2, per="step").plan(20), per_epoch)


def test_warmup_decay_holds_the_maximum() -> None:
    schedule = WarmupDecay(start=0, max=1, min=0.5, ramp_up=2, sustain=3, decay=0.5, per="step")
    np.testing.assert_allclose(schedule.plan(8), [0, 0.5, 1, 1, 1, 1, 0.75, 0.625])


@given(
    st.integers(0, 6), st.integers(0, 6), st.floats(0.01, 1), st.integers(1, 5), st.integers(0, 100)
)
def test_warmup_decay_stays_between_its_bounds(ramp_up, sustain, decay, per_epoch, step) -> None:
    schedule = WarmupDecay(
        1e-4,
        1e-2,
        1e-3,
        ramp_up=ramp_up,
        sustain=sustain,
        decay=decay,
        steps_per_epoch=per_epoch,
    )
    assert 1e-4 <= schedule.rate(step) <= 1e-2 * (1 + 1e-12)
    assert schedule.rate(step) == schedule.rate(step - step % per_epoch)


def test_warmup_decay_without_steps_per_epoch_asks_for_them() -> None:
    with pytest.raises(ValueError, match="steps_per_epoch"):
        WarmupDecay().rate(0)


def test_warmup_cosine_falls_as_keras_does() -> None:
    keras_schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=40, alpha=0.1, warmup_target=0.5, warmup_steps=10
    )
    ours = WarmupCosine(0.5, total_steps=50, warm_up_steps=10, final=0.1)
    steps = range(10, 60)
    np.testing.assert_allclose(
        [ours.rate(step) for step in steps],
        [float(keras_schedule(step)) for step in steps],
        rtol=1e-5,
    )


def test_warmup_cosine_rises_in_equal_steps_to_the_peak() -> None:
    np.testing.assert_allclose(WarmupCosine(1.0, 10, 4).plan(4), [0.25, 0.5, 0.75, 1.0])


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
def test_warmup_cosine_is_positive_and_never_above_the_peak(warm_up, rest, final) -> None:
    plan = WarmupCosine(2.0, warm_up + rest, warm_up, final).plan(warm_up + rest + 5)
    assert (plan >= 0).all()
    assert (plan <= 2.0 + 1e-12).all()
    np.testing.assert_allclose(plan[-5:], 2.0 * final)


# Kolesnikov et al. 2020, section 3.3 and bit_hyperrule.py of google-research/big_transfer.
@pytest.mark.parametrize(
    ("images", "boundaries", "mixup"),
    [
        (184, (100, 200, 300, 400, 500), 0.0),
        (19_999, (100, 200, 300, 400, 500), 0.0),
        (20_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
        (499_999, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
        (500_000, (500, 6_000, 12_000, 18_000, 20_000), 0.1),
    ],
)
def test_bit_hyperrule_follows_the_published_table(images, boundaries, mixup) -> None:
    rule = BiTHyperRule(images, batch_size=512)
    assert rule.boundaries == boundaries
    assert rule.total_steps == boundaries[-1]
    assert rule.mixup == mixup
    warm_up, first, second, third, end = boundaries
    published = {
        0: 0.0,
        warm_up // 2: 0.0015,
        warm_up: 0.003,
        first: 0.003,
        first + 1: 0.0003,
        second: 0.0003,
        second + 1: 0.00003,
        third + 1: 0.000003,
        end - 1: 0.000003,
    }
    for step, rate in published.items():
        assert rule.rate(step) == pytest.approx(rate, rel=1e-9), step


@pytest.mark.parametrize(
    ("height", "width", "resolution"),
    [(32, 32, (160, 128)), (95, 96, (160, 128)), (96, 96, (512, 480)), (224, 224, (512, 480))],
)
def test_bit_hyperrule_chooses_the_published_resolution(height, width, resolution) -> None:
    assert BiTHyperRule.resolution(height, width) == resolution


def test_bit_hyperrule_scales_the_rate_with_the_batch_and_sets_up_sgd() -> None:
    optimizer = BiTHyperRule(3_000, batch_size=64).optimizer()
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == pytest.approx(0.003 * 64 / 512)
    assert optimizer.momentum == 0.9


@given(st.sampled_from([100, 30_000, 600_000]), st.integers(10, 40_000))
def test_bit_hyperrule_of_another_length_moves_every_boundary(images, length) -> None:
    published = np.array(BiTHyperRule(images, 512).boundaries)
    boundaries = np.array(BiTHyperRule(images, 512, length).boundaries)
    assert boundaries[-1] == length
    assert (np.diff(boundaries) >= 0).all()
    np.testing.assert_allclose(boundaries, published * length / published[-1], atol=1)


def test_a_short_bit_hyperrule_still_decays_three_times() -> None:
    rates = BiTHyperRule(184, 512, length=50).plan(50)
    assert sorted({f"{rate:.0e}" for rate in rates[10:]}) == ["3e-03", "3e-04", "3e-05", "3e-06"]


def test_every_batch_is_trained_with_the_planned_rate() -> None:
    schedule, recorder = WarmupCosine(0.1, total_steps=12, warm_up_steps=3), Recorder()
    history = fit(tiny_model(keras.optimizers.SGD()), 4, epochs=3, callbacks=[schedule, recorder])
    np.testing.assert_allclose(recorder.rates, schedule.plan(12), rtol=1e-6)
    np.testing.assert_allclose(history.history["learning_rate"], schedule.plan(12)[3::4], rtol=1e-6)


def test_training_that_goes_on_goes_on_with_the_rate() -> None:
    model, recorder = tiny_model(keras.optimizers.SGD()), Recorder()
    fit(model, 4, epochs=2, callbacks=[WarmupDecay(), recorder])
    fit(model, 4, initial_epoch=2, epochs=4, callbacks=[WarmupDecay(), recorder])
    planned = WarmupDecay(steps_per_epoch=4).plan(16)
    np.testing.assert_allclose(recorder.rates, planned, rtol=1e-6)


def test_the_rate_reaches_an_optimizer_under_loss_scaling() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    fit(tiny_model(optimizer), 3, callbacks=[WarmupCosine(0.1, 3, 3)])
    assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (config.WarmupDecaySchedule(max=1e-3), WarmupDecay(max=1e-3, steps_per_epoch=20)),
        (config.WarmupCosineSchedule(warm_up=0.5), WarmupCosine(0.01, 200, 10, 0.01)),
        (config.BiTHyperRuleSchedule(length=60), BiTHyperRule(640, 32, 60)),
    ],
)
def test_a_configured_schedule_has_the_configured_rates(section, expected: ScheduledRate) -> None:
    built = build_schedule(
        section, peak=0.01, steps_per_epoch=20, epochs=10, images=640, batch_size=32
    )
    np.testing.assert_array_equal(built.plan(250), expected.plan(250))


def test_a_constant_rate_needs_no_callback() -> None:
    assert (
        build_schedule(
            config.Constant(), peak=0.01, steps_per_epoch=20, epochs=10, images=640, batch_size=32
        )
        is None
    )
