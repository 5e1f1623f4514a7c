"""Extraction: encode images and store their embeddings; resumable at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.features.file_states import FileStates
from cbir_tf.features.record import OWN
from cbir_tf.features.runtime import Encoder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.parallel import blocks, in_parallel
from cbir_tf.progress import logger, progress
from cbir_tf.storage.files import sha256
from cbir_tf.types import Embeddings, ImageSet

COPIED_AT_ONCE = 4096
NOT_THERE = ("cannot be read", "no such file")
"""How the reason begins where a file was not read at all, which says nothing about its content."""


@dataclass(frozen=True)
class Encoding:
    """What an encoding did.

    Attributes:
        new: images that were not stored, or had other content.
        known: those of them whose content was or had been stored under another id.
        unreadable: reason by id of each image that could not be read.
        kept: ids of those among the unreadable that keep the vector they had.
    """

    new: int
    known: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()


def embed(encoder: Encoder, images: ImageSet, data: Data) -> Embeddings:
    """Embed images in memory.

    Args:
        encoder: from uint8 (B, H, W, 3) pixels to float32 (B, D) vectors.
        images: N images.
        data: image size and batch size.

    Returns:
        (M, D) embeddings in the order of the images; those that cannot be decoded are left out.
    """
    from cbir_tf.data.batches import inference_batches

    positions, vectors = [], []
    for pixels, where in inference_batches(images, data):
        vectors.append(encoder(pixels.numpy()))
        positions.append(where.numpy())
    if not positions:
        return Embeddings(np.empty(0, np.str_), np.empty((0, 0)), np.empty(0))
    kept = np.concatenate(positions)
    return Embeddings(images.ids[kept], np.concatenate(vectors), images.labels[kept])


def encode(
    encoder: Encoder,
    images: ImageSet,
    data: Data,
    store: FeatureStore,
    galleries: Mapping[str, str] | None = None,
    digests: Sequence[str | None] | None = None,
) -> Encoding:
    """Write the embeddings of images into the store; known content is not embedded again.

    Each batch is one transaction: after an interruption a second call continues where the first
    stopped. If only the path, label, split, metadata or gallery of an image changed, only these
    are written. A file that cannot be read at the moment keeps its vector; one that is no picture
    any more is removed.

    Args:
        encoder: from uint8 (B, H, W, 3) pixels to float32 (B, D) vectors.
        images: N images.
        data: image size and batch size.
        store: feature store of the same encoder.
        galleries: by id, of images of further folders; all others are the run's own.
        digests: of the images (`digests_of`), if they are known.
    """
    galleries = galleries or {}
    if digests is None:
        states = FileStates(store.file_states())
        digests = digests_of(images, states)
        store.note_files(states.fresh)
    stored = {record.id: record for record in store.records()}

    def record(position: int) -> Record:
        source, id_ = images.sources[position], str(images.ids[position])
        return Record(
            id_,
            None if isinstance(source, bytes) else source.resolve(),
            int(images.labels[position]),
            str(images.split[position]),
            digests[position] or "",
            images.metadata[position],
            galleries.get(id_, OWN),
        )

    readable = [each for each, digest in enumerate(digests) if digest is not None]
    unreadable = {
        str(images.ids[each]): "cannot be read"
        for each, digest in enumerate(digests)
        if digest is None
    }
    records = {each: record(each) for each in readable}
    unchanged = {
        each
        for each, now in records.items()
        if now.id in stored and stored[now.id].digest == now.digest
    }
    described = [records[each] for each in sorted(unchanged)]
    store.describe([each for each in described if each != stored[each.id]])
    new = [each for each in readable if each not in unchanged]
    todo = np.array(_not_known(new, records, store), dtype=np.int64)
    if len(todo):
        _embed_into(
            store, encoder, images.take(todo), [records[each] for each in todo], data, unreadable
        )
    kept = {id_ for id_, why in unreadable.items() if id_ in stored and why.startswith(NOT_THERE)}
    store.remove(unreadable.keys() & stored.keys() - kept)
    if unreadable:
        logger.warning(
            "%d images could not be read, the first %s: %s; %d of them keep their stored vectors",
            len(unreadable),
            min(unreadable),
            unreadable[min(unreadable)],
            len(kept),
        )
    fresh = len(new) - sum(str(images.ids[each]) in unreadable for each in new)
    return Encoding(fresh, len(new) - len(todo), dict(sorted(unreadable.items())), frozenset(kept))


def _embed_into(
    store: FeatureStore,
    encoder: Encoder,
    images: ImageSet,
    records: Sequence[Record],
    data: Data,
    unreadable: dict[str, str],
) -> None:
    """Embed images that have a record each; those that cannot be decoded become unreadable."""
    from cbir_tf.data.batches import inference_batches  # TensorFlow takes seconds to import

    with progress(total=len(images), description="extract") as bar:
        for pixels, positions in inference_batches(images, data, failures=unreadable):
            rows = [records[each] for each in positions.numpy().tolist()]
            store.write(rows, encoder(pixels.numpy()))
            bar.update(len(rows))


def _not_known(new: Sequence[int], records: Mapping[int, Record], store: FeatureStore) -> list[int]:
    """Write the records whose content has a vector already; returns the positions of the others."""
    left = []
    for some in blocks(len(new), 1, COPIED_AT_ONCE):
        vectors = store.vectors_of([records[each].digest for each in new[some]])
        known = [each for each in new[some] if records[each].digest in vectors]
        left += [each for each in new[some] if records[each].digest not in vectors]
        if known:
            store.write(
                [records[each] for each in known],
                np.stack([vectors[records[each].digest] for each in known]),
            )
    return left


def digests_of(images: ImageSet, states: FileStates | None = None) -> list[str | None]:
    """SHA-256 of each image's encoded bytes; None where the file cannot be read."""
    states = states or FileStates()

    def digest(source: Path | bytes) -> str | None:
        try:
            return sha256(source) if isinstance(source, bytes) else states.digest(source)
        except OSError:
            return None

    return list(in_parallel(digest, images.sources))
