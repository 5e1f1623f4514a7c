"""Evaluation of a run: queries of one split against another, by what the run's search does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config.arguments import mapping, one_of
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.evaluation import evaluate as evaluate_embeddings
from cbir_tf.evaluation import evaluate_levels, summarize
from cbir_tf.evaluation.columns import label_sets_of, level_of
from cbir_tf.evaluation.confusion import confusion_matrix, mistakes, write_confusions
from cbir_tf.evaluation.levels import Levels
from cbir_tf.evaluation.metrics import Ranking
from cbir_tf.evaluation.trec import write_trec_qrels, write_trec_run
from cbir_tf.features.encode import embed
from cbir_tf.features.runtime import predict
from cbir_tf.features.views import open_run_encoder
from cbir_tf.parallel import blocks
from cbir_tf.plots.confusion import confusion_matrix_png, mistakes_grid
from cbir_tf.progress import logger
from cbir_tf.retrieval.absence import is_missing
from cbir_tf.retrieval.extraction import encode_splits, fit_index
from cbir_tf.retrieval.gallery_plots import neighbour_row
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.retrieval.query_engine import QueryEngine, steps_of
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json, write_text
from cbir_tf.types import SPLITS, Embeddings, ImageSet, Results

DEPTH = 10_000  # ranks that count where the search is more than distance
MISTAKES = 12
TREC_DEPTH = 1000
BLOCK_NEIGHBOURS = 2**22


@dataclass(frozen=True)
class EvaluationTask:
    """A run opened, its queries and the gallery that they search.

    Attributes:
        retriever: of the run; its encoder is open.
        images: those of the queries and of the gallery.
        split: of the queries.
        gallery_split: of the gallery.
        queries: embeddings of one split.
        gallery: those of another; None: the queries', each left out of its own ranking.
    """

    retriever: Retriever
    images: ImageSet
    split: str
    gallery_split: str
    queries: Embeddings
    gallery: Embeddings | None

    @classmethod
    def open(cls, run: Run, split: str, gallery: str | None) -> EvaluationTask:
        """Open a run, extracting the images of the splits that are not yet stored.

        A two-step search needs the training images too, of which its classifier learns.

        Raises:
            UserError: a split without images, or what `extract` raises.
        """
        search = run.config.search
        splits = {split, gallery or split}
        learns = search.two_step.name != "none" and search.two_step.run is None
        if learns and split == "train" and search.two_step.name == "svm":
            logger.warning("search.two_step has learnt from these queries: the figures flatter it")
        # Before the store is looked at, which takes a damaged model for another one.
        encoder = open_run_encoder(run, search)
        images = encode_splits(run, *splits, *(["train"] if learns else []), encoder=encoder)
        retriever = fit_index(run, encoder)
        images = images.take(np.isin(images.split, list(splits)))
        stored = retriever.embeddings

        def of_split(name: str) -> Embeddings:
            return stored.take(np.isin(stored.ids, images.of_split(name).ids))

        return cls(
            retriever,
            images,
            split,
            gallery or split,
            of_split(split),
            of_split(gallery) if gallery else None,
        )

    @property
    def searched(self) -> Embeddings:
        """The gallery, whichever it is."""
        return self.queries if self.gallery is None else self.gallery

    @property
    def findable(self) -> int:
        """Images that a query can find."""
        return len(self.queries) - 1 if self.gallery is None else len(self.gallery)

    def ranks(self, k: Sequence[int]) -> list[int]:
        """Those ranks that a query's ranking has."""
        ranks = [each for each in k if each <= self.findable] or [1]
        if len(ranks) < len(k):
            logger.warning(
                "only %d images to find: figures at higher ranks are left out", self.findable
            )
        return ranks

    @cached_property
    def engine(self) -> QueryEngine:
        """The run's search, among the gallery alone."""
        return QueryEngine(self.retriever.gallery.among(self.searched.ids))

    @property
    def steps(self) -> dict[str, Any]:
        """What the search does beyond finding the nearest, and to which rank; empty if nothing."""
        steps = steps_of(self.retriever.search_config)
        return {"search": steps, "depth": min(DEPTH, self.findable)} if steps else {}

    @property
    def ranking(self) -> Ranking:
        """The engine's ranking of the gallery, for `cbir_tf.evaluation`."""
        depth = min(DEPTH, self.findable) if self.steps else self.findable

        def rank(queries: Embeddings) -> np.ndarray:
            batch = self.retriever.gallery.stored_queries(queries.ids)
            return self.engine.rank(batch, depth)[0]

        return rank

    def neighbours(self, k: int) -> Results:
        """At most k of the gallery for every query."""
        gallery, router = self.retriever.gallery, self.engine.router
        k, classes = min(k, self.findable), 1 if router is None else len(router.names)
        found = [
            self.engine.search(gallery.stored_queries(self.queries.ids[rows]), k)
            for rows in blocks(len(self.queries), max(k, classes), BLOCK_NEIGHBOURS)
        ]
        ids, distances, labels = (
            np.concatenate([getattr(each, name) for each in found])
            for name in ("ids", "distances", "labels")
        )
        return Results(ids, distances, labels, gallery.class_names)


def evaluate(
    run: Run | str | Path,
    split: str | None = None,
    gallery: str | None = None,
    *,
    levels: Mapping[str, Mapping[str, str]] | None = None,
    level_column: str | None = None,
    label_column: str | None = None,
    trec: str | Path | None = None,
) -> dict[str, Any]:
    """Measure retrieval on a run's images; writes metrics.json and draws where it errs.

    Images not yet extracted are extracted. metrics.json keeps one result for each pair of splits.

    Args:
        run: trained, or its folder.
        split: of the queries; when not given, evaluation.split.
        gallery: split searched; none: the queries' own, each left out of it; when not given,
            evaluation.gallery.
        levels: of a hierarchy of classes, at which to measure too
            (`cbir_tf.evaluation.levels.read_levels`).
        level_column: column of metadata that gives one more level.
        label_column: column of metadata with all labels of each image, at which to measure too.
        trec: folder for trec_eval's files; None: none are written.

    Returns:
        The figures (`cbir_tf.evaluation.evaluate`), and "files", those written.

    Raises:
        UserError: as `extract`; there is nothing relevant for any query; or a column that no image
            has.

    Example:
        >>> evaluate("runs/flowers", "test")["figures"]["recall@1"]  # doctest: +SKIP
        0.95
    """
    run = trained_run(run)
    settings = run.config.evaluation
    split = one_of(split or settings.split, SPLITS, "split")
    levels = mapping(levels or {}, "levels", "names by level, as of read_levels")
    task = EvaluationTask.open(run, split, gallery_split(gallery or settings.gallery, split))
    with task.retriever:
        result = _measured(task, dict(levels), level_column, label_column)
        _keep(run, result)
        written = [run.metrics, *_draw(task)]
        if trec is not None:
            written += _write_trec(path_of(trec), task)
    return {**result, "files": [str(path) for path in written]}


def gallery_split(name: str | None, split: str) -> str | None:
    """The split searched, None for the queries' own.

    Raises:
        UserError: no such split.
    """
    if name is not None and name not in (*SPLITS, "none"):
        raise UserError(f"gallery: no split {name!r}; choose one of {', '.join(SPLITS)}, none")
    return None if name in (None, "none", split) else name


def _measured(
    task: EvaluationTask,
    levels: Levels,
    level_column: str | None,
    label_column: str | None,
) -> dict[str, Any]:
    run = task.retriever.run
    settings, names = run.config.evaluation, task.retriever.class_names
    options: dict[str, Any] = {
        "k": task.ranks(settings.k),
        "metric": run.config.search.metric,
        "bootstrap": settings.bootstrap,
        "seed": run.config.seed,
        "ranking": task.ranking,
    }
    result: dict[str, Any] = {"split": task.split, "gallery_split": task.gallery_split}
    result |= task.steps
    if level_column:
        levels = {**levels, level_column: level_of(task.images, level_column)}
    sets = label_sets_of(task.images, label_column) if label_column else None
    result |= evaluate_embeddings(task.queries, task.gallery, class_names=names, **options)
    if levels:
        result["levels"] = evaluate_levels(task.queries, task.gallery, levels, names, **options)
    if sets is not None:
        shared = evaluate_embeddings(task.queries, task.gallery, label_sets=sets, **options)
        result["label_sets"] = {label_column: shared}
    if run.classifier.is_file() and run.config.data.split.by != "class":
        result |= _classifier_accuracy(task)
    return result


def _classifier_accuracy(task: EvaluationTask) -> dict[str, Any]:
    """How often the run's classifier names the class of an image of a split.

    Returns:
        classifier: accuracy, its 95 % interval (none with `evaluation.bootstrap: 0`), and number of
        images. Nothing without pictures, which it needs.
    """
    from cbir_tf.models import load_classifier

    run, images = task.retriever.run, task.images.of_split(task.split)
    there = [
        bool(each) and not (isinstance(each, Path) and is_missing(each)) for each in images.sources
    ]
    if not any(there):
        logger.warning("no accuracy of the classifier: it needs the pictures, which are not there")
        return {}
    images = images.take(np.array(there))
    # By name: the source may have got classes since, which its labels count and the model's do not.
    names = [nfc(name) for name in read_json(run.training)["class_names"]]
    classifier = load_classifier(run.classifier, len(names))
    found = embed(partial(predict, classifier), images, run.config.data)
    right = [
        names[chosen] == images.class_names[label]
        for chosen, label in zip(found.vectors.argmax(axis=1), found.labels, strict=True)
    ]
    values = {"accuracy": np.array(right, dtype=np.float64)}
    summary = summarize(values, {}, run.config.evaluation.bootstrap, run.config.seed)
    accuracy = {
        "accuracy": summary["figures"]["accuracy"],
        "interval": summary["intervals"].get("accuracy"),
        "images": len(right),
    }
    return {"classifier": accuracy}


def _write_trec(folder: Path, task: EvaluationTask) -> list[Path]:
    paths = [folder / "run.txt", folder / "qrels.txt"]
    name = task.retriever.run.config.name
    write_trec_run(paths[0], task.queries.ids, task.neighbours(TREC_DEPTH), name)
    write_trec_qrels(paths[1], task.queries, task.searched)
    return paths


def _keep(run: Run, result: dict[str, Any]) -> None:
    kept = read_json(run.metrics) if run.metrics.is_file() else {}
    kept[f"{result['split']} against {result['gallery_split']}"] = result
    write_text(run.metrics, json.dumps(kept, indent=2, ensure_ascii=False))


def _draw(task: EvaluationTask) -> list[Path]:
    """Confusion matrix of the nearest neighbours, with its table, and the worst mistakes."""
    retriever, queries = task.retriever, task.queries
    labels = [queries.labels.max(initial=0), task.searched.labels.max(initial=0)]
    # Without the classes of further galleries, which come last.
    plots, names = retriever.run.plots, retriever.class_names[: 1 + int(max(labels))]
    neighbours = task.neighbours(retriever.search_config.k)
    matrix = confusion_matrix(neighbours, queries, task.searched, len(names))
    pictures = [confusion_matrix_png(plots / "confusion.png", matrix, names)]
    write_confusions(plots / "confusion.csv", matrix, names)
    pictures.append(plots / "confusion.csv")
    row_of = {str(id_): row for row, id_ in enumerate(queries.ids)}
    rows = [
        neighbour_row(retriever, each.query, neighbours, row_of[each.query])
        for each in mistakes(neighbours, queries, task.searched)[:MISTAKES]
    ]
    path = plots / "mistakes.png"
    path.unlink(missing_ok=True)
    if rows:
        pictures.append(mistakes_grid(path, rows))
    return pictures
