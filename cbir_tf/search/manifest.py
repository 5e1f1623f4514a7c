"""index.json: which index was fitted to which vectors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.types import Embeddings

FILE_NAME = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a saved index was fitted to.

    Attributes:
        index: name of the back end.
        metric: name of the distance.
        count: vectors in the gallery.
        dimension: of the vectors.
        digest: of ids and vectors, see `digest`.
        format: version of this file.
    """

    index: str
    metric: str
    count: int
    dimension: int
    digest: str
    format: int = FORMAT

    @classmethod
    def of(cls, index: str, metric: str, embeddings: Embeddings) -> Manifest:
        """The manifest of an index fitted to these."""
        count, dimension = embeddings.vectors.shape
        return cls(index, metric, count, dimension, digest(embeddings))

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """The manifest in this folder.

        Raises:
            UserError: missing, damaged or of another version.
        """
        path = Path(folder) / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no saved index; extract the features anew") from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); extract the features anew"
            ) from None
        names = {each.name for each in fields(cls)}
        if not (
            isinstance(values, dict)
            and values.keys() == names
            and isinstance(values["index"], str)
            and isinstance(values["metric"], str)
        ):
            raise UserError(f"{path}: not an index file; extract the features anew")
        manifest = cls(**values)
        if manifest.format != FORMAT:
            raise UserError(
                f"{path}: format {manifest.format}, this version reads {FORMAT}; "
                "extract the features anew"
            )
        return manifest

    def write(self, folder: str | Path) -> None:
        """Write into this folder, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        path = Path(folder) / FILE_NAME
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None

    def check(self, embeddings: Embeddings, folder: str | Path) -> None:
        """Refuse vectors other than those the index was fitted to.

        Raises:
            UserError: another number, dimension, id or value.
        """
        now = Manifest.of(self.index, self.metric, embeddings)
        if now != self:
            raise UserError(
                f"{Path(folder) / FILE_NAME}: fitted to {self.count} vectors of dimension "
                f"{self.dimension}, not to these {now.count} of dimension {now.dimension} "
                f"(digest {now.digest[:8]}, expected {self.digest[:8]}); extract the features anew"
            )


def digest(embeddings: Embeddings) -> str:
    """SHA-256 of ids and float32 vectors, whatever their order; labels don't count."""
    order = np.argsort(embeddings.ids)
    count, dimension = embeddings.vectors.shape
    state = hashlib.sha256(f"{count} {dimension} ".encode())
    state.update(json.dumps(embeddings.ids[order].tolist()).encode())
    state.update(np.ascontiguousarray(embeddings.vectors[order], dtype="<f4").data)
    return state.hexdigest()
