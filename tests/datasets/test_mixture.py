"""Several sources as one: shares, resuming, processes, and what its parts are called."""

import numpy as np
import pytest
from tfds_files import write_texts

from configs import language
from experiments import check_config
from experiments.tasks.data import open_data
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import eval_batches, parse, train_batches
from perceiver_jax.datasets import registry

LINE = parse("first_window(4) | keep('text', 'part', 'task')")
PARTS = {
    "long": {"source": "texts", "options": {"length": 2}, "splits": {"train": "a.txt"}},
    "short": {"source": "texts", "options": {"length": 2}, "splits": {"train": "b.txt"}},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"a{i}" for i in range(10)) * 4)  # 40 pieces
    (tmp_path / "b.txt").write_text("b0b1b2b3b4")  # 5 pieces
    return tmp_path


def load(folder, parts=PARTS, **options):
    options = {"parts": parts, **options}
    return registry.load("mixture", "train", data_dir=str(folder), options=options)


def test_without_shares_each_example_is_read_once(folder):
    source = load(folder)
    assert (len(source), source.counts, repr(source)) == (45, [40, 5], "mixture[train]")
    assert [source.locate(i) for i in (0, 39, 40, 44)] == [(0, 0), (0, 39), (1, 0), (1, 4)]
    with pytest.raises(IndexError):
        source[45]
    batches = eval_batches(source, LINE, batch_size=9, readers="threads:0")
    parts = np.concatenate([batch["part"] for batch in batches])
    np.testing.assert_array_equal(parts, [0] * 40 + [1] * 5)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ({"long": 0.75, "short": 0.25}, [40, 13]),  # the short one more than twice
        ({"long": 1.0, "short": 99.0}, [40, 3960]),
        ({"long": 39.0, "short": 1.0}, [195, 5]),  # all of the short one at least once
    ],
)
def test_a_pass_holds_all_examples_in_the_given_shares(folder, shares, counts):
    source = load(folder, shares=shares)
    assert source.counts == counts
    places = [source.locate(i) for i in range(len(source))]
    assert len(set(places)) == 45
    again = np.bincount([row for part, row in places if part == 1])
    assert again.max() - again.min() <= 1


def test_batches_follow_from_seed_and_step_for_any_number_of_processes(folder):
    source = load(folder, shares={"long": 0.7, "short": 0.3})
    options = {"batch_size": 40, "seed": 3, "readers": "threads:0"}
    batches = train_batches(source, LINE, **options)
    read = [next(batches) for _ in range(10)]
    resumed = next(train_batches(source, LINE, start_step=7, **options))
    parts = [
        next(train_batches(source, LINE, start_step=7, process_index=i, process_count=4, **options))
        for i in range(4)
    ]
    for field, value in read[7].items():
        np.testing.assert_array_equal(resumed[field], value)
        np.testing.assert_array_equal(np.concatenate([p[field] for p in parts]), value)
    share = np.mean([batch["part"] for batch in read])
    assert 0.25 < share < 0.35
    first = np.concatenate([batch["text"][:, 0] for batch in read])
    np.testing.assert_array_equal(first == ord("b"), np.concatenate([b["part"] for b in read]))


def test_names_of_splits_fields_and_tasks(folder):
    parts = {
        "x": {**PARTS["long"], "fields": {"first": "text", "second": ""}, "task": "z"},
        "y": PARTS["short"],
        "w": {**PARTS["short"], "splits": {"train": ""}, "task": "z"},
    }
    source = load(folder, parts)
    assert (source.parts, source.names, source.tasks) == (["x", "y"], ["w", "x", "y"], ["y", "z"])
    first, last = source[0], source[len(source) - 1]
    assert first["first"] == first["text"] and first["second"] is None
    assert (first["part"], first["task"], last["part"], last["task"]) == (1, 1, 2, 0)
    parts["x"]["fields"]["first"] = "body"
    with pytest.raises(
        ValueError, match=r"no field 'body', but \['text'\]: see .*parts\.x\.fields"
    ):
        load(folder, parts)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": {}}, "names no part"),
        ({}, r"source_options.parts is missing"),
        ({"parts": {"a": {"sourse": "texts"}}}, r"parts\.a has no field 'sourse'"),
        ({"parts": {"a": {"source": "texts"}}}, r"parts\.a: .*length is missing"),
        (
            {"parts": PARTS, "shares": {"long": 0.0, "short": 1.0}},
            r"shares.long=0.0 is not allowed",
        ),
        (
            {"parts": PARTS, "shares": {"lng": 1.0}},
            r"a part 'lng', .*choose from \['long', 'short'\]",
        ),
    ],
)
def test_wrong_options_are_told_before_anything_is_opened(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.check_options("mixture", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": {"long": 1.0}}, r"write a share for each of \['long', 'short'\]"),
        (
            {"parts": {"long": {**PARTS["long"], "splits": {"train": ""}}}},
            r"no part of \['long'\] has this split",
        ),
        ({"parts": {"a": {"source": "nosuch"}}}, "no dataset 'nosuch'"),
    ],
)
def test_parts_without_data_are_told_by_name(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


def test_fake_data_have_the_fields_of_the_first_part():
    source = registry.load("blank:mixture", "train", options={"parts": PARTS})
    assert {"text", "part", "task"} <= set(source[0])


def test_the_released_model_reads_two_sets(tmp_path):
    """C4 for 70 % and Wikipedia for 30 %; the evaluation reads C4 alone."""
    write_texts(tmp_path, {"train": ["c"] * 300, "validation": ["c"] * 20})
    write_texts(tmp_path, {"train": ["w"] * 200}, "wikipedia/20230601.en", "1.0.0")
    config = language.get_config("bytes:tiny")
    config.data.data_dir = str(tmp_path)
    check_config(config)
    data = open_data(config)
    lines = "\n".join(data.description)
    assert "c4 c4/en[train] by 10, 30 examples, 70.1%" in lines
    assert "wikipedia wikipedia/20230601.en[train] by 10, 20 examples, 29.9%" in lines
    assert data.eval_source.parts == ["c4"] and len(data.eval_source) == 2
