"""The tests that every backbone passes: derive a class from `BackboneHarness` and fill it in.

class TestSmallCnn(BackboneHarness):
    backbone = "small_cnn"
    options = {"width": 8}
    maps = {(32, 32): (8, 8, 32), (33, 47): (9, 12, 32)}
    parameters = 308_704
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cbir_tf.config.model import Model
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder, frozen_batch_norm_digest, load_embedder
from cbir_tf.models.backbones import BACKBONES, build_backbone

Size = tuple[int, int]

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PREPARED = {
    "signed": lambda pixels: pixels / 127.5 - 1,
    "centered": lambda pixels: (pixels - 127) / 128,
    "caffe": lambda pixels: pixels[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "imagenet": lambda pixels: (pixels / 255 - MEAN) / DEVIATION,
    "none": lambda pixels: pixels,
}
"""What a backbone is given, from pixels in 0..255, written out by hand."""


def images(count: int, size: Size) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Case:
    """What the tests need to know of a backbone.

    Attributes:
        backbone: its name.
        maps: size of an image -> shape of its feature map; two sizes or more, one not square.
        parameters: number of parameters with the default options.
        options: of a small network for the tests.
        impossible: options of values that cannot be built.
        image_size: for a backbone that is built for one size.
        reached: share of the trained variables that change in two steps from random weights;
            small where gradients vanish behind frozen batch norms without statistics.
        large: there are no options for a small one, so that some tests take a short cut.
    """

    backbone: str
    maps: Mapping[Size, tuple[int, int, int]]
    parameters: int
    options: Mapping[str, Any] = field(default_factory=dict)
    impossible: Mapping[str, Any] = field(default_factory=dict)
    image_size: Size = (224, 224)
    reached: float = 0.9
    large: bool = False


class BackboneHarness:
    case: Case

    @pytest.fixture(scope="class")
    def embedder(self) -> keras.Model:
        return self.built()

    @pytest.fixture
    def policy(self) -> Iterator[Any]:
        """Sets a global dtype policy for one test."""
        before = keras.config.dtype_policy()
        yield keras.config.set_dtype_policy
        keras.config.set_dtype_policy(before)

    def built(self, **changes: Any) -> keras.Model:
        given = {"weights": None, "options": self.case.options, "embedding_size": 16}
        settings = Model(backbone=self.case.backbone, **(given | changes))
        return build_embedder(settings, 0, self.case.image_size)

    def largest(self) -> np.ndarray:
        return images(3, max(self.case.maps))

    def test_images_of_any_size_give_maps_of_the_documented_shape(self, embedder):
        assert len(self.case.maps) > 1 and any(height != width for height, width in self.case.maps)
        backbone = embedder.get_layer("backbone")
        for size, shape in self.case.maps.items():
            prepared = PREPARED[BACKBONES[self.case.backbone].preprocessing](images(2, size))
            features = np.asarray(backbone(prepared.astype(np.float32), training=False))
            assert features.shape == (2, *shape)
            assert features.dtype == np.float32
            assert np.isfinite(features).all()
            assert (features[0] != features[1]).any()
            vectors = embedder.predict_on_batch(images(2, size))
            assert (vectors.shape, vectors.dtype) == ((2, 16), np.float32)
            assert np.isfinite(vectors).all()
            assert (vectors[0] != vectors[1]).any()

    @pytest.mark.slow
    def test_the_default_network_has_the_documented_number_of_parameters(self, embedder):
        if not self.case.options:
            assert embedder.get_layer("backbone").count_params() == self.case.parameters
            return
        model = BACKBONES[self.case.backbone].build(name="backbone", **self.default_arguments())
        assert model.count_params() == self.case.parameters

    def default_arguments(self) -> dict[str, Any]:
        takes_weights = BACKBONES[self.case.backbone].takes_weights
        return {"weights": None, "image_size": (224, 224)} if takes_weights else {}

    def test_a_misspelt_option_is_a_one_line_error(self):
        for option in [*BACKBONES[self.case.backbone].options, "option"]:
            with pytest.raises(UserError, match=rf"no option '{option}s'") as error:
                build_backbone(self.case.backbone, {f"{option}s": 1}, None)
            assert "\n" not in str(error.value)

    def test_an_impossible_option_is_a_one_line_error(self):
        for option, value in self.case.impossible.items():
            with pytest.raises(UserError, match=f"{self.case.backbone} cannot be built") as error:
                build_backbone(self.case.backbone, {option: value}, None, self.case.image_size)
            assert option in str(error.value)
            assert "\n" not in str(error.value)

    def test_the_preprocessing_is_inside_the_model(self, embedder):
        assert embedder.inputs[0].dtype == "uint8"
        pixels = self.largest()
        prepared = PREPARED[BACKBONES[self.case.backbone].preprocessing](pixels)
        backbone = embedder.get_layer("backbone")
        features = np.asarray(backbone(prepared.astype(np.float32), training=False))
        expected = features.mean(axis=(1, 2))
        tolerance = 1e-4 * max(1.0, np.abs(expected).max())
        pooled = keras.Model(embedder.input, embedder.get_layer("pooling").output)
        np.testing.assert_allclose(pooled(pixels, training=False), expected, atol=tolerance)

    def test_saved_and_read_again_it_gives_the_same_bits(self, embedder, tmp_path: Path):
        embedder.save(tmp_path / "model.keras")
        again = load_embedder(tmp_path / "model.keras")
        pixels = self.largest()
        expected = embedder.predict_on_batch(pixels)
        assert np.array_equal(again.predict_on_batch(pixels), expected)
        if not self.case.large:
            assert np.array_equal(again.predict(pixels, verbose=0), expected)

    def test_a_mixed_policy_computes_in_half_and_gives_float32(self, embedder, policy):
        # float16 has the smaller range, in which a large network may overflow.
        for name in ["float16"] if self.case.large else ["float16", "bfloat16"]:
            policy(f"mixed_{name}")
            half = self.built()
            half.set_weights(embedder.get_weights())
            assert name in {each.compute_dtype for each in half.get_layer("backbone").layers}
            assert {each.dtype for each in half.trainable_variables} == {"float32"}
            vectors = half.predict_on_batch(self.largest())
            assert vectors.dtype == np.float32
            assert np.isfinite(vectors).all()

    def test_a_training_step_changes_all_but_the_frozen_batch_norms(self):
        embedder = self.built(batch_norm="frozen")
        digest = frozen_batch_norm_digest(embedder)
        before = {each.path: np.array(each) for each in embedder.variables}
        targets = np.random.default_rng(1).normal(size=(3, 16))
        embedder.compile(keras.optimizers.SGD(0.1), "mse")
        for _ in range(2):
            embedder.train_on_batch(self.largest(), targets)
        assert frozen_batch_norm_digest(embedder) == digest
        changed = {
            each.path for each in embedder.variables if (np.array(each) != before[each.path]).any()
        }
        layers = embedder.get_layer("backbone").layers
        frozen = [each for each in layers if isinstance(each, keras.layers.BatchNormalization)]
        assert not changed & {variable.path for norm in frozen for variable in norm.variables}
        trained = {each.path for each in embedder.trainable_variables}
        assert len(changed & trained) > self.case.reached * len(trained)
