"""index.json: which index was fitted to which vectors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.back_end import BackEnd
from cbir_tf.storage.files import sha256, write_text
from cbir_tf.types import Embeddings

FILE_NAME = "index.json"
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """What a saved index was fitted to.

    Attributes:
        index: name of the back end.
        metric: name of the distance.
        count: vectors in the gallery.
        dimension: of the vectors.
        digest: of ids and vectors, see `digest`.
        settings: options of the back end and what it chose.
        files: SHA-256 of the files beside this one, by name.
        format: version of this file.
    """

    index: str
    metric: str
    count: int
    dimension: int
    digest: str
    settings: dict[str, Any]
    files: dict[str, str]
    format: int = FORMAT

    @classmethod
    def of(cls, back_end: BackEnd, metric: str, embeddings: Embeddings, folder: Path) -> Manifest:
        """The manifest of a back end fitted to these, whose files lie in the folder."""
        count, dimension = embeddings.vectors.shape
        return cls(
            back_end.name,
            metric,
            count,
            dimension,
            digest(embeddings),
            back_end.settings(),
            {name: sha256(folder / name) for name in back_end.files},
        )

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
            raise UserError(f"{path}: no saved index; run cbir extract") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run cbir extract") from None
        types = get_type_hints(cls)
        if not isinstance(values, dict) or "format" not in values:
            raise UserError(f"{path}: not an index file; run cbir extract")
        if values["format"] != FORMAT:
            raise UserError(
                f"{path}: format {values['format']}, this version reads {FORMAT}; run cbir extract"
            )
        if values.keys() != types.keys() or not all(
            isinstance(values[name], get_origin(kind) or kind) for name, kind in types.items()
        ):
            raise UserError(f"{path}: not an index file; run cbir extract")
        return cls(**values)

    def write(self, folder: str | Path) -> None:
        """Write into this folder, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        write_text(Path(folder) / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n")

    def check(self, embeddings: Embeddings, folder: str | Path) -> None:
        """Check that these are the vectors the index was fitted to, and its files unchanged.

        Raises:
            UserError: another number, dimension, id or value, or a missing or damaged file.
        """
        count, dimension = embeddings.vectors.shape
        now = digest(embeddings)
        if (count, dimension, now) != (self.count, self.dimension, self.digest):
            raise UserError(
                f"{Path(folder) / FILE_NAME}: fitted to {self.count} vectors of dimension "
                f"{self.dimension}, not to these {count} of dimension {dimension} "
                f"(digest {now[:8]}, expected {self.digest[:8]}); run cbir extract"
            )
        for name, expected in self.files.items():
            path = Path(folder) / Path(name).name
            if not path.is_file() or sha256(path) != expected:
                raise UserError(f"{path}: missing or damaged; run cbir extract")


def digest(embeddings: Embeddings) -> str:
    """SHA-256 of ids and float32 vectors in order of id; labels do not count."""
    order = np.argsort(embeddings.ids)
    count, dimension = embeddings.vectors.shape
    state = hashlib.sha256(f"{count} {dimension} ".encode())
    state.update(json.dumps(embeddings.ids[order].tolist()).encode())
    state.update(np.ascontiguousarray(embeddings.vectors[order], dtype="<f4").data)
    return state.hexdigest()
