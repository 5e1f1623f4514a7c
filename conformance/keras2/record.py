"""Write weight files with Keras 2 in the layout of published triplet-loss models of that time.

    PYTHONPATH=. python conformance/keras2/record.py FOLDER

Runs in the environment of conformance/losses, which has TensorFlow 2.15 and with it Keras 2. For
VGG16, MobileNetV2 and ResNet50 with global average pooling, Dense 2048, Dense 128 and L2
normalisation: FOLDER/<backbone>-<layout>.h5 and, beside it, a .json with the golden embeddings of
our built-in test image: `own`, with the preprocessing of keras.applications, and `unit`, with
x / 255, with which those models were trained. Layouts: the backbone as a model within the model,
its lower half frozen, and the weights alone saved; or its layers singly, and the whole model saved,
with a Lambda layer in it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tensorflow as tf
from tensorflow.keras import applications, layers

from cbir_tf.releases.golden_image import golden_image

SIDE = 96
BACKBONES = {
    "vgg16": (applications.VGG16, applications.vgg16),
    "mobilenet_v2": (applications.MobileNetV2, applications.mobilenet_v2),
    "resnet50": (applications.ResNet50, applications.resnet50),
}


def build(constructor: type, nested: bool) -> tf.keras.Model:
    """The network: backbone, Dense 2048, Dense 128, L2 normalisation."""
    base = constructor(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    if nested:
        for layer in base.layers[: len(base.layers) // 2]:
            layer.trainable = False
        image = tf.keras.Input((SIDE, SIDE, 3))
        x = base(image, training=False)
    else:
        image, x = base.input, base.output
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(2048, activation="relu")(x)
    x = layers.Dense(128)(x)
    x = layers.Lambda(lambda vectors: tf.math.l2_normalize(vectors, axis=1))(x)
    return tf.keras.Model(image, x)


def disturb(model: tf.keras.Model, seed: int) -> None:
    """Random weights and statistics with which the embedding still depends on the pixels."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape = variable.shape.as_list()
        if len(shape) == 1:
            noise = rng.uniform(-0.3, 0.3, shape)
            around_one = "gamma" in variable.name or "variance" in variable.name
            variable.assign(noise + 1 if around_one else noise)
        elif len(shape) == 4:  # as He et al., depthwise kernels by their own window alone
            inputs = 1 if "depthwise" in variable.name else shape[2]
            deviation = (2 / (shape[0] * shape[1] * inputs)) ** 0.5
            variable.assign(rng.normal(0, deviation, shape))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = golden_image(SIDE, SIDE)[np.newaxis]
    for seed, (name, (constructor, module)) in enumerate(BACKBONES.items()):
        for layout in ("nested", "flat"):
            tf.keras.backend.clear_session()
            tf.keras.utils.set_random_seed(seed)
            model = build(constructor, layout == "nested")
            disturb(model, seed)
            file = folder / f"{name}-{layout}.h5"
            save = model.save_weights if layout == "nested" else model.save
            save(file)
            fed = {
                "own": module.preprocess_input(image.astype(np.float32)),
                "unit": image.astype(np.float32) / 255,
            }
            golden = {
                kind: [float(each) for each in model.predict(pixels, verbose=0)[0]]
                for kind, pixels in fed.items()
            }
            difference = np.abs(np.subtract(golden["own"], golden["unit"])).max()
            assert difference > 0.01, "the embedding does not depend on the pixels"
            file.with_suffix(".json").write_text(json.dumps(golden))
            print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
