"""calibrate: from which distance on the nearest image is no match."""

from __future__ import annotations

import argparse

import numpy as np

from cbir_tf.commands.extract import extract, split_images, trained_run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument(
        "--false-match-rate",
        type=float,
        default=0.05,
        metavar="RATE",
        help="share of photos of something else that may be given a match; default: 0.05",
    )


def main(arguments: argparse.Namespace) -> None:
    """Measure on the validation split against it and the training split; writes no_match.json."""
    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.retrieval.calibration import NoMatch
    from cbir_tf.search import make_index

    retriever, _ = extract(run, split_images(run, "train", "validation"))
    stored = retriever.embeddings
    queries, known = (
        stored.take(np.isin(stored.ids, retriever.store.select([f"split={splits}"])))
        for splits in ("validation", "train,validation")
    )
    calibrated = NoMatch.calibrate(
        queries,
        known,
        run.config.search.metric,
        arguments.false_match_rate,
        retriever.store.model_digest,
        retriever.projection_digest,
    )
    calibrated.save(run.no_match)
    # Of vectors as they are: to what other searches find there is no threshold.
    index = make_index(metric=run.config.search.metric).fit(known)
    genuine = index.search(queries.vectors, 1, query_ids=queries.ids)
    matched = sum(calibrated.matches(each) for each in genuine.distances[:, 0])
    print(
        f"a match is nearer than {calibrated.threshold:.4f}: so is the nearest image of another "
        f"class for {calibrated.false_match_rate:.0%} of the {len(queries)} validation images, "
        f"and the nearest of any class for {matched / len(queries):.0%}"
    )
    print(run.no_match)
