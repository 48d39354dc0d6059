"""Few labelled digits: what is drawn, which runs there are, and the table."""

import csv

import numpy as np
import pytest

from experiments import check_config, transfer
from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.train.workdir import as_json, make_ours


def test_few_digits_are_equally_many_of_each_class():
    few = transfer.few_digits("train", examples=30, draw=1)
    np.testing.assert_array_equal(np.bincount(few.arrays["label"]), [3] * 10)
    other = transfer.few_digits("train", examples=30, draw=2)
    assert np.any(few.arrays["image"] != other.arrays["image"])
    assert len(transfer.few_digits("test")) == 360
    with pytest.raises(ConfigError, match=r"examples=25 is not allowed: write a multiple of 10"):
        transfer.few_digits("train", examples=25)


def test_the_nearest_neighbour():
    image = np.array([0, 10, 200], np.uint8)[:, None, None, None]
    known = Arrays({"image": image, "label": np.array([0, 1, 2])})
    asked = Arrays({"image": image + np.uint8(4), "label": np.array([0, 1, 1])})
    assert transfer.neighbour(known, asked) == pytest.approx(2 / 3)


def test_the_runs_and_the_table(tmp_path, monkeypatch):
    seen = {}

    def run(config, workdir):
        check_config(config)
        seen[workdir.name] = config
        return {"accuracy": 0.5, "loss": 1.0, "commit": "abc"}

    monkeypatch.setattr(transfer, "run", run)
    rows = list(transfer.rows_of(tmp_path, "tfds", range(3), tiny=True))
    assert len(rows) == 3 * 3 * 4 and len(seen) == 3 * (1 + 3 * 3)
    assert seen["mnist_1"].data.data_dir == "tfds" and seen["mnist_1"].seed == 1
    frozen = seen["frozen_30_2"]
    assert frozen.start.weights == str(tmp_path / "mnist_2")
    assert frozen.start.fresh == ("output",) and frozen.optimizer.multipliers[0][1] == 0.0
    assert frozen.data.train_source_options.to_dict() == {"examples": 30, "draw": 2}
    assert seen["whole_30_2"].optimizer.multipliers == () and not seen["scratch_10_0"].start.weights
    transfer.write(rows, tmp_path)
    with (tmp_path / "transfer.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["method"] for row in table[:4]] == ["neighbour", "scratch", "whole", "frozen"]
    assert float(table[0]["accuracy"]) > 0.3 and (tmp_path / "transfer.png").stat().st_size > 5000


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    config = transfer.tuning("scratch", 10, 0, "", tiny=True)
    make_ours(tmp_path / "config.json", as_json(config))
    (tmp_path / "result.json").write_text('{"accuracy": 0.25}')
    monkeypatch.setattr(transfer.loop, "train", pytest.fail)
    assert transfer.run(config, tmp_path) == {"accuracy": 0.25}
    with pytest.raises(ValueError, match=r"config.seed: 0 -> 1"):
        transfer.run(transfer.tuning("scratch", 10, 1, "", tiny=True), tmp_path)
