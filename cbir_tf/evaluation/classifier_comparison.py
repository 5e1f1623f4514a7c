"""Classifiers fitted to embeddings: how well classes can be told from the vectors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbir_tf.errors import LISTED, UserError, nearest
from cbir_tf.evaluation.bootstrap import bootstrap_intervals
from cbir_tf.progress import logger, progress
from cbir_tf.types import UNLABELLED, Embeddings

CLASSIFIERS = {
    "lr": "logistic regression",
    "knn": "k nearest neighbours",
    "svm": "linear SVM",
    "nb": "Gaussian naive Bayes",
    "rf": "random forest",
}
"""What can be asked for, and what it is."""

FOLDS = 5
TREES = 200
MOST_NUMBERS = 2**30
"""Most numbers in the tables of a classifier."""
_GRIDS: dict[str, dict[str, list[Any]]] = {
    "lr": {"C": [0.001, 0.01, 0.1, 1.0]},
    "knn": {"n_neighbors": [1, 5, 10, 20], "weights": ["uniform", "distance"]},
    "svm": {"C": [0.0001, 0.001, 0.01, 0.1]},
    "nb": {"var_smoothing": [1e-9, 1e-3, 1e-1, 1.0]},
    "rf": {"max_features": ["sqrt", 0.1], "min_samples_leaf": [1, 4]},
}


def classify(
    training: Embeddings,
    test: Embeddings,
    names: Sequence[str] = tuple(CLASSIFIERS),
    bootstrap: int = 1000,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Fit each classifier to training vectors and measure it on others.

    Every number is first brought to mean 0 and variance 1, as it is in the training vectors (of
    the fold). The parameters are those of the best accuracy in a stratified cross-validation of
    the training vectors, in 5 folds, or as many as the smallest class has images. Unlabelled
    vectors are left out, and so are classes with fewer than two training images.

    Args:
        training: labelled.
        test: labelled.
        names: of CLASSIFIERS.
        bootstrap: resamples of the test vectors behind the 95 % intervals; 0: none.
        seed: of folds, classifiers and resampling.
        class_names: names by label, for those left out; none: the labels themselves.

    Returns:
        {"training": images, "test": images, "left_out": {class: [training images, test images]},
        "dimensions", "folds", "most_frequent_class": share of
        the test images that the training images' most frequent class has, "classifiers": [{"name",
        "classifier", "accuracy", "interval": [low, high] or absent, "macro_f1",
        "cross_validation": mean accuracy over the folds, "parameters", "seconds"}, ...]}

    Raises:
        UserError: no such classifier, none that fits in memory, or too few images or classes to fit
            to.
    """
    check_names(names)
    training = training.take(training.labels != UNLABELLED)
    test = test.take(test.labels != UNLABELLED)
    training, test, left_out = _comparable(training, test, class_names)
    folds = min(FOLDS, int(np.unique(training.labels, return_counts=True)[1].min()))
    classes, counts = np.unique(training.labels, return_counts=True)
    names = _that_fit(names, max(len(training), len(test)), len(classes))
    shown = progress(names, description="classify", unit="classifiers")
    return {
        "training": len(training),
        "test": len(test),
        "left_out": left_out,
        "dimensions": training.vectors.shape[1],
        "folds": folds,
        "most_frequent_class": float((test.labels == classes[counts.argmax()]).mean()),
        "classifiers": [_measure(name, training, test, folds, bootstrap, seed) for name in shown],
    }


def check_names(names: Sequence[str]) -> None:
    """Refuse what is not in CLASSIFIERS.

    Raises:
        UserError: there is such a name.
    """
    for name in names:
        if name not in CLASSIFIERS:
            raise UserError(f"--classifiers: no {name!r}; {nearest(name, CLASSIFIERS)}")


def _that_fit(names: Sequence[str], images: int, classes: int) -> list[str]:
    """The classifiers whose tables of a number for each image and class fit in memory.

    Raises:
        UserError: none does.
    """
    # A tree of a random forest has such a table of its own, the others a few in all.
    tables = {name: TREES if name == "rf" else 4 for name in names}
    kept = [name for name in names if tables[name] * images * classes <= MOST_NUMBERS]
    left_out = [CLASSIFIERS[name] for name in names if name not in kept]
    what = f"{', '.join(left_out)}: too large for {images:,} images of {classes:,} classes"
    if not kept:
        raise UserError(f"classify: {what}; evaluate with cbir evaluate")
    if left_out:
        logger.warning("%s; left out", what)
    return kept


def _comparable(
    training: Embeddings, test: Embeddings, class_names: Sequence[str]
) -> tuple[Embeddings, Embeddings, dict[str, list[int]]]:
    """What can be fitted and measured: classes with two training images; and those left out."""
    if not len(test):
        raise UserError("classify: the test split has no labelled image; give it some")
    classes, counts = np.unique(training.labels, return_counts=True)
    kept = classes[counts > 1]
    if len(kept) < 2:
        raise UserError(
            "classify: the training split needs two classes with two images each; give it more "
            "with data.split.train"
        )
    left_out = {}
    for label in sorted({*training.labels.tolist(), *test.labels.tolist()} - {*kept.tolist()}):
        name = class_names[label] if class_names else str(label)
        left_out[name] = [int((each.labels == label).sum()) for each in (training, test)]
    for name, (of_training, of_test) in list(left_out.items())[:LISTED]:
        logger.warning(
            "class left out: %s, with %d training images; its %d test images are left out too",
            name,
            of_training,
            of_test,
        )
    if left_out:
        logger.warning(
            "%d classes have fewer than two training images and are left out", len(left_out)
        )
    training = training.take(np.isin(training.labels, kept))
    test = test.take(np.isin(test.labels, kept))
    if not len(test):
        raise UserError(
            "classify: no test image has a class with two training images; split by image, with "
            "data.split.by: stratified"
        )
    return training, test, left_out


def _measure(
    name: str, training: Embeddings, test: Embeddings, folds: int, bootstrap: int, seed: int
) -> dict[str, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    started = time.monotonic()
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    search = GridSearchCV(_pipeline(name, seed), _grid(name, len(training), folds), cv=parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(training.vectors, training.labels)
    if any(issubclass(each.category, ConvergenceWarning) for each in caught):
        logger.warning("%s: some of the fits ended before they converged", CLASSIFIERS[name])
    predicted = search.predict(test.vectors)
    correct = (predicted == test.labels).astype(np.float64)
    result = {
        "name": name,
        "classifier": CLASSIFIERS[name],
        "accuracy": float(correct.mean()),
        "macro_f1": float(f1_score(test.labels, predicted, average="macro", zero_division=0)),
        "cross_validation": float(search.best_score_),
        "parameters": {key.partition("__")[2]: value for key, value in search.best_params_.items()},
        "seconds": round(time.monotonic() - started, 2),
    }
    if bootstrap:
        interval = bootstrap_intervals(correct[:, np.newaxis], bootstrap, seed)[0]
        result["interval"] = interval.tolist()
    return result


def _pipeline(name: str, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    classifiers = {
        "lr": LogisticRegression(max_iter=1000),
        "knn": KNeighborsClassifier(),
        "svm": LinearSVC(max_iter=5000, random_state=seed),
        "nb": GaussianNB(),
        "rf": RandomForestClassifier(TREES, random_state=seed),
    }
    return Pipeline([("scaling", StandardScaler()), (name, classifiers[name])])


def _grid(name: str, images: int, folds: int) -> dict[str, list[Any]]:
    """The parameters to try, under the pipeline's names."""
    grid = dict(_GRIDS[name])
    if name == "knn":
        # What is left of the training images when the largest fold is taken out.
        fitted_to = images - -(-images // folds)
        grid["n_neighbors"] = [each for each in grid["n_neighbors"] if each <= fitted_to]
    return {f"{name}__{key}": values for key, values in grid.items()}
