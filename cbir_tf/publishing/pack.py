"""Pack a trained and evaluated run into a folder that others can use and check."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cbir_tf.config import Config
from cbir_tf.data.sources import LICENCES
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import DESCRIPTORS, is_exported, open_encoder
from cbir_tf.models import load_embedder
from cbir_tf.models.golden import GOLDEN, Golden
from cbir_tf.models.released_weights import CONFIG, EMBEDDER
from cbir_tf.progress import logger
from cbir_tf.publishing.card import PICTURES, PICTURES_OF_DATA, Facts, model_card
from cbir_tf.releases.golden_image import golden_image
from cbir_tf.releases.manifest import MANIFEST, write_manifest
from cbir_tf.releases.registry import Reference
from cbir_tf.run import Run
from cbir_tf.storage.files import new_folder, read_json, write_text
from cbir_tf.storage.remote import local

WEIGHTS = "model.weights.h5"
ONNX = "model.onnx"
METRICS = "metrics.json"
LABELS = "labels.json"
DESCRIPTION = "release.json"
CARD = "README.md"


def pack(run: Run, reference: Reference, to: Path, licence: str = "") -> Path:
    """Write the release of a run into a new folder; the same run makes the same bytes.

    Args:
        run: trained and evaluated.
        reference: name and version.
        to: folder that gets one named NAME-VERSION.
        licence: of the weights; empty: not stated.

    Returns:
        The folder.

    Raises:
        UserError: the run has descriptors or was not evaluated, or the folder holds another
            release.
    """
    folder = local(to / reference.folder_name, missing_ok=True)
    _check(run)
    with new_folder(folder) as scratch:
        _fill(scratch, run, reference, licence)
        write_manifest(scratch)
        if folder.exists():
            _check_same(scratch, folder)
    return folder


def _check(run: Run) -> None:
    if run.model.suffix == DESCRIPTORS:
        raise UserError(
            f"{run.folder}: has descriptors, not weights to release; train an embedding"
        )
    if not run.metrics.is_file() or not read_json(run.metrics):
        raise UserError(
            f"{run.folder}: not evaluated, and a release states its metrics; first run "
            f"cbir evaluate --run {run.folder}"
        )


def _check_same(scratch: Path, folder: Path) -> None:
    before = folder / MANIFEST
    if not before.is_file() or before.read_bytes() != (scratch / MANIFEST).read_bytes():
        raise UserError(
            f"{folder}: holds something else; move it away, or choose another --version or --to"
        )


def _fill(folder: Path, run: Run, reference: Reference, licence: str) -> None:
    """Write everything but the manifest."""
    embedder = load_embedder(run.model)
    size = run.config.data.image_size
    golden = Golden.of(embedder, size, run.config.training.precision)
    golden.save(folder / GOLDEN)
    shutil.copyfile(run.model, folder / EMBEDDER)
    embedder.save_weights(folder / WEIGHTS)
    has_onnx = _copy_onnx(run, golden, folder / ONNX)
    shutil.copyfile(run.metrics, folder / METRICS)
    _write_json(folder / LABELS, read_json(run.training)["class_names"])
    values = public_values(run.config)
    write_text(folder / CONFIG, yaml.safe_dump(values, sort_keys=False, width=100))
    description = {"format": 1, "name": reference.name, "version": reference.version}
    _write_json(folder / DESCRIPTION, description | {"licence": licence})
    data_licence = run.config.data.licence or LICENCES.get(run.config.data.source, "")
    pictures = _copy_pictures(run, folder, with_data=bool(data_licence))
    facts = Facts(
        reference=reference,
        config=values,
        licence=licence,
        data_licence=data_licence,
        training=read_json(run.training),
        metrics=read_json(run.metrics),
        splits=_splits(run),
        parameters=int(embedder.count_params()),
        dimensions=len(golden.vector),
        tolerance=golden.tolerance,
        has_onnx=has_onnx,
        pictures=pictures,
    )
    write_text(folder / CARD, model_card(facts))


def public_values(config: Config) -> dict[str, Any]:
    """Every key of a configuration; paths of this machine cut to their last part.

    They may be private, and do not exist on another machine.
    """
    values = config.model_dump(mode="json")

    def public(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: public(each) for key, each in value.items()}
        if isinstance(value, list):
            return [public(each) for each in value]
        if isinstance(value, str) and value.startswith(("/", "~")):
            return Path(value).name
        return value

    return {key: public(value) for key, value in values.items()}


def _copy_onnx(run: Run, golden: Golden, to: Path) -> bool:
    """Copy the embedder for ONNX Runtime, if it can be exported, and check its embedding."""
    encoder = open_encoder(run.model, golden.size)
    if not is_exported(run.model):
        logger.warning(
            "%s left out: ONNX Runtime or tf2onnx is not installed (pip install 'cbir-tf[onnx]'), "
            "or does not support this model",
            ONNX,
        )
        return False
    golden.check(encoder(golden_image(*golden.size)[None])[0], run.model.with_suffix(".onnx"))
    shutil.copyfile(run.model.with_suffix(".onnx"), to)
    return True


def _copy_pictures(run: Run, folder: Path, with_data: bool) -> list[str]:
    """Copy plots; those with images of the data only if the licence of the data is stated."""
    there = [name for name in PICTURES if (run.plots / name).is_file()]
    left_out = [] if with_data else [name for name in there if name in PICTURES_OF_DATA]
    if left_out:
        logger.warning(
            "%s left out, as they show images whose licence is not stated; set data.licence in %s",
            ", ".join(left_out),
            run.config_file,
        )
    copied = [name for name in there if name not in left_out]
    for name in copied:
        shutil.copyfile(run.plots / name, folder / name)
    return copied


def _splits(run: Run) -> dict[str, int]:
    """Number of undamaged images in each split, from the run's images.csv."""
    with run.images.open(newline="", encoding="utf-8") as file:
        return dict(Counter(row["split"] for row in csv.DictReader(file) if not row["damage"]))


def _write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
