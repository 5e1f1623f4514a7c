"""Model cards of runs of several kinds; the card of the digits is in weights/."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cbir_tf.publishing.card import Facts, model_card
from cbir_tf.releases.registry import Reference

DIGITS = Path(__file__).parents[2] / "weights" / "digits-1.0.0"


@pytest.fixture
def facts() -> Facts:
    """Those of the digits."""
    labels = json.loads((DIGITS / "labels.json").read_text())
    return Facts(
        reference=Reference("digits", "1.0.0"),
        config=yaml.safe_load((DIGITS / "config.yaml").read_text()),
        licence="Apache-2.0",
        data_licence="CC BY 4.0",
        training={"class_names": labels, "epochs": 15, "best_epoch": 15, "duplicates": []},
        metrics=json.loads((DIGITS / "metrics.json").read_text()),
        splits={"train": 1258, "validation": 269, "test": 270},
        parameters=316_960,
        dimensions=64,
        tolerance=0.005,
        has_onnx=True,
        pictures=["loss.png"],
    )


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_the_front_matter_is_the_hub_s(facts):
    assert front_matter(model_card(facts))["license"] == "apache-2.0"
    assert front_matter(model_card(replace(facts, licence="ask: me")))["license"] == "other"
    assert "license" not in front_matter(model_card(replace(facts, licence="")))


def test_the_limits_follow_from_the_run(facts):
    card = model_card(facts)
    # 1 - 3 / 270, the rule of three: no failure among 270.
    assert "may be as low as 0.989" in card
    assert "of other classes nothing is known" in card and "duplicates" not in card
    config = json.loads(json.dumps(facts.config))
    config["data"]["split"]["by"] = "class"
    config["model"]["weights"] = "imagenet"
    training = facts.training | {"duplicates": [{}, {}]}
    changed = replace(facts, config=config, training=training, data_licence="")
    card = model_card(changed)
    assert "of other classes nothing is known" not in card
    assert "2 images are duplicates across the splits" in card
    assert "It began with imagenet" in card
    assert "The licence of the images is not stated" in card


def test_without_intervals_and_rank_1_the_card_shows_the_other_measures(facts):
    (result,) = json.loads(json.dumps(facts.metrics)).values()
    figures = {"recall@4": 0.75, "map": 0.5, "map_at_r": 0.25}
    result |= {"intervals": {}, "figures": figures, "left_out": 3}
    card = model_card(replace(facts, metrics={"test against train": result}))
    assert "| recall@4" in card and "0.7500" in card and "95 % interval" not in card
    assert "No intervals" in card and "3 queries" in card and "rule of three" not in card


def test_the_yaml_it_shows_is_a_model_section_of_the_release(facts):
    from cbir_tf.config.model import Model

    text = model_card(facts).split("```yaml\n")[1].split("```")[0]
    section = yaml.safe_load(text)["model"]
    expected = facts.config["model"] | {"weights": "release:digits@1.0.0"}
    assert Model(**section) == Model(**{key: expected[key] for key in section})
    assert section["embedding_size"] == 64
