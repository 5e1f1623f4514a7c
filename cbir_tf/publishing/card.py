"""The model card of a release: what it is, made of what and how, how good, and where it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbir_tf.evaluation.table import format_table, markdown
from cbir_tf.models.released_weights import ARCHITECTURE
from cbir_tf.releases.registry import Reference
from cbir_tf.types import SPLITS

PICTURES_OF_DATA = ("query_grid.png", "mistakes.png")
"""Plots that show images of the data."""
PICTURES = {
    "query_grid.png": "Queries, each with its nearest neighbours",
    "mistakes.png": "The queries whose nearest neighbours are of another class",
    "embedding_map.png": "The embedding map",
    "confusion.png": "Of which class the nearest neighbours are, by the query's class",
    "loss.png": "Loss by epoch",
}
"""Plots that go into a release, and what they show."""

FIGURES = re.compile(r"recall@\d+|precision@\d+|map|map_at_r|mrr")
"""Which of the figures the card shows."""
LISTED_CLASSES = 20


@dataclass(frozen=True)
class Facts:
    """What a model card tells.

    Attributes:
        reference: name and version.
        config: every key of the run's configuration.
        licence: of the weights; empty: not stated.
        data_licence: of the images, and whom to credit; empty: not stated.
        training: contents of training.json.
        metrics: contents of metrics.json.
        splits: number of images by split.
        parameters: number of the embedder's weights.
        dimensions: of the embedding.
        tolerance: of the golden embedding.
        has_onnx: whether there is a model.onnx.
        pictures: names of the plots beside the card.
    """

    reference: Reference
    config: Mapping[str, Any]
    licence: str
    data_licence: str
    training: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, int]
    parameters: int
    dimensions: int
    tolerance: float
    has_onnx: bool
    pictures: Sequence[str]


def model_card(facts: Facts) -> str:
    """The card as Markdown, with the front matter that the Hugging Face Hub reads."""
    sections = {
        "Use": _use(facts),
        "Data": _data(facts),
        "Recipe": _recipe(facts),
        "Figures": _figures(facts),
        "Limits": _bullets(_limits(facts)),
        "Check": _check(facts),
    }
    if facts.pictures:
        sections["Pictures"] = _pictures(facts.pictures)
    parts = [_front_matter(facts), _title(facts)]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    lines = ["library_name: keras", "pipeline_tag: image-feature-extraction"]
    lines += ["tags: [image-retrieval, metric-learning, cbir-tf]"]
    if facts.licence:  # the Hub knows identifiers of SPDX, in small letters
        known = re.fullmatch(r"[A-Za-z0-9.+-]+", facts.licence)
        lines.insert(0, f"license: {facts.licence.lower() if known else 'other'}")
    return "\n".join(["---", *lines, "---"])


def _title(facts: Facts) -> str:
    height, width = facts.config["data"]["image_size"]
    length = " of length 1" if facts.config["model"]["normalize"] else ""
    return (
        f"# {facts.reference.name} {facts.reference.version}\n\n"
        f"An image embedding: pictures of {height} x {width} pixels become vectors of "
        f"{facts.dimensions} numbers{length}, near each other where the pictures are alike. "
        f"{facts.parameters:,} parameters. Made with cbir-tf.\n\n"
        f"Licence of the weights: {facts.licence or 'not stated'}."
    )


def _use(facts: Facts) -> str:
    model = facts.config["model"]
    values = {"weights": f"release:{facts.reference}"}
    values |= {key: model[key] for key in ARCHITECTURE}
    inside = ", ".join(f"{key}: {_yaml(value)}" for key, value in values.items())
    size = facts.config["data"]["image_size"]
    layers = "import cbir_tf.models  # its pooling layer\n" * (model["pooling"] == "gem")
    parts = [
        f"In a configuration of cbir-tf, with `data.image_size: {size}`:",
        f"```yaml\nmodel: {{{inside}}}\n```",
        "Or in Python, the preprocessing inside, uint8 RGB in:",
        f"```python\nimport keras\n{layers}\n"
        'embedder = keras.saving.load_model("model.keras", compile=False)\n'
        "vectors = embedder.predict(images)\n```",
    ]
    if facts.has_onnx:
        parts.append("`model.onnx` does the same in ONNX Runtime, for images of that size.")
    return "\n\n".join(parts)


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _data(facts: Facts) -> str:
    data, names = facts.config["data"], facts.training["class_names"]
    source = data["dataset"] or data["path"] or data["source"]
    images = ", ".join(f"{name} {facts.splits.get(name, 0):,}" for name in SPLITS)
    shown = ", ".join(names[:LISTED_CLASSES]) + ", ..." * (len(names) > LISTED_CLASSES)
    lines = [
        f"{source} (`data.source: {data['source']}`), {sum(facts.splits.values()):,} images "
        f"({images}), split {_split(data['split'])}.",
        f"Licence of the images: {facts.data_licence or 'not stated'}.",
        f"{len(names)} classes: {shown}." if names else "No classes.",
    ]
    return "\n\n".join(lines)


def _split(split: Mapping[str, Any]) -> str:
    return {
        "given": "as the source says",
        "stratified": "by image, classes in proportion",
        "class": "by class: those of the test split were never trained on",
    }[split["by"]]


def _recipe(facts: Facts) -> str:
    config, training = facts.config, facts.training
    model, batch = config["model"], config["data"]["batch"]
    head = [f"{model['pooling']} pooling", *(f"dense {size}, relu" for size in model["hidden"])]
    head += [f"dense {model['embedding_size']}"] * (model["embedding_size"] is not None)
    head += ["length 1"] * model["normalize"]
    balanced = f"{batch['classes']} classes x {batch['images_per_class']} images"
    steps = [_options(each) for each in config["data"]["augmentation"]]
    epochs = f"{training['epochs']}, of which {training['best_epoch']} was the best by "
    rows = [
        ("backbone", _options({"name": model["backbone"]} | model["options"])),
        ("started from", model["weights"] or "random weights"),
        ("head", ", ".join(head)),
        ("loss", _options(config["loss"])),
        ("optimizer", _options(config["optimizer"])),
        ("schedule", _options(config["schedule"])),
        ("batches", balanced if batch["sampler"] == "balanced" else f"{batch['size']} images"),
        ("augmentation", "; ".join(steps) or "none"),
        ("epochs", epochs + config["training"]["monitor"] if training["epochs"] else "none"),
        ("precision, seed", f"{config['training']['precision']}, {config['seed']}"),
    ]
    table = markdown(("", ""), [(name, str(value)) for name, value in rows])
    retrain = "`config.yaml` has every key; `cbir train --config config.yaml` trains it again."
    return f"{table}\n\n{retrain}"


def _options(section: Mapping[str, Any]) -> str:
    """`name (key value, ...)` of a section, less what is not set."""
    left_out = {"name", "momentum"} if section["name"] in ("adam", "adamw") else {"name"}
    others = [f"{key} {value}" for key, value in section.items() if key not in left_out and value]
    return f"{section['name']} ({', '.join(others)})" if others else str(section["name"])


def _figures(facts: Facts) -> str:
    tables = []
    for result in facts.metrics.values():
        shown = {k: v for k, v in result["figures"].items() if FIGURES.fullmatch(k)}
        table = format_table({**result, "figures": shown})
        tables.append(f"{result['split']} against {result['gallery_split']}, {table}")
    return "\n\n".join([*tables, "`metrics.json` has all figures, and those of each class."])


def _limits(facts: Facts) -> Iterator[str]:
    data, model = facts.config["data"], facts.config["model"]
    height, width = data["image_size"]
    yield (
        "The figures are those of images from the same source; of other pictures they say nothing. "
        "Measure on your own with `cbir evaluate`."
    )
    if data["split"]["by"] != "class":
        yield "The classes measured on are those trained on; of other classes nothing is known."
    for result in facts.metrics.values():
        yield from _limits_of(result)
    duplicates = facts.training.get("duplicates", ())
    if duplicates:
        yield f"{len(duplicates)} images are duplicates across the splits and flatter the figures."
    yield (
        f"Pictures are brought to {height} x {width} pixels ({data['resize']}); what is smaller "
        "than a few pixels there is not seen."
    )
    if model["weights"]:
        yield f"It began with {model['weights']}, whose licence and biases come with it."
    if not facts.data_licence:
        yield "The licence of the images is not stated: ask before more than tests of your own."


def _limits_of(result: Mapping[str, Any]) -> Iterator[str]:
    where = f"{result['split']} against {result['gallery_split']}"
    if not result["intervals"]:
        yield f"No intervals ({where}): they were turned off by `evaluation.bootstrap: 0`."
    elif result["figures"].get("recall@1") == 1:
        # Resampling queries that all succeed gives an interval of no width.
        least = max(0.0, 1 - 3 / result["queries"])
        yield (
            f"No query failed at recall@1 ({where}), so resampling shows no spread; with "
            f"{result['queries']} queries the true value may be as low as {least:.3f} (rule of "
            "three, 95 %)."
        )
    if result["left_out"]:
        yield f"{result['left_out']} queries ({where}) had nothing to find and are left out."
    by_class = {name: each["map_at_r"] for name, each in result["per_class"].items()}
    if len(by_class) > 1:
        weakest = min(by_class, key=lambda name: by_class[name])
        yield (
            f"The weakest class ({where}) is {weakest!r}: MAP@R {by_class[weakest]:.3f} over "
            f"{result['per_class'][weakest]['queries']} queries."
        )


def _bullets(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _check(facts: Facts) -> str:
    return (
        "`sha256sum -c SHA256SUMS` checks the files. `golden.json` has the embedding of a test "
        "image that cbir-tf makes from integers; processors round otherwise, so it counts as the "
        f"same up to {facts.tolerance:g} of its length. `cbir release verify` checks both."
    )


def _pictures(names: Sequence[str]) -> str:
    told = "Of the images that were extracted; where those trained on are among them, they flatter."
    return "\n\n".join([told, *(f"![{PICTURES[name]}]({name})" for name in names)])
