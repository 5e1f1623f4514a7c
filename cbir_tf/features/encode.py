"""Extraction: encode images and store their embeddings; resumable at any moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.data.batches import inference_batches
from cbir_tf.features.runtime import Encoder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import logger, progress
from cbir_tf.storage.files import sha256
from cbir_tf.types import Embeddings, ImageSet


def embed(encoder: Encoder, images: ImageSet, data: Data) -> Embeddings:
    """Embed images in memory.

    Args:
        encoder: from uint8 (B, H, W, 3) pixels to float32 (B, D) vectors.
        images: N images.
        data: image size and batch size.

    Returns:
        (M, D) embeddings in the order of the images; those that cannot be decoded are left out.
    """
    positions, vectors = [], []
    for pixels, where in inference_batches(images, data):
        vectors.append(encoder(pixels.numpy()))
        positions.append(where.numpy())
    if not positions:
        return Embeddings(np.empty(0, np.str_), np.empty((0, 0)), np.empty(0))
    kept = np.concatenate(positions)
    return Embeddings(images.ids[kept], np.concatenate(vectors), images.labels[kept])


def encode(encoder: Encoder, images: ImageSet, data: Data, store: FeatureStore) -> dict[str, str]:
    """Write the embeddings of images into the store; unchanged images are not embedded again.

    Each batch is one transaction: after an interruption a second call continues where the first
    stopped. If only the path, label, split or metadata of an image changed, only these are written;
    an image that can no longer be read is removed.

    Args:
        encoder: from uint8 (B, H, W, 3) pixels to float32 (B, D) vectors.
        images: N images.
        data: image size and batch size.
        store: feature store of the same encoder.

    Returns:
        Id and reason of each image that could not be read.
    """
    digests = _digests(images)
    stored = {record.id: record for record in store.records()}
    unchanged = np.array(
        [
            digest is not None and id_ in stored and stored[id_].digest == digest
            for id_, digest in zip(images.ids.tolist(), digests, strict=True)
        ],
        dtype=bool,
    )
    known = [_record(images, each, digests[each]) for each in np.flatnonzero(unchanged).tolist()]
    store.describe([record for record in known if record != stored[record.id]])
    fresh = ~unchanged & np.array([digest is not None for digest in digests], dtype=bool)
    todo = images.take(fresh)
    todo_digests = [digest for digest, wanted in zip(digests, fresh, strict=True) if wanted]
    unreadable = {
        id_: "cannot be read"
        for id_, digest in zip(images.ids.tolist(), digests, strict=True)
        if digest is None
    }
    with progress(total=len(images), initial=len(images) - len(todo), description="extract") as bar:
        for pixels, positions in inference_batches(todo, data, failures=unreadable):
            records = [_record(todo, each, todo_digests[each]) for each in positions.numpy()]
            store.write(records, encoder(pixels.numpy()))
            bar.update(len(records))
    store.remove(unreadable.keys() & stored.keys())
    if unreadable:
        logger.warning("%d unreadable images skipped", len(unreadable))
    return dict(sorted(unreadable.items()))


def _record(images: ImageSet, position: int, digest: str | None) -> Record:
    source = images.sources[position]
    return Record(
        id=str(images.ids[position]),
        path=None if isinstance(source, bytes) else source.resolve(),
        label=int(images.labels[position]),
        split=str(images.split[position]),
        digest=digest or "",
        metadata=images.metadata[position],
    )


def _digests(images: ImageSet) -> list[str | None]:
    def digest(source: Path | bytes) -> str | None:
        try:
            return sha256(source)
        except OSError:
            return None

    return list(in_parallel(digest, images.sources))
