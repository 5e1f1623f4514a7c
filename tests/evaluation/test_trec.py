"""Our figures beside trec_eval's own output, and beside its Python binding."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cbir_tf.errors import UserError
from cbir_tf.evaluation import evaluate
from cbir_tf.evaluation.rankings import normalized_gain
from cbir_tf.evaluation.trec import (
    read_trec_qrels,
    read_trec_run,
    trec_figures,
    write_trec_qrels,
    write_trec_run,
)
from cbir_tf.search import make_index
from cbir_tf.types import Embeddings

RANKS = (1, 5, 10, 15, 20, 30, 100, 200, 500, 1000)
THEIR_NAMES = {"map": "map", "r_precision": "Rprec", "mrr": "recip_rank", "ndcg": "ndcg"}
for rank in RANKS:
    THEIR_NAMES |= {f"precision@{rank}": f"P_{rank}", f"map@{rank}": f"map_cut_{rank}"}
    THEIR_NAMES |= {f"ndcg@{rank}": f"ndcg_cut_{rank}", f"recall@{rank}": f"success_{rank}"}


def printed(path) -> dict[tuple[str, str], str]:
    """What trec_eval printed, by query and figure."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {(query, name): value for name, query, value in lines}


def test_agrees_with_trec_evals_own_expected_output_to_the_printed_digits(shared_data):
    folder = shared_data / "trec_eval"
    ours = trec_figures(
        read_trec_qrels(folder / "qrels.test"), read_trec_run(folder / "results.test"), RANKS
    )
    theirs = printed(folder / "out.test.aq")
    summary = {key: value for key, value in printed(folder / "out.test").items() if key in theirs}
    assert summary.items() <= theirs.items() and len(summary) > 10
    rows = ours | {
        "all": {name: np.mean([each[name] for each in ours.values()]) for name in THEIR_NAMES}
    }
    compared = 0
    for query, figures in rows.items():
        for our_name, their_name in THEIR_NAMES.items():
            if (query, their_name) in theirs:
                assert f"{figures[our_name]:.4f}" == theirs[query, their_name], (query, our_name)
                compared += 1
    # success is printed for 1, 5 and 10 only, P, map_cut and ndcg_cut from 5 on.
    assert len(ours) == 3 and compared == 4 * (4 + 3 + 3 * 9)


@st.composite
def judged_runs(draw):
    """Few distinct scores and grades, so that ties are the rule."""
    items = [f"d{each}" for each in range(draw(st.integers(1, 30)))]
    judgements, scores = {}, {}
    for query in ("q1", "q2"):
        judged = draw(st.lists(st.sampled_from(items), unique=True, min_size=1))
        judgements[query] = {item: draw(st.integers(0, 3)) for item in judged}
        judgements[query][judged[0]] = 1
        ranked = draw(st.lists(st.sampled_from(items), unique=True, min_size=1))
        # 1 + 1e-9 is 1 in single precision, which is how trec_eval holds scores.
        score = st.sampled_from([-2.0, -0.1, 0.0, 0.1, 1.0, 1 + 1e-9, 3e9, 3e9 + 1])
        scores[query] = {item: draw(score) for item in ranked}
    return judgements, scores


@given(judged_runs())
def test_agrees_with_the_binding_on_random_cases_with_ties(case):
    judgements, scores = case
    ours = trec_figures(judgements, scores, RANKS)
    measures = {"map", "Rprec", "recip_rank", "ndcg"}
    for name in ("P", "map_cut", "ndcg_cut", "success"):
        measures.add(f"{name}.{','.join(map(str, RANKS))}")
    theirs = pytrec_eval.RelevanceEvaluator(judgements, measures).evaluate(scores)
    assert ours.keys() == theirs.keys()
    for query, figures in ours.items():
        for our_name, their_name in THEIR_NAMES.items():
            assert figures[our_name] == pytest.approx(theirs[query][their_name], abs=1e-9)


@given(
    gains=st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(any),
    k=st.integers(1, 15),
)
def test_ndcg_is_scikit_learns(gains, k):
    """A ranking by position: scikit-learn is given scores that fall."""
    gains = np.array([gains])
    found = normalized_gain(gains, -np.sort(-gains), [k])
    scores = -np.arange(gains.shape[1])[None]
    assert found["ndcg"][0] == pytest.approx(ndcg_score(gains, scores))
    assert found[f"ndcg@{k}"][0] == pytest.approx(ndcg_score(gains, scores, k=k))


def test_ndcg_of_nothing_relevant_is_undefined():
    assert np.isnan(normalized_gain(np.zeros((1, 3)), np.zeros((1, 2)), [1])["ndcg"]).all()


def test_written_files_have_the_figures_that_evaluate_gives(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.integers(-2, 3, size=(60, 2)) + 0.5  # ties
    ids = [f"a b%/{each}" for each in range(60)]
    found = Embeddings(ids, vectors, random.integers(0, 4, 60))
    neighbours = make_index(metric="euclidean").fit(found).search(found.vectors, 59, found.ids)
    write_trec_run(tmp_path / "run.txt", found.ids, neighbours)
    write_trec_qrels(tmp_path / "qrels.txt", found, found)
    qrels, run = read_trec_qrels(tmp_path / "qrels.txt"), read_trec_run(tmp_path / "run.txt")
    expected = evaluate(found, k=(1, 5), metric="euclidean")["figures"]
    ours = trec_figures(qrels, run, (1, 5))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"map", "P.5"}).evaluate(run)
    for name, value in expected.items():
        if name in next(iter(ours.values())):
            mean = np.mean([each[name] for each in ours.values() if name in each])
            assert mean == pytest.approx(value), name
    assert np.mean([each["map"] for each in theirs.values()]) == pytest.approx(expected["map"])
    assert np.mean([each["P_5"] for each in theirs.values()]) == pytest.approx(
        expected["precision@5"]
    )


@pytest.mark.parametrize("line", ["q 0 e", "q 0 e x", "q 0 e 1 2", "q 0 e 0.5"])
def test_a_malformed_line_is_named(tmp_path, line):
    path = tmp_path / "qrels.txt"
    path.write_text(f"q 0 d 1\n\n{line}\n")
    with pytest.raises(UserError, match=r"qrels\.txt line 3: expected 4 fields"):
        read_trec_qrels(path)


@pytest.mark.parametrize("score", ["nan", "inf", "x"])
def test_a_score_that_ranks_nowhere_is_named(tmp_path, score):
    path = tmp_path / "run.txt"
    path.write_text(f"q Q0 d 1 0.5 name\nq Q0 e 2 {score} name\n")
    with pytest.raises(UserError, match=r"run\.txt line 2: expected 6 fields"):
        read_trec_run(path)


def test_an_item_ranked_or_judged_twice_is_named(tmp_path):
    """trec_eval refuses it too: its figures would count the item twice."""
    (tmp_path / "run.txt").write_text("q Q0 d 1 2 name\nq Q0 d 2 1 name\n")
    (tmp_path / "qrels.txt").write_text("q 0 d 1\np 0 d 1\nq 0 d 0\n")
    with pytest.raises(UserError, match=r"run\.txt line 2: .*'d' is listed twice"):
        read_trec_run(tmp_path / "run.txt")
    with pytest.raises(UserError, match=r"qrels\.txt line 3: .*'d' is listed twice"):
        read_trec_qrels(tmp_path / "qrels.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="could not be read"):
        read_trec_run(tmp_path / "missing.txt")
