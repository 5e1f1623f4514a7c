"""EfficientNet-Lite: PyTorch's values with the published weights, and where these are found."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cbir_tf.errors import UserError
from cbir_tf.models.backbones import build_backbone
from cbir_tf.models.efficientnet_lite import ARCHITECTURES
from cbir_tf.models.pytorch_pickle import read_state_dict

# Features of the published weights in PyTorch, for random pixels; made by
# conformance/efficientnet_lite/reference.py --small tests/models/efficientnet_lite_features.npz
RECORDED = Path(__file__).with_name("efficientnet_lite_features.npz")
NAMES = list(ARCHITECTURES)


def package_file(name: str) -> Path:
    spec = importlib.util.find_spec(ARCHITECTURES[name].package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the extra pretrained")
    return next(Path(spec.submodule_search_locations[0], "models").glob("*.pth"))


def features(model, image: np.ndarray) -> np.ndarray:
    return np.asarray(model((image.astype(np.float32) - 127) / 128))


@pytest.mark.parametrize("name", NAMES)
def test_the_published_weights_give_pytorchs_features(name):
    package_file(name)
    model = build_backbone(name, {}, "imagenet")
    with np.load(RECORDED, allow_pickle=False) as recorded:
        keys = [key for key in recorded.files if key.startswith(f"{name}/")]
        assert keys
        for key in keys:
            size = tuple(map(int, key.split("/")[1].split("x")))
            image = np.random.default_rng(size).integers(0, 256, (1, *size, 3), dtype=np.uint8)
            found = features(model, image)[0, ..., ::8]
            np.testing.assert_allclose(found, recorded[key], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_the_published_one(name):
    with_classifier = {"efficientnet_lite0": 4_652_008, "efficientnet_lite2": 6_092_072}
    trained = sum(
        int(np.prod(each.shape)) for each in build_backbone(name, {}, None).trainable_weights
    )
    assert trained + 1280 * 1000 + 1000 == with_classifier[name]


def timm_names(
    tensors: dict[str, np.ndarray], blocks_of_stages: list[int]
) -> dict[str, np.ndarray]:
    """The package's tensors under the names of timm's tf_efficientnet_lite models."""
    places = [(stage, i) for stage, count in enumerate(blocks_of_stages) for i in range(count)]
    plain = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed = {}
    for name, array in tensors.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, block = places[int(parts[1])]
            layer = (later if stage else first)[parts[2]]
            renamed[f"blocks.{stage}.{block}.{layer}.{parts[3]}"] = array
        elif parts[0] == "_fc":
            renamed[f"classifier.{parts[1]}"] = array
        else:
            renamed[f"{plain[parts[0]]}.{parts[1]}"] = array
    return renamed


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory) -> Path:
    tensors = read_state_dict(package_file("efficientnet_lite0"))
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(timm_names(tensors, [1, 2, 2, 3, 3, 4, 1]), path)
    return path


def test_a_file_of_timm_and_one_of_the_package_are_the_same_network(timm_file):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), dtype=np.uint8)
    given = [timm_file, package_file("efficientnet_lite0")]
    ours, theirs = (features(build_backbone(NAMES[0], {}, str(file)), image) for file in given)
    np.testing.assert_array_equal(ours, theirs)


def test_tensors_in_shared_data_are_those_of_the_package():
    shared = Path(__file__).resolve().parents[3] / "shared/data/weights"
    if not shared.is_dir():
        pytest.skip("needs ../shared/data")
    for name in NAMES:
        expected = load_file(shared / f"{name}.safetensors")
        found = read_state_dict(package_file(name))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_weights_of_the_other_size_are_refused():
    with pytest.raises(UserError, match=r"unknown|lacks"):
        build_backbone("efficientnet_lite0", {}, str(package_file("efficientnet_lite2")))


# --- without the package ------------------------------------------------------------------------


@pytest.fixture
def without_package(monkeypatch) -> None:
    find = importlib.util.find_spec
    hidden = {each.package for each in ARCHITECTURES.values()}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in hidden else find(name, *more),
    )


@pytest.fixture
def hub(timm_file, tmp_path, monkeypatch) -> Iterator[list[str]]:
    """A server of the Hub's files, with timm's model alone; the paths it was asked for."""
    content, asked = timm_file.read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            asked.append(self.path)
            found = self.path == "/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors"
            body = content if found else json.dumps({"error": "not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD

    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("without_package")
def test_timms_weights_are_downloaded_where_the_package_is_missing(hub, timm_file):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), dtype=np.uint8)
    expected = features(build_backbone(NAMES[0], {}, str(timm_file)), image)
    found = features(build_backbone(NAMES[0], {}, "imagenet"), image)
    np.testing.assert_array_equal(found, expected)
    assert any("tf_efficientnet_lite0.in1k" in path for path in hub)


@pytest.mark.usefixtures("without_package", "hub")
def test_where_neither_is_to_be_had_the_package_is_named():
    with pytest.raises(
        UserError, match=r"lite2.*not be downloaded.*cbir-tf\[pretrained\]"
    ) as error:
        build_backbone("efficientnet_lite2", {}, "imagenet")
    assert "\n" not in str(error.value)
