"""Every family of backbones passes the same tests."""

from __future__ import annotations

import importlib.util
import inspect

import pytest

from cbir_tf.models.backbones import BACKBONES
from cbir_tf.models.kerashub import TRANSFORMERS
from tests.models.backbone_harness import BackboneHarness, Case

needs_keras_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub"
)


class TestSmallCnn(BackboneHarness):
    case = Case(
        "small_cnn",
        {(32, 32): (8, 8, 32), (33, 47): (9, 12, 32)},
        308_704,
        options={"width": 8},
        impossible={"width": -1, "blocks": "two"},
    )


class TestMiniDenseNet(BackboneHarness):
    case = Case(
        "mini_densenet",
        {(32, 32): (8, 8, 16), (33, 47): (9, 12, 16)},
        179_880,
        options={"growth": 4, "layers_per_block": 2},
        impossible={"growth": 0, "layers_per_block": 0},
    )


@pytest.mark.slow
class TestResNet18(BackboneHarness):
    case = Case("resnet18", {(64, 64): (2, 2, 512), (96, 72): (3, 3, 512)}, 11_186_112, large=True)


@pytest.mark.slow
class TestResNeXt50(BackboneHarness):
    case = Case(
        "resnext50_32x4d", {(64, 64): (2, 2, 2048), (96, 72): (3, 3, 2048)}, 23_048_128, large=True
    )


@pytest.mark.slow
class TestBiT(BackboneHarness):
    case = Case(
        "bit_m_r50x1", {(64, 64): (2, 2, 2048), (96, 72): (3, 3, 2048)}, 23_500_352, large=True
    )


@pytest.mark.slow
class TestDeepRanking(BackboneHarness):
    case = Case(
        "deep_ranking",
        {(64, 64): (1, 1, 3088), (96, 72): (1, 1, 3088)},
        33_634_304,
        options={"width": 16},
        impossible={"width": 0, "dropout": 1.5},
    )


class TestMobileNet(BackboneHarness):
    case = Case(
        "mobilenet",
        {(64, 64): (2, 2, 256), (96, 72): (3, 2, 256)},
        3_228_864,
        options={"alpha": 0.25},
    )


class TestMobileNetV2(BackboneHarness):
    case = Case(
        "mobilenet_v2",
        {(64, 64): (2, 2, 1280), (96, 72): (3, 2, 1280)},
        2_257_984,
        options={"alpha": 0.35},
    )


@pytest.mark.slow
class TestMobileNetV3(BackboneHarness):
    case = Case(
        "mobilenet_v3_small",
        {(64, 64): (2, 2, 576), (96, 72): (3, 2, 576)},
        939_120,
        reached=0.02,
    )


@pytest.mark.slow
class TestVgg16(BackboneHarness):
    case = Case("vgg16", {(64, 64): (2, 2, 512), (96, 72): (3, 2, 512)}, 14_714_688, large=True)


@pytest.mark.slow
class TestResNet50(BackboneHarness):
    case = Case(
        "resnet50", {(64, 64): (2, 2, 2048), (96, 72): (3, 3, 2048)}, 23_587_712, large=True
    )


@pytest.mark.slow
class TestDenseNet121(BackboneHarness):
    case = Case(
        "densenet121", {(64, 64): (2, 2, 1024), (96, 72): (3, 2, 1024)}, 7_037_504, large=True
    )


@pytest.mark.slow
class TestEfficientNet(BackboneHarness):
    case = Case(
        "efficientnet_b0", {(64, 64): (2, 2, 1280), (96, 72): (3, 2, 1280)}, 4_049_564, large=True
    )


class TestEfficientNetLite(BackboneHarness):
    case = Case(
        "efficientnet_lite0",
        {(64, 64): (2, 2, 1280), (96, 72): (3, 3, 1280)},
        3_413_024,
        large=True,
    )


@pytest.mark.slow
class TestConvNeXt(BackboneHarness):
    case = Case(
        "convnext_tiny", {(64, 64): (2, 2, 768), (96, 72): (3, 2, 768)}, 27_820_128, large=True
    )


# Transformers resize images to one size, and so give maps of one shape.
SIZE = {"num_layers": 1, "hidden_dim": 8, "num_heads": 2}


@needs_keras_hub
class TestDinov2(BackboneHarness):
    case = Case(
        "dinov2",
        {(32, 32): (2, 2, 8), (40, 33): (2, 2, 8)},
        21_727_488,
        options={"patch_size": 14, **SIZE, "intermediate_dim": 16},
        impossible={"tokens": "all"},
        image_size=(32, 32),
    )


@needs_keras_hub
class TestDinov3(BackboneHarness):
    case = Case(
        "dinov3",
        {(32, 32): (2, 2, 8), (40, 33): (2, 2, 8)},
        21_600_768,
        options={"patch_size": 16, **SIZE, "intermediate_dim": 16},
        impossible={"tokens": "all"},
        image_size=(32, 32),
    )


@needs_keras_hub
class TestVit(BackboneHarness):
    case = Case(
        "vit",
        {(32, 32): (2, 2, 8), (40, 33): (2, 2, 8)},
        85_798_656,
        options={"patch_size": 16, **SIZE, "mlp_dim": 16},
        impossible={"tokens": "all"},
        image_size=(32, 32),
    )


@needs_keras_hub
class TestSwin(BackboneHarness):
    case = Case(
        "swin",
        {(32, 32): (4, 4, 16), (40, 33): (4, 4, 16)},
        27_519_354,
        options={"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        image_size=(32, 32),
    )


@pytest.mark.parametrize("kind", TRANSFORMERS)
@needs_keras_hub
def test_the_default_options_of_transformers_are_those_of_kerashub(kind):
    import keras_hub

    hub_class = getattr(keras_hub.models, TRANSFORMERS[kind].hub_class)
    arguments = inspect.signature(hub_class.__init__).parameters
    further = TRANSFORMERS[kind].further
    assert {name: arguments[name].default for name in further} == further
    assert {*further, *TRANSFORMERS[kind].size} <= {*BACKBONES[kind].options}
