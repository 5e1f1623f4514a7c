"""Galleries of a run: its own images, and each further folder under a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.data.added import removing
from cbir_tf.data.folder_source import TABLE_SUFFIXES
from cbir_tf.errors import UserError, nearest
from cbir_tf.features.record import EARLIER, OWN, UNFINISHED, GalleryFolder
from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import logger
from cbir_tf.retrieval.absence import absence_of, is_missing, place_of
from cbir_tf.retrieval.run_images import root_of
from cbir_tf.run import Run


@dataclass(frozen=True)
class FolderGallery:
    """The gallery that the images of a folder go into.

    Attributes:
        run: of the feature store.
        folder: whole path of the folder or manifest.
        name: of the gallery.
        known: what the store has noted of this folder; None: nothing.
        chosen: whether the user has given the name; then the folder's images change to it.
        is_part: whether the folder lies in another one, whose gallery it is.
        shared: whether the gallery has images of other folders.
    """

    run: Run
    folder: Path
    name: str
    known: GalleryFolder | None
    chosen: bool
    is_part: bool
    shared: bool

    @classmethod
    def of(cls, run: Run, folder: Path, name: str | None = None) -> FolderGallery:
        """The gallery of a folder: of the name given, or of the folder's own.

        Raises:
            UserError: a name that a gallery cannot have.
        """
        folder = folder.expanduser().resolve()
        if name is not None:
            _check_name(name)
        folders: list[GalleryFolder] = []
        if run.features.is_file():
            with FeatureStore.open(run.features) as store:
                folders = store.galleries()
        known = next((each for each in folders if each.folder == folder), None)
        around = [each for each in folders if folder.is_relative_to(root_of(each.folder))]
        around.sort(key=lambda each: len(each.folder.parts))
        part_of = around[-1].name if around and known is None and name is None else None
        chosen = name
        if name is None:
            name = known.name if known else part_of or _free_name(folder, folders)
        shared = any(each.name == name and each.folder != folder for each in folders)
        return cls(run, folder, name, known, chosen is not None, part_of is not None, shared)

    def galleries(
        self, ids: Sequence[str], own: Collection[str], stored: Sequence[Record]
    ) -> Mapping[str, str]:
        """The gallery of each image that is not the run's own, by id.

        Args:
            ids: of the folder's images.
            own: those of them that are the run's own.
            stored: what is stored; an image stays in its gallery unless a name was given.
        """
        before = {each.id: each.gallery for each in stored if each.gallery not in (OWN, EARLIER)}
        target = self.name if self._is_complete else self.name + UNFINISHED
        if self.chosen:
            before = {id_: name for id_, name in before.items() if name == self.name}
        return {id_: before.get(id_, target) for id_ in ids if id_ not in own}

    def is_only(self, record: Record) -> bool:
        """Whether an image is in the gallery because of this folder alone."""
        return record.gallery == self.name and not self.shared and not self.is_part

    def begin(self) -> None:
        """Note the folder's name before its first image is stored."""
        self._note(self._is_complete)

    def finish(self) -> None:
        """Let the images of a first extraction be searched."""
        if not self._is_complete:
            with FeatureStore.open(self.run.features) as store:
                store.rename_gallery(self.name + UNFINISHED, self.name)
            self._note(True)

    @property
    def _is_complete(self) -> bool:
        return self.is_part or (self.known is not None and self.known.complete)

    def _note(self, complete: bool) -> None:
        noted = GalleryFolder(self.name, self.folder, complete)
        if self.is_part or noted == self.known or not self.run.features.is_file():
            return
        with FeatureStore.open(self.run.features) as store:
            store.set_gallery(noted)


@dataclass(frozen=True)
class GallerySummary:
    """A gallery of a run.

    Attributes:
        name: for `--where gallery=NAME`; OWN for the run's own images.
        images: how many are stored.
        missing: how many of them have no file any more; on S3 none is looked for.
        folders: from which it was extracted; none for the run's own.
        searched: False: its extraction has not ended.
    """

    name: str
    images: int
    missing: int
    folders: tuple[Path, ...]
    searched: bool


def list_galleries(run: Run) -> list[GallerySummary]:
    """The galleries of a run, its own images first, then by name.

    Raises:
        UserError: nothing extracted.
    """
    with FeatureStore.open(run.features) as store:
        records, folders = store.records(), store.galleries()
    missing = list(in_parallel(lambda each: is_missing(each.path), records))
    images = Counter(each.gallery for each in records)
    gone = Counter(each.gallery for each, is_gone in zip(records, missing, strict=True) if is_gone)
    names = {*images, *(each.name for each in folders)}
    names -= {name for name in names if not images[name] and images[name + UNFINISHED]}
    return [
        GallerySummary(
            name.removesuffix(UNFINISHED),
            images[name],
            gone[name],
            tuple(
                sorted(
                    each.folder for each in folders if each.name == name.removesuffix(UNFINISHED)
                )
            ),
            not name.endswith(UNFINISHED),
        )
        for name in sorted(names, key=lambda name: (name != OWN, name))
    ]


def remove_images(
    run: Run,
    ids: Sequence[str] = (),
    gallery: str | None = None,
    folder: Path | None = None,
    missing: bool = False,
) -> list[str]:
    """Take images out of a run's feature store; files stay, but for those added while served.

    Args:
        run: with a feature store; its index is to be fitted afterwards.
        ids: images to be removed.
        gallery: all of a gallery.
        folder: all that is stored from below a folder, which need not be there.
        missing: those whose files are gone; not those that are out of reach for the moment.

    Returns:
        Ids of the images that were removed.

    Raises:
        UserError: no such image, gallery or folder; nothing has changed then.
    """
    with FeatureStore.open(run.features) as store:
        records, folders = store.records(), store.galleries()
        chosen = {each.id for each in _named(run, store, records, ids)}
        forgotten: list[Path] = []
        if gallery is not None:
            known = sorted(
                {each.gallery.removesuffix(UNFINISHED) for each in records}
                | {each.name for each in folders}
            )
            if gallery not in known:
                raise UserError(
                    f"{gallery!r} is no gallery of {run.folder}; {nearest(gallery, known)}"
                )
            chosen |= {e.id for e in records if e.gallery.removesuffix(UNFINISHED) == gallery}
            forgotten += [each.folder for each in folders if each.name == gallery]
        if folder is not None:
            root = root_of(folder)
            below = {each.id for each in records if place_of(each).is_relative_to(root)}
            whole = folder.expanduser().resolve()
            here = [each.folder for each in folders if each.folder.is_relative_to(whole)]
            if not below and not here:
                raise UserError(f"{folder}: no image is stored from there; see cbir galleries")
            chosen |= below
            forgotten += here
        if missing:
            chosen |= _missing_ids(records)
        removed = sorted(chosen)
        _remove(run, store, records, removed)
        store.forget_folders(forgotten)
    return removed


def _missing_ids(records: Sequence[Record]) -> set[str]:
    """Ids of the images whose files are gone; others that were not found are named in the log."""
    not_found = [each for each in records if is_missing(each.path)]
    absence = absence_of(not_found)
    for reason, some in absence.out_of_reach.items():
        logger.warning(
            "%s: %d images below it are kept; remove them with --images DIR or --gallery NAME",
            reason,
            len(some),
        )
    return {each.id for each in absence.gone}


def _named(
    run: Run, store: FeatureStore, records: Sequence[Record], ids: Sequence[str]
) -> list[Record]:
    found = []
    for id_ in ids:
        record = store.record(id_) or store.record_at(Path(id_).resolve())
        if record is None:
            known = [each.id for each in records[:10_000]]
            raise UserError(f"{id_!r} is not in {run.features}; {nearest(id_, known)}")
        found.append(record)
    return found


def _remove(run: Run, store: FeatureStore, records: Sequence[Record], ids: Sequence[str]) -> None:
    """Remove images from the store; pictures that were added go with their description."""
    wanted = set(ids)
    added = [
        each.path
        for each in records
        if each.id in wanted and each.id.startswith(f"{run.added.name}/") and each.path
    ]
    with ExitStack() as stack:
        for path in added:
            stack.enter_context(removing(path))
        store.remove(ids)


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise UserError(f"--gallery {name!r}: a name is text without blanks around it")
    if name in (OWN, EARLIER) or name.endswith(UNFINISHED):
        raise UserError(f"--gallery {name!r}: this name has another meaning; choose another one")


def _free_name(folder: Path, folders: Sequence[GalleryFolder]) -> str:
    """The folder's own name, with a number if another folder's gallery has it."""
    own = folder.name
    if folder.suffix.lower() in TABLE_SUFFIXES and not folder.is_dir():
        own = folder.parent.name if folder.stem == "manifest" else folder.stem
    own = own.strip() or "root"
    taken = {OWN, EARLIER, *(each.name for each in folders)}
    names = (own if number == 1 else f"{own}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
