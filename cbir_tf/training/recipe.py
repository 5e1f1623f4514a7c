"""The recipe of a training without a configuration file: `cbir train PHOTOS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbir_tf.config import Config
from cbir_tf.data.sources import all_images


def recipe_for(photos: Path) -> dict[str, Any]:
    """The configuration that a folder of pictures is trained with, as a YAML file would have it.

    EfficientNet-Lite0 from ImageNet, its upper half fine-tuned with semi-hard triplets; the split
    of the source where it has one, else one by class in proportion.

    Args:
        photos: a folder of class folders, or a manifest.

    Raises:
        UserError: no such folder, or no images in it.
    """
    photos = photos.expanduser().resolve()
    data: dict[str, Any] = {
        "source": "folder",
        "path": str(photos),
        "resize": "crop",
        "batch": {"sampler": "shuffled", "size": 64},
        "augmentation": [
            "flip",
            {"name": "random_resized_crop", "scale": [0.5, 1.0]},
            {"name": "color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        ],
    }
    images = all_images(Config.check({"data": data}).data)
    if not (images.split != "").any():
        data["split"] = {"by": "stratified"}
    named = photos.parent if photos.is_file() else photos
    name = "".join(each if each.isalnum() or each in "._-" else "_" for each in named.name)
    return {
        "name": name or "photos",
        "data": data,
        "model": {
            "backbone": "efficientnet_lite0",
            "weights": "imagenet",
            "embedding_size": 128,
            "trainable": "blocks.5.expand_conv",
        },
        "loss": {"name": "triplet_semi_hard", "margin": 0.2},
        "optimizer": {"name": "adam", "learning_rate": 3e-4, "average": 0.97},
        "schedule": {"name": "warmup_cosine", "warm_up": 1},
        "training": {"epochs": 12, "monitor": "val_map_at_r"},
    }
