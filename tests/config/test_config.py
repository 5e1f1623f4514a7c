"""The configuration: what it accepts, how it refuses, and that it reads back what it writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys
from cbir_tf.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
DIGITS = {"data": {"source": "digits"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("data: {source: digits, image_size: 32, augmentation: [flip]}\n")
    return path


def test_the_name_is_that_of_the_file(file):
    assert Config.load(file).name == "small"
    assert Config.load(file, ["name=other"]).name == "other"


def test_overrides_replace_single_keys_and_keep_the_others(file):
    config = Config.load(file, ["loss.margin=0.5", "data.batch.classes=4", "model.hidden=[64, 32]"])
    assert config.loss.margin == 0.5
    assert config.data.batch.classes == 4
    assert config.model.hidden == (64, 32)
    assert config.data.image_size == (32, 32)


def test_numbers_like_1e_4_which_yaml_reads_as_text_are_numbers(file):
    assert Config.load(file, ["optimizer.learning_rate=1e-4"]).optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("metric", ["manhattan", "minkowski-1", "minkowski-1.5", "minkowski-3"])
def test_a_distance_is_a_name_or_minkowski_with_its_order(file, metric):
    assert Config.load(file, [f"search.metric={metric}"]).search.metric == metric


def test_a_schedule_is_a_name_or_a_section(file):
    assert Config.load(file, ["schedule=warmup_decay"]).schedule.ramp_up == 5
    config = Config.load(file, ["schedule=warmup_decay", "schedule.ramp_up=2"])
    assert config.schedule.ramp_up == 2


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("loss.margn=1", ["loss.margn", "'margin'"]),
        ("los.margin=1", ["'los'", "'loss'"]),
        ("loss.margin=abc", ["loss.margin", "'abc'"]),
        ("loss.margin=-1", ["loss.margin", "greater than or equal to 0", "-1"]),
        ("loss.margin=.nan", ["loss.margin", "finite"]),
        ("loss.name=tripletsemihard", ["loss.name=", "loss.name: no", "'triplet_semi_hard'"]),
        ("loss=cross_entrop", ["loss=cross", "loss.name: no", "'cross_entropy'"]),
        ("loss={name: cross_entropy, margin: 1}", ["'loss.margin'", "label_smoothing"]),
        ("loss={name: cross_entropy, label_smoothing: 1}", ["loss.label_smoothing", "less than 1"]),
        ("loss={name: reconstruction, soft: true}", ["'loss.soft'", "noise"]),
        ("loss={name: triplet_semi_hard, soft: true}", ["'loss.soft'"]),
        ("training.monitor=val_accuracy", ["training.monitor", "loss: cross_entropy"]),
        ("data.augmentation=[flp]", ["data.augmentation[0]", "'flip'"]),
        ("data.augmentation=[{name: flip, vertica: true}]", ["vertica'", "'vertical'"]),
        ("schedule=warmup_deca", ["schedule", "'warmup_decay'"]),
        ("schedule={name: warmup_decay, ramp: 1}", ["schedule.ramp'", "'ramp_up'"]),
        ("data.source=folder", ["data.path"]),
        ("data.source=tfds", ["data.dataset"]),
        ("data.image_size=[64]", ["data.image_size"]),
        ("data.split.train=1.5", ["data.split.train", "share below 1", "whole number", "1.5"]),
        ("data.split.test=1.0", ["data.split.test", "share below 1", "1.0"]),
        ("data.split.test=true", ["data.split.test", "share below 1", "True"]),
        ("data.split.test=half", ["data.split.test", "share below 1", "'half'"]),
        ("data.batch.classes=2.5", ["data.batch.classes: should be a whole number, got 2.5"]),
        ("training.epochs=many", ["training.epochs: should be a whole number, got 'many'"]),
        ("data.label_depth=2", ["data.label_depth needs data.source: folder"]),
        ("data.path=[a]", ["data.path: should be a path"]),
        ("data=null", ["data"]),
        ("nonsense", ["section.key=value"]),
        ("loss.margin=[", ["loss.margin=["]),
        ("name=a/b", ["name"]),
        ("search.metric=euclid", ["search.metric: no 'euclid'", "'euclidean'"]),
        ("search.metric=minkowski", ["search.metric", "a number from 1 up, as in minkowski-3"]),
        ("search.metric=minkowski-0.5", ["'minkowski-0.5'", "a number from 1 up"]),
        ("search.metric=3", ["search.metric", "should be text", "3"]),
        ("search.index=anoy", ["search.index", "'annoy'"]),
        ("search.pca=0", ["search.pca", "greater than or equal to 1"]),
        ("search.pca=129", ["search.pca: 129 components", "128 dimensions"]),
        ("descriptors=[visual_word]", ["descriptors[0]", "'visual_words'"]),
        ("descriptors=[{name: hog, side: 20}]", ["descriptors[0].side", "multiple of 8", "20"]),
        ("descriptors=[{name: hog, sid: 32}]", ["sid'", "'side'"]),
        ("descriptors=[{name: visual_words, words: []}]", ["descriptors[0].words"]),
        ("descriptors=[{name: visual_words, weight: 0}]", ["descriptors[0].weight", "0"]),
        ("descriptors=[hog]", ["data.augmentation does not apply to descriptors", "leave out"]),
    ],
)
def test_an_invalid_override_is_a_one_line_error_with_place_and_remedy(file, override, parts):
    with pytest.raises(UserError) as raised:
        Config.load(file, [override])
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=[3,x]", "'data.image_size=[3,x]': data.image_size[0]: input should be"),
        ("data.image_size=big", "data.image_size: should be a list, got 'big'"),
        ("loss=3", "loss: should be a section, {key: value, ...}, got 3"),
        ("evaluation.k=[]", "evaluation.k: should have at least 1 value(s), got []"),
        ("name=a/b", "name: may hold only letters, digits, '.', '_' and '-', got 'a/b'"),
    ],
)
def test_a_value_of_a_wrong_type_is_explained_in_terms_of_the_file(file, override, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Config.load(file, [override])
    assert str(caught.value).startswith(repr(override))


def test_a_mistake_in_the_file_names_the_file_not_an_override(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("data: {source: digits}\nloss: {margn: 1}\n")
    with pytest.raises(UserError, match=r"wrong\.yaml: unknown key 'loss\.margn'"):
        Config.load(path, ["training.epochs=1"])


def test_a_missing_file_names_the_nearest(file):
    with pytest.raises(UserError, match=r"no such configuration file.*small\.yaml"):
        Config.load(file.with_name("smal.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", "line 2|line 1"),
        ("- 1", "expected 'key: value'"),
        ("data: {source: digits}\ndata: {source: digits}\n", "given twice"),
        ("loss: {margin: 1, margin: 2}\ndata: {source: digits}\n", "'margin' is given twice"),
        ("", "data"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        Config.load(path)
    assert str(path) in str(raised.value)


@given(
    margin=st.floats(0, 1e6),
    rate=st.floats(1e-9, 10),
    hidden=st.lists(st.integers(1, 4096), max_size=3),
    sampler=st.sampled_from(["balanced", "shuffled"]),
    train=st.one_of(st.none(), st.integers(0, 10_000), st.floats(0, 0.99)),
    schedule=st.sampled_from(["constant", "warmup_decay", "warmup_cosine", "bit_hyperrule"]),
)
def test_a_dumped_configuration_loads_equal(margin, rate, hidden, sampler, train, schedule):
    values = {
        "data": {"source": "digits", "batch": {"sampler": sampler}, "split": {"train": train}},
        "loss": {"margin": margin},
        "optimizer": {"learning_rate": rate},
        "model": {"hidden": hidden},
        "schedule": schedule,
    }
    config = Config.check(values)
    again = Config.check(yaml.safe_load(config.dump()))
    assert again == config
    assert not again.differences(config)


def test_reconstruction_needs_no_classes_by_default(file):
    config = Config.load(file, ["loss=reconstruction"])
    assert config.training.monitor == "val_loss"
    assert config.data.batch.sampler == "shuffled"
    own = ["training.monitor=val_map_at_r", "data.batch={sampler: balanced, classes: 3}"]
    config = Config.load(file, ["loss=reconstruction", *own, "training.epochs=3"])
    assert config.training.monitor == "val_map_at_r"
    assert (config.data.batch.sampler, config.data.batch.classes) == ("balanced", 3)
    assert Config.load(file, ["loss=cross_entropy"]).data.batch.sampler == "balanced"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.split.by=class", "training.monitor=val_accuracy"],
            "not available with data.split.by: class",
        ),
        (["data.split.by=class", "training.monitor=val_loss"], "choose val_map_at_r"),
        (["loss=reconstruction", "data.augmentation=[{name: random_crop, size: 16}]"], "crop"),
    ],
)
def test_settings_that_do_not_fit_the_loss_are_refused(file, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        Config.load(file, ["loss=cross_entropy", *overrides])
    assert "\n" not in str(caught.value)


def test_a_run_from_before_there_were_other_losses_is_read(file):
    old = {"name": "triplet_semi_hard", "margin": 0.1, "distance": "L2", "soft": False}
    config = Config.check(DIGITS | {"loss": old})
    assert not config.differences(Config.check(DIGITS | {"loss": {"margin": 0.1}}))


def test_differences_name_the_key_and_both_values():
    ours = Config.check(DIGITS)
    theirs = Config.check(DIGITS | {"loss": {"margin": 0.5}})
    assert ours.differences(theirs) == ["loss.margin: 0.2 here, 0.5 there"]


def test_the_help_names_every_key_with_its_default():
    lines = list(describe_keys(Config))
    keys = [line.split(" = ")[0] for line in lines]
    flat = Config.check(DIGITS).model_dump()

    def walk(values, prefix=""):
        for name, value in values.items():
            if isinstance(value, dict) and value and name not in ("schedule", "loss", "options"):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    assert set(walk(flat)) <= set(keys)
    assert any(line.startswith("loss[triplet_semi_hard].margin = 0.2") for line in lines)
    unexplained = [line for line in lines if line.count("  ") == 0 and ".name" not in line]
    assert not unexplained


def test_batch_norm_is_frozen_unless_the_backbone_starts_from_nothing(file):
    assert Config.load(file).model.batch_norm == "frozen"
    assert Config.load(file, ["model.weights=null"]).model.batch_norm == "trained"
    kept = Config.load(file, ["model.weights=null", "model.batch_norm=frozen"])
    assert kept.model.batch_norm == "frozen"


@pytest.mark.parametrize(
    "section",
    [
        {"model": {"backbone": "vgg16"}},
        {"loss": {"margin": 0.5}},
        {"optimizer": {"name": "sgd"}},
        {"schedule": "warmup_decay"},
        {"training": {"epochs": 1}},
    ],
    ids=lambda section: next(iter(section)),
)
def test_what_does_not_apply_to_descriptors_is_refused(section):
    name = next(iter(section))
    with pytest.raises(UserError, match=f"{name} does not apply to descriptors"):
        Config.check(DIGITS | section | {"descriptors": ["hog"]})


def test_descriptors_are_names_or_sections_and_read_back():
    given = ["hog", {"name": "visual_words", "words": 10, "grid": None}]
    config = Config.check(DIGITS | {"descriptors": given})
    assert config.descriptors[1].words == (10,)
    assert Config.check(yaml.safe_load(config.dump())) == config
    assert Config.check(DIGITS | {"descriptors": "hog"}).descriptors == config.descriptors[:1]


def test_vlad_has_fewer_words_by_default():
    vlad = {"name": "visual_words", "weighting": "vlad"}
    for section, words in ((vlad, 64), (vlad | {"words": 16}, 16), ("visual_words", 400)):
        config = Config.check(DIGITS | {"descriptors": [section]})
        assert config.descriptors[0].words == (words,)


def test_a_configuration_cannot_be_changed():
    config = Config.check(DIGITS)
    with pytest.raises(ValueError, match="frozen"):
        config.loss.margin = 1.0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_opens_with_its_command_and_is_valid(path):
    command, *_ = path.read_text().splitlines()
    relative = path.relative_to(Path(__file__).parents[2]).as_posix()
    assert command.startswith(f"# python train.py --config {relative}")
    Config.load(path)


def test_a_first_step_is_a_name_or_a_section(file, tmp_path):
    assert Config.load(file).search.two_step.name == "none"
    assert Config.load(file, ["search.two_step=svm"]).search.two_step.mode == "hard"
    soft = Config.load(file, ["search.two_step=knn", "search.two_step.mode=soft"]).search.two_step
    assert (soft.name, soft.mode, soft.run) == ("knn", "soft", None)
    config = Config.load(file, [f"search.two_step={{name: svm, run: {tmp_path}}}"])
    assert config.search.two_step.run == tmp_path
    assert Config.check(yaml.safe_load(config.dump())) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.two_step=tree", "search.two_step.name: no 'tree'"),
        ("search.two_step={run: runs/scenes}", "search.two_step.run needs search.two_step.name"),
        ("search.two_step={name: knn, mod: soft}", "did you mean 'mode'"),
        ("search.test_time_augmentation=flips", "did you mean 'flip'"),
        ("search.test_time_scales=[]", "search.test_time_scales"),
        ("search.test_time_scales=[3]", "search.test_time_scales"),
        ("search.database_augmentation=-1", "search.database_augmentation"),
    ],
)
def test_an_invalid_search_step_is_a_one_line_error(file, override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Config.load(file, [override])


def test_test_time_crops_need_resize_crop(file):
    with pytest.raises(UserError, match=r"crops needs data\.resize: crop, not stretch"):
        Config.load(file, ["search.test_time_augmentation=crops"])


def test_descriptors_have_one_scale(file):
    overrides = ["descriptors=[{name: hog}]", "search.test_time_scales=[1,0.5]"]
    with pytest.raises(UserError, match=r"search\.test_time_scales: does not apply"):
        Config.load(file, overrides)


def test_only_square_images_can_be_turned(file):
    with pytest.raises(UserError, match=r"square images, data\.image_size is 32 x 64"):
        Config.load(file, ["data.image_size=[32,64]", "search.test_time_augmentation=rotations"])
