"""Vision transformers of KerasHub: DINOv2, DINOv3, ViT and Swin, from presets or random weights.

| name | source | parameters | stride | channels |
|:-----|:-------|-----------:|-------:|---------:|
| dinov2 | Oquab et al. 2023, https://arxiv.org/abs/2304.07193 | 21,727,488 | 14 | 384 |
| dinov3 | Simeoni et al. 2025, https://arxiv.org/abs/2508.10104 | 21,600,768 | 16 | 384 |
| vit | Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929 | 85,798,656 | 16 | 768 |
| swin | Liu et al. 2021, https://arxiv.org/abs/2103.14030 | 27,519,354 | 32 | 768 |

The sizes are those without a preset, at 224 x 224 pixels. KerasHub is an extra that takes seconds
to import, so it is imported only where it is used. Keras itself reads saved models: it imports
KerasHub's classes by the names in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from cbir_tf.errors import UserError, first_line, nearest

INSTALL = "keras-hub is not installed; pip install 'cbir-tf[kerashub]'"
PREFIX = "kerashub:"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


Option = int | float | str | bool | Sequence[int]


@dataclass(frozen=True)
class Transformer:
    """A kind of vision transformer in KerasHub.

    Attributes:
        hub_class: name of its class in keras_hub.models.
        size: arguments of the class for the smallest published network.
        further: more arguments of the class that may be given, with its defaults.
        pixels: mean and deviation of RGB in 0..1 in training, where the preset names none.
    """

    hub_class: str
    size: Mapping[str, Option]
    further: Mapping[str, Option]
    pixels: tuple[Sequence[float], Sequence[float]] = IMAGENET


_VIT_S: Mapping[str, Option] = {"num_layers": 12, "hidden_dim": 384, "num_heads": 6}

TRANSFORMERS = {
    "dinov2": Transformer(
        "DINOV2Backbone",
        {"patch_size": 14, **_VIT_S, "intermediate_dim": 1536, "use_mask_token": False},
        {
            "layer_scale_init_value": 1.0,
            "num_register_tokens": 0,
            "dropout_rate": 0.0,
            "drop_path_rate": 0.0,
        },
    ),
    "dinov3": Transformer(
        "DINOV3Backbone",
        {"patch_size": 16, **_VIT_S, "intermediate_dim": 1536, "use_mask_token": False},
        {
            "layer_scale_init_value": 1.0,
            "num_register_tokens": 4,
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
        },
    ),
    "vit": Transformer(
        "ViTBackbone",
        {"patch_size": 16, "num_layers": 12, "hidden_dim": 768, "num_heads": 12, "mlp_dim": 3072},
        {"dropout_rate": 0.0, "attention_dropout": 0.0},
        pixels=HALF,
    ),
    "swin": Transformer(
        "SwinTransformerBackbone",
        {
            "patch_size": 4,
            "embed_dim": 96,
            "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24),
            "window_size": 7,
        },
        {"mlp_ratio": 4.0, "dropout_rate": 0.0, "attention_dropout": 0.0, "drop_path": 0.1},
    ),
}


def options_of(kind: str) -> dict[str, Option]:
    """The options of a kind of transformer, with their defaults."""
    transformer = TRANSFORMERS[kind]
    tokens: dict[str, Option] = {} if kind == "swin" else {"tokens": "patches"}
    return {**tokens, **transformer.size, **transformer.further}


def build_transformer(
    kind: str,
    name: str,
    *,
    weights: str | None,
    image_size: tuple[int, int],
    tokens: str = "patches",
    **options: Option,
) -> keras.Model:
    """A vision transformer for images of one size, to which it resizes its input.

    That size is `image_size`, rounded to whole patches, whatever the preset's: position embeddings
    of DINOv2 and ViT are interpolated, bicubically, and DINOv3 has none. Those of DINOv2 are not
    trained, as KerasHub's layer does not save all that it learns. Swin with a preset keeps the
    preset's size.

    Args:
        kind: a key of TRANSFORMERS.
        name: name of the model.
        weights: `kerashub:` and the name of a preset, a handle (hf://, kaggle://), a folder in the
            layout of KerasHub's presets or of transformers, or None for random ones.
        image_size: height and width in pixels.
        tokens: patches: the map of all patches; class: the class token alone.
        options: of `options_of(kind)`; without weights the default is the smallest published
            network.

    Returns:
        A functional model: float RGB images (B, H, W, 3) in 0..255 -> feature map (B, h, w, C), or
        (B, 1, 1, C) of the class token.

    Raises:
        UserError: KerasHub is not installed, or the preset is unknown, unreachable, damaged or of
            another kind.
        ValueError: an impossible option.
    """
    if tokens not in ("patches", "class"):
        raise ValueError(f"tokens must be patches or class, got {tokens!r}")
    transformer = TRANSFORMERS[kind]
    hub_class = _hub_class(transformer)
    if weights is None:
        arguments: dict[str, Any] = {**transformer.size, **options}
        height, width = _whole_patches(image_size, arguments)
        arguments["image_shape"] = (height, width, 3)
        if kind == "dinov2":
            arguments["position_embedding_shape"] = (height, width, 3)
        hub = hub_class(**arguments)
        pixels = transformer.pixels
    else:
        preset = _preset(kind, hub_class, weights)
        hub = _from_preset(hub_class, preset, options)
        pixels = _preset_pixels(preset) or transformer.pixels
        if kind != "swin":
            hub = _resized(hub, _whole_patches(image_size, hub.get_config()))
    if kind == "dinov2":
        hub.embeddings.interpolated_position_embeddings.trainable = False
    return _model(hub, name, tokens, pixels)


def _hub_class(transformer: Transformer) -> type[keras.Model]:
    try:
        import keras_hub
    except ImportError:
        raise UserError(f"model.backbone: {INSTALL}") from None
    hub_class: type[keras.Model] = getattr(keras_hub.models, transformer.hub_class)
    return hub_class


def _whole_patches(image_size: tuple[int, int], arguments: Mapping[str, Any]) -> tuple[int, int]:
    patch = _patch(arguments)
    height, width = (max(1, round(side / patch)) * patch for side in image_size)
    return height, width


def _preset(kind: str, hub_class: type[keras.Model], weights: str) -> str:
    """The handle or folder to give to KerasHub."""
    preset = weights.removeprefix(PREFIX)
    if preset in hub_class.presets or "://" in preset or Path(preset).is_dir():
        return preset
    forms = f"{PREFIX}PRESET, hf://OWNER/NAME, a preset's folder, or null"
    if preset == weights:
        raise UserError(f"model.weights: {kind} has no {weights!r}; give {forms}")
    raise UserError(
        f"model.weights: KerasHub has no preset {preset!r} of {kind}; "
        f"{nearest(preset, hub_class.presets)}"
    )


def _from_preset(
    hub_class: type[keras.Model], preset: str, options: Mapping[str, Option]
) -> keras.Model:
    try:
        return hub_class.from_preset(preset, **options)
    except Exception as error:  # KerasHub, its downloaders and h5py raise almost anything
        remedy = "give the folder of a preset" if "://" in preset else "check the folder"
        if preset in hub_class.presets:
            remedy = "give the folder of a preset fetched elsewhere (save_to_preset writes one)"
        raise UserError(
            f"model.weights: {preset}: could not be loaded: {first_line(error)}; {remedy}"
        ) from error


def _preset_pixels(preset: str) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of RGB in 0..1 that a preset names; None where it names none."""
    import keras_hub

    settings = _transformers_file(preset, "preprocessor_config.json")
    if settings.get("do_normalize", True) and "image_mean" in settings:
        return settings["image_mean"], settings["image_std"]
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # a preset of a backbone alone has none
        return None
    if converter is None or converter.scale is None:
        return None
    # pixels * scale + offset = (pixels / 255 - mean) / deviation
    scale = [float(each) for each in _three(converter.scale)]
    offset = [float(each) for each in _three(converter.offset or 0.0)]
    deviation = [1 / (255 * each) for each in scale]
    return [-each * by for each, by in zip(offset, deviation, strict=True)], deviation


def _transformers_file(preset: str, name: str) -> dict[str, Any]:
    """A settings file in transformers' layout; empty where there is none."""
    path = Path(preset) / name
    if preset.startswith("hf://"):
        import huggingface_hub

        try:
            path = Path(huggingface_hub.hf_hub_download(preset.removeprefix("hf://"), name))
        except Exception:
            return {}
    settings: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    return settings


def _three(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value] * 3


def _resized(hub: keras.Model, size: tuple[int, int]) -> keras.Model:
    """The same network for images of that height and width."""
    shape = (*size, 3)
    trained = getattr(hub, "position_embedding_shape", hub.image_shape)
    changes: dict[str, Any] = {"image_shape": shape}
    if hasattr(hub, "position_embedding_shape"):
        changes["position_embedding_shape"] = shape
    other = type(hub).from_config(hub.get_config() | changes)
    positions = None
    for old, new in zip(hub.weights, other.weights, strict=True):
        if "position_embedding" in new.path:  # DINOv2 has a second one, made from the first
            positions = old if positions is None else positions
            old_grid, new_grid = _grid(hub, trained), _grid(hub, shape)
            antialias = getattr(hub, "antialias_in_interpolation", False)
            new.assign(_interpolated(positions, old_grid, new_grid, antialias))
        else:
            new.assign(old)
    return other


def _grid(hub: keras.Model, image_shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the last map of patches."""
    patch = _patch(hub.get_config())
    return image_shape[0] // patch, image_shape[1] // patch


def _patch(arguments: Mapping[str, Any]) -> int:
    """Pixels along a side of a patch, in Swin of one of the last stage."""
    patch = arguments["patch_size"]
    patch = patch[0] if isinstance(patch, (list, tuple)) else patch
    return int(patch) << (len(arguments.get("depths", (1,))) - 1)


def _interpolated(
    embeddings: keras.Variable, old: tuple[int, int], new: tuple[int, int], antialias: bool
) -> keras.KerasTensor:
    """Position embeddings (..., L, C), of class and further tokens first, for another grid."""
    values = ops.convert_to_tensor(embeddings)
    first = values.shape[-2] - old[0] * old[1]
    if old == new:
        return values
    tokens, patches = values[..., :first, :], values[..., first:, :]
    channels = values.shape[-1]
    resized = ops.image.resize(
        ops.reshape(patches, (1, *old, channels)), new, "bicubic", antialias=antialias
    )
    shape = (*values.shape[:-2], new[0] * new[1], channels)
    return ops.concatenate([tokens, ops.reshape(resized, shape)], axis=-2)


def _model(
    hub: keras.Model,
    name: str,
    tokens: str,
    pixels: tuple[Sequence[float], Sequence[float]],
) -> keras.Model:
    height, width, _ = hub.image_shape
    mean, deviation = pixels
    images = keras.Input((None, None, 3), name="images")
    x = layers.Resizing(height, width, dtype="float32", name="resized")(images)
    x = layers.Rescaling(
        [1 / (255 * each) for each in deviation],
        [-each / by for each, by in zip(mean, deviation, strict=True)],
        dtype="float32",
        name="normalized",
    )(x)
    # One layer for the whole network, as KerasHub's layers of ViT and Swin cannot be saved singly.
    x = hub(dict.fromkeys(hub.input, x) if isinstance(hub.input, dict) else x)
    rows, columns = _grid(hub, hub.image_shape)
    length, channels = x.shape[1:]
    first = length - rows * columns
    if tokens == "class":
        if first < 1:
            raise ValueError("this network has no class token")
        x = layers.Cropping1D((0, length - 1), name="class_token")(x)
        rows = columns = 1
    elif first:
        x = layers.Cropping1D((first, 0), name="patches")(x)
    x = layers.Reshape((rows, columns, channels), name="map")(x)
    return keras.Model(images, x, name=name)
