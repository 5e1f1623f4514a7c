from __future__ import annotations

import numpy as np
import pytest

from cbir_tf.config import model as config_model
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder
from cbir_tf.models.attribution import embedding_shares
from cbir_tf.retrieval.whitening import Whitening
from cbir_tf.server.pipeline.explanation import explanation


def embedder_of(**head):
    model = config_model.Model(backbone="small_cnn", weights=None, **head)
    embedder = build_embedder(model, seed=1, image_size=(32, 32))
    random = np.random.default_rng(0)
    for layer in embedder.layers[2:]:  # biases and statistics that are not what they start from
        if layer.name != "backbone":
            layer.set_weights([each + random.uniform(0.1, 0.4, each.shape) / (1 + each.ndim) ** 2
                               for each in layer.get_weights()])  # fmt: skip
    return embedder


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ({"embedding_size": 8}, "linear"),
        ({"embedding_size": None, "normalize": False}, "linear"),
        ({"embedding_size": 8, "normalize": False, "dropout": 0.5}, "linear"),
        ({"embedding_size": 8, "hidden": [16]}, "local"),
        ({"embedding_size": 8, "hidden": [16, 12], "hidden_norm": "batch"}, "local"),
        ({"embedding_size": 8, "pooling": "max"}, "local"),
        ({"embedding_size": 8, "pooling": "gem"}, "local"),
    ],
)
def test_shares_sum_to_the_embedding_and_pairs_to_the_similarity(pixels, head, kind):
    embedder = embedder_of(**head)
    vectors = embedder.predict_on_batch(pixels)
    shares, found = embedding_shares(embedder, pixels)
    assert found == kind and shares.shape[1] * shares.shape[2] > 1
    assert np.allclose(shares.sum(axis=(1, 2)), vectors, rtol=1e-4, atol=1e-5)

    similarity = vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1))
    told = explanation(shares, found, None)
    assert told.pairs.sum() == pytest.approx(similarity, abs=1e-5)
    assert told.first.sum() == pytest.approx(similarity, abs=1e-5)
    assert told.second.sum() == pytest.approx(similarity, abs=1e-5)
    assert told.first.shape == told.second.shape == shares.shape[1:3]


def test_of_a_linear_head_a_share_is_what_the_place_alone_makes(pixels):
    import keras

    embedder = embedder_of(embedding_size=8, normalize=False)
    shares, _ = embedding_shares(embedder, pixels)
    features = keras.Model(embedder.inputs, embedder.get_layer("pooling").input)
    places = np.asarray(features.predict_on_batch(pixels), np.float64)
    kernel, bias = embedder.get_layer("embedding").get_weights()
    count = places.shape[1] * places.shape[2]
    for row, column in ((0, 0), (1, 2)):
        alone = (places[:, row, column] @ kernel + bias) / count
        assert np.allclose(shares[:, row, column], alone, atol=1e-6)


def test_attributions_work_for_whitened_vectors_too(pixels):
    embedder = embedder_of(embedding_size=8)
    stored = np.random.default_rng(5).normal(size=(40, 8)).astype(np.float32)
    projection = Whitening.fit(stored, components=4, whiten=True)
    told = explanation(*embedding_shares(embedder, pixels), projection)
    vectors = projection(embedder.predict_on_batch(pixels))
    similarity = vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1))
    assert told.pairs.sum() == pytest.approx(similarity, abs=1e-5)


def test_a_feature_map_of_one_place_has_nothing_to_show(pixels):
    with pytest.raises(UserError, match="one place only"):
        embedding_shares(embedder_of(embedding_size=8), pixels[:, :4, :4])
