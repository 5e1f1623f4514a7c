"""To a release of a GitHub repository: a draft, which nobody sees, until all its files are there.

GITHUB_TOKEN says who asks; GITHUB_API_URL and GITHUB_SERVER_URL, as GitHub's own runners have them,
name another server than github.com.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cbir_tf.errors import UserError, first_line
from cbir_tf.progress import logger, progress
from cbir_tf.releases.manifest import MANIFEST, read_manifest
from cbir_tf.releases.registry import Reference
from cbir_tf.storage.files import sha256

if TYPE_CHECKING:
    from github.GitRelease import GitRelease
    from github.GitReleaseAsset import GitReleaseAsset
    from github.Repository import Repository

CARD = "README.md"
LONGEST_TEXT = 120_000
"""Characters that GitHub takes as a release's text, less some."""


def publish_to_github(folder: Path, reference: Reference, to: str) -> str:
    """Send a release's files as the assets of a GitHub release, tagged NAME-VERSION.

    A draft that an interrupted call has left is gone on with.

    Args:
        folder: of the release.
        reference: its name and version.
        to: github:owner/repository, which has a commit to be tagged.

    Returns:
        https://github.com/owner/repository/releases/download/NAME-VERSION.

    Raises:
        UserError: no PyGithub, no token, no access, or another release has this tag.
    """
    try:
        from github import Auth, Github
    except ImportError:
        raise UserError(f"{to}: needs PyGithub; pip install 'cbir-tf[github]'") from None
    repository = to.removeprefix("github:").strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"{to}: no repository of GitHub; write github:owner/repository")
    token = os.environ.get("GITHUB_TOKEN")
    if not token:
        raise UserError(f"{to}: no token; set GITHUB_TOKEN to one that may write its contents")
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    address = f"{server}/{repository}/releases/download/{reference.folder_name}"
    with _reporting(to), Github(base_url=api, auth=Auth.Token(token), retry=None) as github:
        there = github.get_repo(repository)
        release = _release(there, reference.folder_name)
        if release is not None and not release.draft:
            _check_same(release, folder, address)
            return address
        text = _without_front_matter((folder / CARD).read_text(encoding="utf-8"))
        title, early = f"{reference.name} {reference.version}", "-" in reference.version
        if release is None:
            release = there.create_git_release(
                reference.folder_name, title, text, draft=True, prerelease=early
            )
        _send(release, folder, to)
        release.update_release(title, text, draft=False, prerelease=early)
    return address


def _release(repository: Repository, tag: str) -> GitRelease | None:
    """The release of a tag, or its draft, which the tag does not lead to."""
    return next((each for each in repository.get_releases() if each.tag_name == tag), None)


def _check_same(release: GitRelease, folder: Path, address: str) -> None:
    manifest = [each for each in release.get_assets() if each.name == MANIFEST]
    if not (manifest and _is_same(manifest[0], folder / MANIFEST)):
        raise UserError(
            f"{address}: another release has this tag; a version is never replaced: pack with a "
            "higher --version"
        )
    logger.info("%s: is there already", address)


def _send(release: GitRelease, folder: Path, to: str) -> None:
    """Upload what is missing; an asset whose upload was cut off is deleted first."""
    there = {each.name: each for each in release.get_assets()}
    names = [*read_manifest(folder / MANIFEST, folder), MANIFEST]
    for name in progress(names, len(names), f"sending {to}", "files"):
        if name in there:
            if _is_same(there[name], folder / name):
                continue
            there[name].delete_asset()
        release.upload_asset(str(folder / name), content_type="application/octet-stream", name=name)


def _is_same(asset: GitReleaseAsset, file: Path) -> bool:
    """Whether an asset is whole and this file, by the digest that GitHub gives."""
    return asset.state == "uploaded" and asset.digest == f"sha256:{sha256(file)}"


def _without_front_matter(card: str) -> str:
    """The card as GitHub shows it, pictures left out, as assets have no place for them."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return text.partition("\n## Pictures\n")[0].strip()[:LONGEST_TEXT]


@contextmanager
def _reporting(to: str) -> Iterator[None]:
    """Turn what PyGithub raises into one line."""
    from github import GithubException
    from requests import RequestException

    try:
        yield
    except GithubException as error:
        said = error.data.get("message") if isinstance(error.data, dict) else error.data
        remedy = "; check GITHUB_TOKEN and its permissions" if error.status in (401, 403) else ""
        if error.status == 404:
            remedy = "; check the repository's name, and that GITHUB_TOKEN may see it"
        raise UserError(f"{to}: GitHub answers {error.status}: {said}{remedy}") from error
    except RequestException as error:
        raise UserError(
            f"{to}: GitHub could not be reached ({first_line(error)}); check the network"
        ) from error
