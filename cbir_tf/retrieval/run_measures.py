"""Two more measures of a run: the threshold of a match, and classifiers of its vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cbir_tf.config.arguments import texts
from cbir_tf.evaluation.classifier_comparison import classify as classify_embeddings
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.retrieval.extraction import encode_splits, fit_index
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.retrieval.run_evaluation import EvaluationTask
from cbir_tf.run import Run
from cbir_tf.storage.files import write_text


def calibrate(run: Run, rate: float = 0.05) -> tuple[Calibration, float, int]:
    """Measure the threshold of a match on the validation images, against these and the training's.

    Args:
        run: trained.
        rate: share of out-of-gallery queries that may be given a match, above 0 and below 1.

    Returns:
        The calibration, which is saved with the run; the share of validation images whose nearest
        image of any class is a match; and how many validation images there are.

    Raises:
        UserError: as `Calibration.measure`, or no validation or training images.
    """
    images = encode_splits(run, "train", "validation")
    with fit_index(run) as retriever:
        gallery = retriever.gallery
        known = gallery.embeddings.ids
        known = known[np.isin(known, images.ids)]
        validation = gallery.embeddings.take(
            np.isin(gallery.embeddings.ids, images.of_split("validation").ids)
        )
        # Of the vectors as they are: there is no threshold for what other searches find.
        plain = run.config.search.model_copy(update={"database_augmentation": 0})
        among = replace(gallery, settings=plain.changed("none", "none")).among(known)
        calibration = Calibration.measure(
            validation,
            among.embeddings,
            plain.metric,
            rate,
            retriever.store.encoder_fingerprint,
            "" if gallery.whitening is None else gallery.whitening.digest,
        )
        found = QueryEngine(replace(among, calibration=calibration)).search(
            among.stored_queries(validation.ids), k=1
        )
    calibration.save(run.calibration)
    assert found.is_match is not None
    return calibration, float(found.is_match.mean()), len(validation)


def classify(run: Run, classifiers: Sequence[str]) -> dict[str, Any]:
    """Fit classifiers to the training split's vectors, measure them on the test split.

    Args:
        run: trained.
        classifiers: names, of `cbir_tf.evaluation.classifier_comparison.CLASSIFIERS`.

    Returns:
        What `classifier_comparison.classify` returns; it is kept in classification.json.

    Raises:
        UserError: no training or test images.
    """
    classifiers = texts(classifiers, "classifiers")
    task = EvaluationTask.open(run, "test", "train")
    with task.retriever:
        settings = run.config.evaluation
        result = classify_embeddings(
            task.searched,
            task.queries,
            classifiers,
            settings.bootstrap,
            run.config.seed,
            task.retriever.class_names,
        )
    write_text(run.classification, json.dumps(result, indent=2, ensure_ascii=False))
    return result
