"""evaluate: measure retrieval on a run's images and draw where it errs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.commands.extract import extract, split_images, trained_run
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import read_json, write_text
from cbir_tf.storage.remote import local
from cbir_tf.types import SPLITS, Embeddings, Neighbours

if TYPE_CHECKING:
    from cbir_tf.evaluation.levels import Levels
    from cbir_tf.evaluation.metrics import Ranking
    from cbir_tf.retrieval.query_engine import Searcher
    from cbir_tf.retrieval.retriever import Retriever
    from cbir_tf.types import ImageSet

DEPTH = 10_000  # ranks that are looked at where the search is more than distance
MISTAKES = 12
TREC_DEPTH = 1000
CLASS_FIGURES = ("recall@1", "map", "map_at_r")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument("--split", choices=SPLITS, help="queries; default: evaluation.split")
    parser.add_argument(
        "--gallery",
        choices=[*SPLITS, "none"],
        help="images searched; none: the queries' own split, each left out of it; default: "
        "evaluation.gallery",
    )
    parser.add_argument(
        "--trec",
        type=path_of,
        metavar="DIR",
        help="also write run.txt and qrels.txt for trec_eval, the first 1,000 of each query",
    )
    parser.add_argument(
        "--levels",
        type=path_of,
        metavar="CSV",
        help="also at the levels of a hierarchy: a table of the columns class,super-category,...",
    )
    parser.add_argument(
        "--level-column",
        metavar="NAME",
        help="also at the level that a column of metadata gives: all images of a class have one "
        "value in it, such as supercategory",
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="also with several labels an image: the comma-separated values of a column of "
        "metadata; relevant is what shares one",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Measure and print; writes metrics.json and the pictures."""
    from cbir_tf.evaluation.levels import read_levels
    from cbir_tf.evaluation.table import format_accuracy, format_classes, format_table

    run = trained_run(arguments.run)
    levels = {} if arguments.levels is None else read_levels(local(arguments.levels))
    import_tensorflow()
    split = arguments.split or run.config.evaluation.split
    gallery = gallery_split(arguments.gallery or run.config.evaluation.gallery, split)
    columns = (arguments.level_column, arguments.label_column)
    result, written = measure(run, split, gallery, levels, arguments.trec, *columns)
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(format_table(result), format_classes(result, CLASS_FIGURES), sep="\n\n", end="\n\n")
    if "classifier" in result:
        print(format_accuracy(result["classifier"], result["split"]), end="\n\n")
    by_column = {f"sharing {name}": each for name, each in result.get("label_sets", {}).items()}
    by_level = {f"by {name}": each for name, each in result.get("levels", {}).items()}
    for name, figures in (by_level | by_column).items():
        print(f"{name}: {format_table(figures)}", end="\n\n")
        print(format_classes(figures, CLASS_FIGURES), end="\n\n")
    for path in (run.metrics, *written):
        print(path)


def gallery_split(name: str | None, split: str) -> str | None:
    """The split searched, None for the queries' own."""
    return None if name in (None, "none", split) else name


def measure(
    run: Run,
    split: str,
    gallery: str | None,
    levels: Levels,
    trec: Path | None = None,
    level_column: str | None = None,
    label_column: str | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Evaluate queries of one split against another, or against the rest of their own.

    Images not yet extracted are extracted. metrics.json keeps one result for each pair of splits.

    Args:
        run: trained.
        split: of the queries.
        gallery: split searched; None: the queries' own, each left out of it.
        levels: of a hierarchy of classes, at which to measure too.
        trec: folder for trec_eval's files; None: none are written.
        level_column: column of metadata that gives one more level.
        label_column: column of metadata with all labels of each image, at which to measure too.

    Returns:
        The figures (`cbir_tf.evaluation.evaluate`) and the files written besides metrics.json.
    """
    from cbir_tf.evaluation import evaluate, evaluate_levels
    from cbir_tf.evaluation.columns import label_sets_of, level_of

    task = Task.open(run, split, gallery)
    settings = run.config.evaluation
    names = task.retriever.class_names
    options: dict[str, Any] = {
        "k": task.ranks(settings.k),
        "metric": run.config.search.metric,
        "bootstrap": settings.bootstrap,
        "seed": run.config.seed,
        "ranking": task.ranking,
    }
    result: dict[str, Any] = {"split": split, "gallery_split": gallery or split} | task.steps
    if level_column:
        levels = {**levels, level_column: level_of(task.images, level_column)}
    sets = label_sets_of(task.images, label_column) if label_column else None
    result |= evaluate(task.queries, task.gallery, class_names=names, **options)
    if levels:
        result["levels"] = evaluate_levels(task.queries, task.gallery, levels, names, **options)
    if sets is not None:
        shared = evaluate(task.queries, task.gallery, label_sets=sets, **options)
        result["label_sets"] = {label_column: shared}
    if run.classifier.is_file() and run.config.data.split.by != "class":
        result["classifier"] = classify(task, split)
    _keep(run, result)
    written = _draw(task)
    if trec is not None:
        written += _write_trec(trec, task)
    return result, written


def classify(task: Task, split: str) -> dict[str, Any]:
    """How often the run's classifier names the class of an image of a split.

    Returns:
        accuracy, its 95 % interval (none with `evaluation.bootstrap: 0`), and number of images.
    """
    from cbir_tf.evaluation import summarize
    from cbir_tf.features.encode import embed
    from cbir_tf.features.runtime import predict
    from cbir_tf.models import load_classifier

    run, images = task.retriever.run, task.images.of_split(split)
    # By name: the source may have got classes since, which its labels count and the model's do not.
    names = read_json(run.training)["class_names"]
    classifier = load_classifier(run.classifier, len(names))
    found = embed(partial(predict, classifier), images, run.config.data)
    hits = [
        names[chosen] == images.class_names[label]
        for chosen, label in zip(found.vectors.argmax(axis=1), found.labels, strict=True)
    ]
    values = {"accuracy": np.array(hits, dtype=np.float64)}
    summary = summarize(values, {}, run.config.evaluation.bootstrap, run.config.seed)
    return {
        "accuracy": summary["figures"]["accuracy"],
        "interval": summary["intervals"].get("accuracy"),
        "images": len(hits),
    }


@dataclass(frozen=True)
class Task:
    """A run opened, what its queries are and what they search.

    Attributes:
        retriever: of the run; its encoder is open.
        images: the queries' and the gallery's images.
        queries: embeddings of one split.
        gallery: those of another; None: the queries', each left out of its own ranking.
    """

    retriever: Retriever
    images: ImageSet
    queries: Embeddings
    gallery: Embeddings | None

    @classmethod
    def open(cls, run: Run, split: str, gallery: str | None) -> Task:
        """Open a run, extracting those images of the splits that it has not.

        A search of two steps needs the training images too, of which it learns the first.
        """
        from cbir_tf.features.views import open_run_encoder

        search = run.config.search
        splits = {split, gallery or split}
        learns = search.two_step.name != "none" and search.two_step.run is None
        images = split_images(run, *splits, *(["train"] if learns else []))
        if learns and split == "train" and search.two_step.name == "svm":
            logger.warning("search.two_step has learnt from these very queries, which flatters it")
        # Before the store is looked at, which takes a damaged model for another one.
        encoder = open_run_encoder(run, search)
        retriever, _ = extract(run, images, encoder)
        retriever.encoder = encoder
        images = images.take(np.isin(images.split, list(splits)))
        stored = retriever.embeddings

        def of_split(name: str) -> Embeddings:
            return stored.take(np.isin(stored.ids, retriever.store.select(split=name)))

        return cls(retriever, images, of_split(split), of_split(gallery) if gallery else None)

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
    def searcher(self) -> Searcher:
        """What the run's search does, among the gallery alone."""
        return self.retriever.searcher_among(self.searched)

    @property
    def steps(self) -> dict[str, Any]:
        """What the search does beyond finding the nearest, and to which rank; empty if nothing."""
        from cbir_tf.retrieval.query_engine import steps_of

        steps = steps_of(self.retriever.search_config)
        return {"search": steps, "depth": min(DEPTH, self.findable)} if steps else {}

    @property
    def ranking(self) -> Ranking | None:
        """What ranks the gallery; None where that is distance alone."""
        return (lambda queries: self._found(queries, DEPTH)[0]) if self.steps else None

    def neighbours(self, k: int) -> Neighbours:
        """At most k of the gallery for every query."""
        return self.searcher.neighbours(*self._found(self.queries, k))

    def _found(self, queries: Embeddings, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the gallery and distances of at most k."""
        probabilities = self.retriever.probabilities(queries.ids)
        return self.searcher.rank(
            queries.vectors, min(k, self.findable), queries.ids, None, probabilities
        )


def _write_trec(folder: Path, task: Task) -> list[Path]:
    from cbir_tf.evaluation.trec import write_trec_qrels, write_trec_run

    paths = [folder / "run.txt", folder / "qrels.txt"]
    name = task.retriever.run.config.name
    write_trec_run(paths[0], task.queries.ids, task.neighbours(TREC_DEPTH), name)
    write_trec_qrels(paths[1], task.queries, task.searched)
    return paths


def _keep(run: Run, result: dict[str, Any]) -> None:
    kept = read_json(run.metrics) if run.metrics.is_file() else {}
    kept[f"{result['split']} against {result['gallery_split']}"] = result
    write_text(run.metrics, json.dumps(kept, indent=2, ensure_ascii=False))


def _draw(task: Task) -> list[Path]:
    """Confusion matrix of the nearest neighbours, and a gallery of the worst mistakes."""
    from cbir_tf.evaluation.confusion import confusion_matrix, mistakes
    from cbir_tf.plots.confusion import confusion_matrix_png, mistakes_grid
    from cbir_tf.retrieval.pictures import neighbour_row

    retriever, queries = task.retriever, task.queries
    plots, names = retriever.run.plots, retriever.class_names
    neighbours = task.neighbours(retriever.search_config.k)
    matrix = confusion_matrix(neighbours, queries, task.searched, len(names))
    pictures = [confusion_matrix_png(plots / "confusion.png", matrix, names)]
    row_of = {str(id_): row for row, id_ in enumerate(queries.ids)}
    rows = []
    for each in mistakes(neighbours, queries, task.searched)[:MISTAKES]:
        row = row_of[each.query]
        found = Neighbours(neighbours.ids[[row]], neighbours.distances[[row]])
        rows.append(neighbour_row(retriever, each.query, found))
    path = plots / "mistakes.png"
    path.unlink(missing_ok=True)
    if rows:
        pictures.append(mistakes_grid(path, rows))
    return pictures
