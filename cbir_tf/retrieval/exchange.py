"""Stored vectors out of a run and into another, in formats that other tools read.

.npz has the arrays ids, vectors, labels, splits, galleries, paths, digests and metadata (JSON), all
of N rows, and the text encoder, the fingerprint of the encoder; .parquet the same as columns, the
fingerprint in its metadata; a folder is that of TensorBoard's projector, which is not read again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.errors import UserError, first_line
from cbir_tf.features.record import OWN
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.features.views import encoder_fingerprint
from cbir_tf.retrieval.opening import open_store
from cbir_tf.run import Run
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.files import new_folder, read_json, replacing
from cbir_tf.types import UNLABELLED

TEXTS = ("ids", "labels", "splits", "galleries", "paths", "digests", "metadata")
_ENCODER = b"cbir_tf.encoder"


@dataclass(frozen=True)
class VectorTable:
    """Vectors and what belongs to them, N rows.

    Attributes:
        vectors: (N, D) float32, as the embedder makes them.
        texts: columns of N texts by the names of TEXTS; empty where there is none.
        encoder: fingerprint of the encoder.
    """

    vectors: np.ndarray
    texts: dict[str, list[str]]
    encoder: str


def export_vectors(run: Run, to: Path) -> int:
    """Write the stored vectors of a run with ids, labels, splits, galleries, paths and metadata.

    Args:
        run: with extracted images.
        to: a file whose suffix is .npz or .parquet, or a new folder.

    Returns:
        How many were written.

    Raises:
        UserError: nothing extracted, another suffix, a folder that exists, or no pyarrow.
    """
    write = WRITERS.get(to.suffix)
    if write is None:
        raise UserError(f"{to}: unknown format; give a name that ends in .npz or .parquet, or none")
    with open_store(run, run.config.search) as store:
        embeddings, names = store.embeddings(), (*store.class_names, "")
        records = {each.id: each for each in store.records()}
        rows = [records[id_] for id_ in embeddings.ids.tolist()]
        columns = {
            "ids": [each.id for each in rows],
            "labels": [names[each.label] for each in rows],
            "splits": [each.split for each in rows],
            "galleries": [each.gallery for each in rows],
            "paths": ["" if each.path is None else address_of(each.path) for each in rows],
            "digests": [each.digest for each in rows],
            "metadata": [json.dumps(dict(each.metadata), ensure_ascii=False) for each in rows],
        }
        write(to, VectorTable(embeddings.vectors, columns, store.encoder_fingerprint))
    return len(rows)


def import_vectors(run: Run, file: Path, gallery: str | None = None) -> int:
    """Store vectors that `export_vectors` wrote, or another tool in the same form.

    Args:
        run: a trained run of the same encoder.
        file: .npz or .parquet.
        gallery: of the images; None: the galleries named in the file, those of the exporting run
            becoming the gallery of the file's name.

    Returns:
        How many were stored; images of the same ids are replaced.

    Raises:
        UserError: not such a file, other dimensions or another encoder, ids that are not unique,
            vectors that are not finite, or ids of the run's own images; nothing is stored then.
    """
    read = READERS.get(file.suffix)
    if read is None or not file.is_file():
        raise UserError(f"{file}: not a .npz or .parquet file of vectors; check the path")
    table = _checked(file, read(file))
    fingerprint = encoder_fingerprint(run, run.config.search)
    if table.encoder != fingerprint:
        raise UserError(
            f"{file}: its vectors are of another encoder than that of {run.folder}; export them "
            "from a run of this model"
        )
    names = read_json(run.training)["class_names"]
    with FeatureStore.create(run.features, fingerprint, names, run.config.search.dtype) as store:
        if store.dimensions not in (None, table.vectors.shape[1]):
            raise UserError(
                f"{file}: its vectors have {table.vectors.shape[1]} dimensions, those of "
                f"{run.features} {store.dimensions}; export them from a run of this model"
            )
        own = {each.id for each in store.records() if each.gallery == OWN}
        clash = sorted(own & set(table.texts["ids"]))
        if clash:
            raise UserError(
                f"{file}: {len(clash)} ids are those of the run's own images, the first "
                f"{clash[0]}; leave them out"
            )
        labels = table.texts["labels"]
        extended = store.extend_classes(sorted({each for each in labels if each}))
        numbers = {name: number for number, name in enumerate(extended)} | {"": UNLABELLED}
        store.write(_records(table, numbers, gallery, file.stem), table.vectors)
    return len(labels)


def _records(
    table: VectorTable, numbers: dict[str, int], gallery: str | None, stem: str
) -> list[Record]:
    texts = table.texts
    return [
        Record(
            id_,
            path_of(path) if path else None,
            numbers[label],
            split,
            digest,
            json.loads(metadata or "{}"),
            gallery or (stem if was in ("", OWN) else was),
        )
        for id_, label, split, was, path, digest, metadata in zip(
            *(texts[name] for name in TEXTS), strict=True
        )
    ]


def _checked(file: Path, table: VectorTable) -> VectorTable:
    """The table, if its columns are as long as they should be and its values possible."""
    ids, vectors = table.texts["ids"], table.vectors
    if vectors.ndim != 2 or any(len(each) != len(vectors) for each in table.texts.values()):
        raise UserError(f"{file}: its columns differ in length; write it again")
    if not np.isfinite(vectors).all():
        bad = ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise UserError(f"{file}: the vector of {bad} is not finite; leave it out")
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen or not id_:
            raise UserError(f"{file}: the id {id_!r} is there twice or empty; ids must be unique")
        seen.add(id_)
    return table


# --- formats --------------------------------------------------------------------------------------


def _write_npz(to: Path, table: VectorTable) -> None:
    texts: dict[str, Any] = {
        name: np.array(values, np.str_) for name, values in table.texts.items()
    }
    with replacing(to) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, vectors=table.vectors, encoder=table.encoder, **texts)


def _read_npz(file: Path) -> VectorTable:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            vectors = np.asarray(arrays["vectors"], np.float32)
            texts = {
                name: [str(each) for each in arrays[name].tolist()]
                if name in arrays or name == "ids"
                else [""] * len(vectors)
                for name in TEXTS
            }
            return VectorTable(
                vectors, texts, str(arrays["encoder"]) if "encoder" in arrays else ""
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file}: no file of vectors, or damaged ({first_line(error)}); write it again"
        ) from None


def _arrow(file: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{file}: needs pyarrow; pip install 'cbir-tf[parquet]'") from None
    return pyarrow


def _write_parquet(to: Path, table: VectorTable) -> None:
    arrow = _arrow(to)
    size = table.vectors.shape[1]
    flat = arrow.array(table.vectors.reshape(-1), arrow.float32())
    try:
        columns = {
            name: arrow.array(values, arrow.string()) for name, values in table.texts.items()
        }
    except UnicodeEncodeError as error:
        raise UserError(
            f"{to}: the name {error.object!r} is not UTF-8, which Parquet needs; export to .npz"
        ) from None
    columns["vectors"] = arrow.FixedSizeListArray.from_arrays(flat, size)
    written = arrow.table(columns).replace_schema_metadata({_ENCODER: table.encoder.encode()})
    with replacing(to) as temporary:
        arrow.parquet.write_table(written, temporary)


def _read_parquet(file: Path) -> VectorTable:
    arrow = _arrow(file)
    try:
        read = arrow.parquet.read_table(file)
        vectors = np.array(read["vectors"].to_pylist(), np.float32)
        texts = {
            name: [each or "" for each in read[name].to_pylist()]
            if name in read.column_names or name == "ids"
            else [""] * len(vectors)
            for name in TEXTS
        }
        encoder = (read.schema.metadata or {}).get(_ENCODER, b"").decode()
    except (arrow.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{file}: no file of vectors, or damaged ({first_line(error)}); write it again"
        ) from None
    return VectorTable(vectors, texts, encoder)


def _write_projector(to: Path, table: VectorTable) -> None:
    """TensorBoard's embedding projector: `tensorboard --logdir FOLDER`."""
    if to.exists():
        raise UserError(f"{to}: is there already; choose another folder")
    with new_folder(to) as folder:
        np.savetxt(folder / "tensors.tsv", table.vectors, "%.8g", "\t")
        names = ("ids", "labels", "splits", "galleries")
        rows = [names, *zip(*(table.texts[name] for name in names), strict=True)]
        # The projector knows no quotes: no tabs or line breaks within a cell.
        lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
        text = "".join(f"{line}\n" for line in lines)
        (folder / "metadata.tsv").write_text(text, encoding="utf-8", errors="backslashreplace")
        (folder / "projector_config.pbtxt").write_text(
            'embeddings {\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n}\n'
        )


WRITERS: dict[str, Callable[[Path, VectorTable], None]] = {
    ".npz": _write_npz,
    ".parquet": _write_parquet,
    "": _write_projector,
}
READERS: dict[str, Callable[[Path], VectorTable]] = {
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
