"""Fine-tuning on few labels: what is drawn, which runs there are, and the tables."""

import csv
import importlib

import numpy as np
import pytest
from calling import call
from text_files import write_wordnet

from experiments import check_config, command
from experiments.transfer import digits, glosses, table
from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.wordnet import Subjects
from perceiver_jax.train.workdir import as_json, make_ours


def test_few_digits_are_equally_many_of_each_class():
    few = digits.few_digits("train", examples=30, draw=1)
    np.testing.assert_array_equal(np.bincount(few.arrays["label"]), [3] * 10)
    other = digits.few_digits("train", examples=30, draw=2)
    assert np.any(few.arrays["image"] != other.arrays["image"])
    assert len(digits.few_digits("test")) == 360
    with pytest.raises(ConfigError, match=r"examples=25 is not allowed: write a multiple of 10"):
        digits.few_digits("train", examples=25)


def test_the_nearest_neighbour():
    image = np.array([0, 10, 200], np.uint8)[:, None, None, None]
    known = Arrays({"image": image, "label": np.array([0, 1, 2])})
    asked = Arrays({"image": image + np.uint8(4), "label": np.array([0, 1, 1])})
    assert digits.neighbour(known, asked) == pytest.approx(2 / 3)


@pytest.fixture
def seen(monkeypatch):
    """The configs of the runs by name, which are checked and not trained."""
    seen = {}

    def run(config, workdir):
        check_config(config)
        seen[workdir.name] = config
        result = {"accuracy": 0.5, "loss": 1.0, "seconds": 9.0, "commit": "abc"}
        return result | {"noun_accuracy": 0.4, "verb_accuracy": 0.3}

    for study in (digits, glosses):
        monkeypatch.setattr(study, "run", run)
    return seen


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_runs_and_the_table_of_digits(seen, tmp_path):
    rows = list(digits.rows_of(tmp_path, "tfds", range(3), tiny=True))
    assert len(rows) == 3 * 3 * 4 and len(seen) == 3 * (1 + 3 * 3)
    assert seen["mnist_1"].data.data_dir == "tfds" and seen["mnist_1"].seed == 1
    frozen = seen["frozen_30_2"]
    assert frozen.start.weights == str(tmp_path / "mnist_2")
    assert frozen.start.fresh == ("output",) and frozen.optimizer.multipliers[0][1] == 0.0
    assert frozen.data.train_source_options.to_dict() == {"examples": 30, "draw": 2}
    assert seen["whole_30_2"].optimizer.multipliers == () and not seen["scratch_10_0"].start.weights
    command.write_table(tmp_path / "transfer.csv", rows)
    written = read(tmp_path / "transfer.csv")
    assert [row["method"] for row in written[:4]] == ["neighbour", "scratch", "whole", "frozen"]
    assert float(written[0]["accuracy"]) > 0.3
    table.draw(rows, digits.CURVE).savefig(tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 5000


def test_the_command_compares_glosses_with_baselines_and_resumes(
    seen, tmp_path, monkeypatch, capsys
):
    write_wordnet(tmp_path / "dict", count=600)
    flags = ["--study=glosses", f"--workdir={tmp_path / 'runs'}", f"--data_dir={tmp_path / 'dict'}"]
    flags += [f"--output={tmp_path}", "--seeds=2", "--tiny"]
    for _ in range(2):
        call("experiments.transfer.__main__", *flags, monkeypatch=monkeypatch, capsys=capsys)
        monkeypatch.setattr(glosses, "fit", pytest.fail)
    rows = read(tmp_path / "transfer_glosses.csv")
    assert len(rows) == 2 * 3 * 6 and len(seen) == 2 + 2 * 3 * 3
    assert (tmp_path / "transfer_glosses.png").stat().st_size > 5000
    for seed in (0, 1):
        scratch = seen[f"scratch_0.01_{seed}"].to_dict()
        assert scratch.pop("start")["weights"] == ""
        assert scratch["data"]["train_source_options"] == {"share": 0.01, "draw": seed}
        assert (scratch["seed"], scratch["data"]["eval_split"]) == (seed, "test")
        for variant in ("words", "pretrain"):
            tuned = seen[f"{variant}_0.01_{seed}"].to_dict()
            start = tuned.pop("start")
            assert start["weights"] == str(tmp_path / "runs" / variant)
            assert start["fresh"] == ("^output/",) and scratch == tuned
    labels = {(row["share"], row["seed"]): int(row["labels"]) for row in rows}
    assert labels["1.0", "0"] == labels["1.0", "1"] > 9 * labels["0.1", "0"] * 0.8


def test_steps_are_equal_from_scratch_and_pretrained():
    for steps in glosses.STEPS.values():
        for variant in ("nouns", "both", "verbs"):
            config = glosses.tuning(variant, steps, 0, "", "", tiny=False)
            assert (config.steps, config.optimizer.schedule.warmup_steps) == (steps, steps // 10)


def test_one_model_with_two_queries_is_beside_two_models(seen, tmp_path):
    write_wordnet(tmp_path / "dict", count=300)
    folder = str(tmp_path / "dict")
    rows = list(glosses.tasks_of(tmp_path, folder, range(1), tiny=True))
    assert [(row["method"], row["task"], row["accuracy"]) for row in rows] == [
        ("one model", "noun", 0.4),
        ("one model", "verb", 0.3),
        ("two models", "noun", 0.5),
        ("two models", "verb", 0.5),
    ]
    nouns = seen["words_1_0"]
    list(glosses.rows_of(tmp_path, folder, range(1), tiny=True))
    assert seen["words_1_0"] == nouns  # trained once for both studies
    assert seen["both_0"].data.train_source_options.shares.to_dict() == {"noun": 0.5, "verb": 0.5}
    assert {seen[name].start.weights for name in ("both_0", "words_1_0", "verbs_0")} == {
        str(tmp_path / "words")
    }


def test_baselines_learn_what_words_tell(tmp_path):
    """The last word of these glosses is the name of the class, by which bytes tell many too."""
    write_wordnet(tmp_path, count=1200)
    train, test = (Subjects(split, str(tmp_path)) for split in ("train", "test"))
    found = {name: glosses.fit(build(), train, test) for name, build in glosses.BASELINES.items()}
    accuracy = {name: result["accuracy"] for name, result in found.items()}
    assert accuracy["tfidf"] > 0.95 and accuracy["bytes"] > 0.5 and accuracy["majority"] < 0.15


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    config = digits.tuning("scratch", 10, 0, "", tiny=True)
    make_ours(tmp_path / "config.json", as_json(config))
    (tmp_path / "result.json").write_text('{"accuracy": 0.25}')
    monkeypatch.setattr(table.loop, "train", pytest.fail)
    assert table.run(config, tmp_path) == {"accuracy": 0.25}
    with pytest.raises(ValueError, match=r"config.seed: 0 -> 1"):
        table.run(digits.tuning("scratch", 10, 1, "", tiny=True), tmp_path)


def test_the_command_has_the_studies_that_it_names():
    command = importlib.import_module("experiments.transfer.__main__")
    assert all(f"    {study} " in command.__doc__ for study in command.STUDIES)
