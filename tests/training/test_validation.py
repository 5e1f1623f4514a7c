"""Retrieval metrics, validation loss and the collapse alarm while a small model trains."""

from __future__ import annotations

import logging
import logging.handlers

import keras
import numpy as np
import pytest

from cbir_tf.errors import UserError
from cbir_tf.losses import TripletHardLoss, TripletSemiHardLoss
from cbir_tf.training.callbacks import CollapseAlarm, RetrievalMetrics, ValidationPass
from cbir_tf.training.callbacks.collapse_alarm import sample_of_every_class
from cbir_tf.types import UNLABELLED, Embeddings, ImageSet


def clusters(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around five corners, (N, 8) float32 and (N,) labels, the classes mixed."""
    labels = np.tile(np.arange(5), per_class)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 8))
    return (np.eye(5, 8)[labels] * 3 + noise).astype("float32"), labels


class Validation:
    """Embeds a validation split, and counts how often."""

    def __init__(self, points: np.ndarray, labels: np.ndarray) -> None:
        self.points, self.labels, self.passes = points, labels, 0

    def __call__(self, model: keras.Model) -> Embeddings:
        self.passes += 1
        ids = np.array([f"{number:03}" for number in range(len(self.labels))])
        return Embeddings(ids, model.predict(self.points, verbose=0), self.labels)


def build_model(optimizer: keras.optimizers.Optimizer, loss: keras.losses.Loss) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(4),
            keras.layers.UnitNormalization(),
        ]
    )
    model.compile(optimizer, loss)
    return model


def naive_recall_at_1(embeddings: Embeddings) -> float:
    hits = 0
    for query in range(len(embeddings)):
        distances = np.linalg.norm(embeddings.vectors - embeddings.vectors[query], axis=1)
        distances[query] = np.inf
        hits += embeddings.labels[np.argmin(distances)] == embeddings.labels[query]
    return hits / len(embeddings)


def test_every_epoch_logs_the_figures_of_its_own_embeddings_from_one_pass() -> None:
    loss = TripletSemiHardLoss(margin=0.2)
    model = build_model(keras.optimizers.Adam(0.02), loss)
    validation = Validation(*clusters(8, seed=1))
    retrieval = RetrievalMetrics(validation)
    recalls = []
    oracle = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: recalls.append(naive_recall_at_1(retrieval.latest()))
    )
    points, labels = clusters(12, seed=0)
    history = model.fit(
        points,
        labels,
        batch_size=30,
        epochs=3,
        verbose=0,
        validation_data=(validation.points, validation.labels),
        validation_batch_size=15,
        callbacks=[retrieval, oracle, CollapseAlarm(retrieval, 0.2)],
    ).history
    assert validation.passes == 3
    np.testing.assert_allclose(history["val_recall@1"], recalls)
    assert all(0 < value <= 1 for value in history["val_map_at_r"])
    assert set(history) == {
        "loss",
        "val_loss",
        "val_recall@1",
        "val_map_at_r",
        "val_positive_distance",
        "val_negative_distance",
        "val_active_fraction",
        "val_spread",
    }


def validation_pass(
    model: keras.Model, points: np.ndarray, labels: np.ndarray, batch_size: int = 64
) -> ValidationPass:
    """Over points in place of images, measured by the model's loss."""
    ids = [f"{number:03}" for number in range(len(labels))]
    images = ImageSet(ids, [b""] * len(ids), labels, ["validation"] * len(ids), list("abcde"))
    cuts = [
        np.arange(len(labels))[start : start + batch_size]
        for start in range(0, len(labels), batch_size)
    ]
    return ValidationPass(
        keras.Model(model.inputs, model.outputs * 2),
        images,
        lambda: [(points[positions], positions) for positions in cuts],
        lambda batch, labels, outputs: {"loss": float(model.loss(labels, outputs))},
    )


@pytest.mark.parametrize("batch_size", [15, 40, 64])
def test_the_validation_loss_is_what_keras_evaluates(batch_size) -> None:
    model = build_model(keras.optimizers.Adam(0.001), TripletSemiHardLoss(margin=0.2))
    held_out, held_out_labels = clusters(8, seed=1)
    seen = validation_pass(model, held_out, held_out_labels, batch_size)
    logged = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logged.append(logs["val_loss"])
    )
    points, labels = clusters(6, seed=0)
    model.fit(points, labels, verbose=0, callbacks=[seen, record])
    expected = model.evaluate(held_out, held_out_labels, batch_size=batch_size, verbose=0)
    assert logged == [pytest.approx(expected, rel=1e-5)]


def test_the_validation_pass_measures_averages_and_hands_on_labelled_embeddings() -> None:
    model = build_model(
        keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), TripletSemiHardLoss(0.2)
    )
    held_out, labels = clusters(8, seed=1)
    some = np.where(labels == 2, UNLABELLED, labels)
    seen = validation_pass(model, held_out, some)
    model.fit(*clusters(12, seed=0), batch_size=20, verbose=0, callbacks=[seen])
    # fit ends by giving the model the averages.
    expected = model.predict_on_batch(held_out)[some != UNLABELLED]
    np.testing.assert_allclose(seen.latest().vectors, expected, atol=1e-6)
    assert seen.latest().labels.tolist() == labels[labels != 2].tolist()


def test_the_averaged_weights_are_validated() -> None:
    model = build_model(
        keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), TripletSemiHardLoss(0.2)
    )
    retrieval = RetrievalMetrics(Validation(*clusters(8, seed=1)))
    points, labels = clusters(12, seed=0)
    model.fit(points, labels, batch_size=20, verbose=0, callbacks=[retrieval])
    # fit ends by giving the model the averages.
    np.testing.assert_array_equal(retrieval.latest().vectors, retrieval.embed(model).vectors)


def test_a_diverged_training_is_a_one_line_error() -> None:
    model = build_model(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
    retrieval = RetrievalMetrics(Validation(*clusters(2, seed=1)))
    for callback in (retrieval, validation_pass(model, *clusters(2, seed=1))):
        with pytest.raises(UserError, match="epoch 1: training diverged, the loss is nan"):
            model.fit(np.ones((8, 8)), np.full((8, 4), np.nan), verbose=0, callbacks=[callback])


def test_a_callback_before_the_embeddings_it_needs_is_refused() -> None:
    model = build_model(keras.optimizers.SGD(0.1), TripletHardLoss(0.2))
    retrieval = RetrievalMetrics(Validation(*clusters(2, seed=1)))
    with pytest.raises(ValueError, match="must come first"):
        model.fit(
            *clusters(2, seed=0), verbose=0, callbacks=[CollapseAlarm(retrieval, 0.2), retrieval]
        )
    with pytest.raises(ValueError, match="must come first"):
        validation_pass(model, *clusters(2, seed=1)).latest()


def alarms(labels: np.ndarray, rate: float, loss: keras.losses.Loss) -> list[str]:
    """Train with these labels and return the warnings."""
    points, _ = clusters(12, seed=0)
    model = build_model(keras.optimizers.Adam(rate), loss)
    retrieval = RetrievalMetrics(Validation(points, labels))
    handler = logging.handlers.BufferingHandler(capacity=100)
    logging.getLogger("cbir_tf").addHandler(handler)
    try:
        history = model.fit(
            points,
            labels,
            batch_size=30,
            epochs=20,
            verbose=0,
            callbacks=[retrieval, CollapseAlarm(retrieval, loss.margin)],
        ).history
    finally:
        logging.getLogger("cbir_tf").removeHandler(handler)
    # What is to be told apart: one point, where every triplet costs the margin, or not.
    collapsed = history["loss"][-1] > 0.9 * loss.margin and history["val_spread"][-1] < 0.02
    assert collapsed == bool(handler.buffer)
    return [record.getMessage() for record in handler.buffer]


def test_a_collapse_is_announced_once() -> None:
    # Nothing tells these classes apart, so hard mining drives everything to one point.
    labels = np.random.default_rng(0).permutation(np.tile(np.arange(5), 12))
    warnings = alarms(labels, rate=0.05, loss=TripletHardLoss(margin=0.2))
    assert len(warnings) == 1
    assert "the embedding has collapsed" in warnings[0]


class At(keras.callbacks.Callback):
    """Stands for the retrieval metrics of an epoch, with given embeddings."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.vectors = np.asarray(vectors, np.float32)

    def latest(self) -> Embeddings:
        labels = np.arange(len(self.vectors)) % 2
        return Embeddings([f"{each:02}" for each in range(len(labels))], self.vectors, labels)


CIRCLE = np.stack([np.cos(np.arange(12)), np.sin(np.arange(12))], axis=1)


@pytest.mark.parametrize("distance", ["L2", "squared-L2", "angular"])
@pytest.mark.parametrize("margin", [0.0, 1e-6, 0.2])
@pytest.mark.parametrize(
    ("vectors", "collapsed"),
    [
        (np.tile([0.6, 0.8], (12, 1)), True),
        (np.zeros((12, 2)), True),
        (np.tile([60.0, 80.0], (12, 1)) + 0.1 * CIRCLE, True),
        ([1, 0] + 1e-4 * CIRCLE, True),
        (CIRCLE, False),
        (1e-3 * CIRCLE, None),  # of length 1 / 1000: collapsed by a margin of .2 alone
        ([1, 0] + 0.5 * CIRCLE, False),
    ],
)
def test_a_collapse_is_seen_whatever_the_margin(vectors, collapsed, margin, distance, caplog):
    if collapsed is None:
        collapsed = margin == 0.2 and distance != "angular"
    logger = logging.getLogger("cbir_tf")
    logger.addHandler(caplog.handler)
    try:
        CollapseAlarm(At(vectors), margin, distance).on_epoch_end(0, {})
    finally:
        logger.removeHandler(caplog.handler)
    assert bool(caplog.messages) == collapsed


def test_a_training_that_learns_raises_no_alarm() -> None:
    _, labels = clusters(12, seed=0)
    assert alarms(labels, rate=0.01, loss=TripletSemiHardLoss(margin=0.2)) == []


def test_a_sample_has_the_same_number_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 3, 40])
    everything = Embeddings([f"{number:02}" for number in range(93)], np.ones((93, 2)), labels)
    sample = sample_of_every_class(everything, 30)
    assert np.bincount(sample.labels).tolist() == [10, 3, 10]
    assert len(sample_of_every_class(everything, 1000)) == 93


def test_a_sample_of_many_small_classes_keeps_their_pairs() -> None:
    labels = np.tile(np.arange(100), 3)
    everything = Embeddings([f"{number:03}" for number in range(300)], np.ones((300, 2)), labels)
    assert np.bincount(sample_of_every_class(everything, 40).labels).tolist() == [2] * 20
