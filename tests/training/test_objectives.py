"""Objectives besides triplets: targets, losses, and the saved models."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbir_tf.config import Config
from cbir_tf.models import build_embedder, frozen_batch_norm_digest, load_classifier
from cbir_tf.models.decoder import build_decoder
from cbir_tf.training.callbacks import Checkpoint
from cbir_tf.training.objectives import OBJECTIVES, Objective, build_objective, with_noise

SIDE, CLASSES = 12, 3
NEW = ["cross_entropy", "reconstruction"]


def settings(loss, **model) -> Config:
    tiny = {"backbone": "small_cnn", "options": {"width": 2}, "weights": None, "embedding_size": 5}
    data = {"source": "digits", "image_size": SIDE}
    return Config.check({"data": data, "model": tiny | model, "loss": loss})


def objective(loss, seed: int = 0, **model) -> Objective:
    config = settings(loss, **model)
    return build_objective(build_embedder(config.model, seed), config, CLASSES, seed)


def images(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    labels = np.arange(count) % CLASSES
    shade = np.array([40, 120, 200])[labels, None, None, None]
    return (shade + random.integers(-30, 30, (count, SIDE, SIDE, 3))).astype(np.uint8), labels


def batches(epochs: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(images(8)).batch(4).repeat(epochs)


@pytest.fixture
def policy():
    """Sets a dtype policy and puts the former one back."""
    former = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(former)


def naive_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits.astype(float).tolist(), labels.tolist(), strict=True):
        whole = sum(math.exp(value) for value in row)
        for number, value in enumerate(row):
            target = (1 - smoothing) * (number == label) + smoothing / len(row)
            total -= target * math.log(math.exp(value) / whole)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_the_classifier_is_the_cross_entropy_of_its_logits(smoothing):
    trained = objective({"name": "cross_entropy", "label_smoothing": smoothing})
    pixels, labels = images()
    logits = trained.model.predict_on_batch(pixels)
    metrics = trained.batch_metrics(pixels, labels, logits)
    assert metrics["loss"] == pytest.approx(
        naive_cross_entropy(logits, labels, smoothing), rel=1e-5
    )
    assert metrics["accuracy"] == sum(np.argmax(logits, axis=1) == labels) / len(labels)


def test_the_loss_of_the_auto_encoder_is_the_mean_squared_error_of_its_pixels():
    trained = objective("reconstruction")
    pixels, labels = images()
    made = trained.model.predict_on_batch(pixels)
    assert made.shape == pixels.shape
    assert made.min() >= 0
    assert made.max() <= 1
    differences = (made.astype(float) - pixels / 255).ravel().tolist()
    naive = sum(each**2 for each in differences) / len(differences)
    assert trained.batch_metrics(pixels, labels, made) == {"loss": pytest.approx(naive, rel=1e-5)}


@pytest.mark.parametrize("normalize", [True, False])
def test_the_classifier_stands_on_the_vector_before_it_is_normalised(normalize):
    trained = objective("cross_entropy", normalize=normalize)
    pixels, _ = images()
    embeddings, logits = trained.validation_model.predict_on_batch(pixels)
    raw = build_embedder(settings("cross_entropy", normalize=False).model).predict_on_batch(pixels)
    kernel, bias = (np.asarray(each) for each in trained.model.get_layer("logits").weights)
    np.testing.assert_allclose(logits, raw @ kernel + bias, atol=1e-4)
    norms = np.linalg.norm(raw, axis=1, keepdims=True) if normalize else 1
    np.testing.assert_allclose(embeddings, raw / norms, atol=1e-5)


def test_dense_dropout_softmax_is_the_last_hidden_layer_without_the_dropout():
    trained = objective("cross_entropy", hidden=[7], dropout=0.5, embedding_size=None)
    pixels, _ = images()
    assert trained.embedder.output_shape == (None, 7)
    assert [layer.name for layer in trained.model.layers][-3:] == ["hidden_1", "dropout", "logits"]
    same = trained.embedder.predict_on_batch(pixels)
    np.testing.assert_array_equal(trained.embedder.predict_on_batch(pixels), same)


@pytest.mark.parametrize("name", NEW)
def test_outputs_and_loss_are_float32_whatever_the_policy(name, policy):
    policy("mixed_bfloat16")
    trained = objective(name)
    pixels, labels = images()
    outputs = trained.model(pixels)
    assert outputs.dtype == "float32"
    assert trained.loss(trained.targets(pixels, labels), outputs).dtype == "float32"
    assert all(variable.dtype == "float32" for variable in trained.model.trainable_variables)


def test_saved_and_loaded_objectives_give_the_same_outputs(tmp_path):
    pixels, _ = images()
    classification, reconstruction = objective("cross_entropy"), objective("reconstruction")
    classification.saved_model.save(tmp_path / "classifier.keras")
    probabilities = load_classifier(tmp_path / "classifier.keras", CLASSES).predict_on_batch(pixels)
    logits = classification.model.predict_on_batch(pixels).astype(float)
    exponents = np.exp(logits)
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    reconstruction.saved_model.save(tmp_path / "autoencoder.keras")
    again = keras.saving.load_model(tmp_path / "autoencoder.keras")
    expected = reconstruction.model.predict_on_batch(pixels)
    np.testing.assert_array_equal(again.predict_on_batch(pixels), expected)


def test_noise_is_on_the_input_and_not_on_the_target():
    trained = objective({"name": "reconstruction", "noise": 0.1})
    gray = np.full((4, 64, 64, 3), 128, np.uint8)
    data = tf.data.Dataset.from_tensors((gray, np.zeros(4)))
    [(seen, targets)] = trained.batches(data, seed=0)
    np.testing.assert_array_equal(targets, np.full(gray.shape, np.float32(128) / 255))
    added = (seen.numpy().astype(float) - gray) / 255
    assert added.std() == pytest.approx(0.1, rel=0.02)
    assert abs(added.mean()) < 0.002
    white = with_noise(np.full((1, 64, 64, 3), 255, np.uint8), 0.1, seed=2**40).numpy()
    assert white.max() == 255  # a pixel too bright does not turn dark
    assert white.min() > 100


def test_the_noise_of_a_batch_depends_on_its_number_and_the_seed_alone():
    trained = objective({"name": "reconstruction", "noise": 0.1})
    whole = [seen.numpy() for seen, _ in trained.batches(batches(3), seed=2**70)]
    later = [seen.numpy() for seen, _ in trained.batches(batches(1), seed=2**70, first=4)]
    np.testing.assert_array_equal(later, whole[4:])
    assert (whole[0] != whole[2]).any()  # the same images an epoch later
    [other, _] = [seen.numpy() for seen, _ in trained.batches(batches(1), seed=1)]
    assert (other != whole[0]).any()


@pytest.mark.parametrize("name", NEW)
def test_resumed_training_ends_where_uninterrupted_training_does(name, tmp_path):
    loss = {"name": name, **({"noise": 0.2} if name == "reconstruction" else {})}

    def train(folder, epochs, seed=0):
        trained = objective(loss, seed, hidden=[6], dropout=0.3)
        trained.model.compile(keras.optimizers.SGD(0.05, momentum=0.9), trained.loss)
        checkpoint = Checkpoint(tmp_path / folder, monitor="loss")
        first = checkpoint.restore(trained.model)
        trained.model.fit(
            trained.batches(batches(epochs - first), 0, 2 * first),
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=2,
            callbacks=[checkpoint],
            verbose=0,
        )
        return trained.model, checkpoint.history

    whole, expected = train("whole", 4)
    train("halves", 2)
    # Another seed: everything that matters has to come from the checkpoint.
    resumed, history = train("halves", 4, seed=99)
    assert len(resumed.variables) > len(objective(loss, hidden=[6]).embedder.variables)
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)
    for ours, theirs in zip(history, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_frozen_batch_normalisation_stays_while_the_embedder_learns(name):
    trained = objective(name, batch_norm="frozen")
    frozen = frozen_batch_norm_digest(trained.embedder)
    pixels, _ = images()
    before = trained.embedder.predict_on_batch(pixels)
    trained.model.compile(keras.optimizers.Adam(0.01), trained.loss)
    trained.model.fit(trained.batches(batches(3), seed=0), verbose=0)
    assert frozen_batch_norm_digest(trained.embedder) == frozen
    assert (trained.embedder.predict_on_batch(pixels) != before).any()


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (33, 20), (224, 224), (100, 9)])
def test_a_decoder_makes_images_of_any_size_from_a_small_map(size):
    decoder = build_decoder(4, *size)
    assert decoder.output_shape == (None, *size, 3)
    _, rows, columns, channels = decoder.get_layer("start").output.shape
    assert max(rows, columns) <= 7
    assert channels <= 256


# --- proxies ------------------------------------------------------------------------------------

PROXIES = ["proxy_anchor", "proxy_nca", "arcface"]
PAIRS = ["contrastive", "multi_similarity", "supervised_contrastive", "circle", "smooth_ap"]


@pytest.mark.parametrize("name", [*PROXIES, *PAIRS])
def test_a_few_steps_bring_every_loss_down(name):
    tested = objective({"name": name})
    keras.utils.set_random_seed(0)
    tested.model.compile(keras.optimizers.Adam(1e-3), tested.loss)
    history = tested.model.fit(tested.batches(batches(30), 0), epochs=1, verbose=0).history
    before = objective({"name": name})
    pixels, labels = images(8)
    assert np.isfinite(history["loss"]).all()
    losses = [
        float(each.loss(labels, each.model.predict_on_batch(pixels))) for each in (tested, before)
    ]
    assert losses[0] < 0.9 * losses[1]


@pytest.mark.parametrize("name", PROXIES)
def test_proxies_are_trained_and_stay_out_of_the_embedder(name):
    tested = objective({"name": name, "proxies_per_class": 2})
    proxies = tested.model.get_layer("proxies")
    assert proxies.directions.shape == (2 * CLASSES, 5)
    assert any(each is proxies.directions for each in tested.model.trainable_variables)
    assert all(each is not proxies.directions for each in tested.embedder.variables)
    before = np.array(proxies.directions)
    tested.model.compile(keras.optimizers.Adam(1e-3), tested.loss)
    tested.model.fit(tested.batches(batches(1), 0), epochs=1, verbose=0)
    assert (np.array(proxies.directions) != before).any()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_proxies_move_at_a_rate_of_their_own(optimizer):
    """The first step of the proxies themselves grows with the rate."""
    steps = []
    for rate in (1.0, 100.0):
        config = settings({"name": "proxy_anchor", "proxy_rate": rate})
        config = config.model_copy(
            update={"optimizer": config.optimizer.model_copy(update={"name": optimizer})}
        )
        embedder = build_embedder(config.model, 0)
        tested = build_objective(embedder, config, CLASSES, 0)
        layer = tested.model.get_layer("proxies")
        start = np.random.default_rng(0).standard_normal(layer.directions.shape)
        layer.directions.assign(start / layer.factor)
        makers = {
            "adam": keras.optimizers.Adam,
            "adamw": keras.optimizers.AdamW,
            "sgd": keras.optimizers.SGD,
        }
        options = {"weight_decay": 0.0} if optimizer == "adamw" else {}
        tested.model.compile(makers[optimizer](1e-5, **options), tested.loss)
        tested.model.train_on_batch(*images(6))
        steps.append(np.abs(layer.factor * np.array(layer.directions) - start).max())
    assert steps[1] / steps[0] == pytest.approx(100.0, rel=0.1)


def test_a_loss_of_the_training_classes_has_no_value_over_others():
    with pytest.raises(Exception, match="training classes alone"):
        Config.check(
            {
                "data": {"source": "digits", "split": {"by": "class"}},
                "loss": "proxy_anchor",
                "training": {"monitor": "val_loss"},
            }
        )


def test_the_nearest_of_a_classs_proxies_counts():
    from cbir_tf.models.proxies import ProxySimilarities

    layer = ProxySimilarities(classes=2, per_class=2, factor=10.0)
    layer.build((None, 2))
    layer.directions.assign([[0.1, 0.0], [0.0, 0.2], [-0.3, 0.0], [0.0, -0.1]])
    found = np.asarray(layer(np.array([[0.0, 5.0], [3.0, 0.0], [-1.0, 0.0]], np.float32)))
    np.testing.assert_allclose(found, [[1, 0], [1, 0], [0, 1]], atol=1e-6)
