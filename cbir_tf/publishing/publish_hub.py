"""To the Hugging Face Hub: one commit, which is there whole or not at all, then the version's tag.

Endpoint and token are huggingface_hub's to know: HF_ENDPOINT, HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cbir_tf.errors import UserError, first_line
from cbir_tf.progress import logger
from cbir_tf.releases.fetch import source_of
from cbir_tf.releases.manifest import MANIFEST, read_manifest
from cbir_tf.releases.registry import Reference

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KEPT = (".gitattributes",)
"""Of the repository, not of the release before."""


def publish_to_hub(folder: Path, reference: Reference, to: str) -> str:
    """Send a release to a model repository, which is made if need be.

    Large files go first, and again only if they are not there; one commit puts all files in the
    place of those of the version before, which its own tag keeps.

    Args:
        folder: of the release.
        reference: its name and version.
        to: hf://owner/name.

    Returns:
        hf://owner/name@vVERSION.

    Raises:
        UserError: no huggingface_hub, no such place, no access, or another release has this tag.
    """
    try:
        from huggingface_hub import (
            CommitOperationAdd,
            CommitOperationCopy,
            CommitOperationDelete,
            HfApi,
        )
    except ImportError:
        raise UserError(f"{to}: needs huggingface_hub; pip install 'cbir-tf[hub]'") from None
    repository, tag = to.removeprefix("hf://").strip("/"), f"v{reference.version}"
    if repository.count("/") != 1 or "@" in repository:
        raise UserError(f"{to}: no repository of the Hub; write hf://owner/name")
    address = f"hf://{repository}@{tag}"
    with _reporting(to):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="cbir-tf")
        api.create_repo(repository, exist_ok=True)
        if _is_there(api, repository, tag, folder, address):
            return address
        names = [*read_manifest(folder / MANIFEST, folder), MANIFEST]
        gone = set(api.list_repo_files(repository)) - {*names, *KEPT}
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(name, folder / name) for name in names),
            *(CommitOperationDelete(name) for name in sorted(gone)),
        ]
        commit = api.create_commit(
            repository, operations, commit_message=f"{reference.name} {reference.version}"
        )
        api.create_tag(repository, tag=tag, revision=commit.oid)
    return address


def _is_there(api: HfApi, repository: str, tag: str, folder: Path, address: str) -> bool:
    """Whether the tag is there, with this release.

    Raises:
        UserError: it is another's.
    """
    if tag not in {each.name for each in api.list_repo_refs(repository).tags}:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        theirs = Path(scratch) / MANIFEST
        source_of(address, folder)(MANIFEST, theirs)
        same = theirs.read_bytes() == (folder / MANIFEST).read_bytes()
    if not same:
        raise UserError(
            f"{address}: another release has this tag; a version is never replaced: pack with a "
            "higher --version"
        )
    logger.info("%s: is there already", address)
    return True


@contextmanager
def _reporting(to: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of its HTTP client too, which changes by release
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = "; check HF_TOKEN, or log in with hf auth login" if status in (401, 403) else ""
        raise UserError(f"{to}: the Hub refuses: {first_line(error)}{remedy}") from error
