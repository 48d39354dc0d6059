"""The psychometric curve: what is measured on stereograms of other kinds, and how it is shown."""

import csv
import functools

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs import stereo
from experiments import plot
from experiments.tasks import dense, psychometric
from perceiver_jax import plots
from perceiver_jax.datasets import registry

OPTIONS = {"size": (24, 24), "disparity": (-2.0, 2.0)}


@pytest.fixture(scope="module")
def rows():
    """Of block matching in the model's place: a known matcher."""

    def predict(batch):
        return np.stack([psychometric.block_matching(f, -2, 2) for f in batch["frames"]])[..., None]

    measured = psychometric.measure(load, predict, count=24, disparity=(-2.0, 2.0))
    return {row["condition"]: row for row in measured}


def load(changed):
    return registry.load("stereograms", "test", options=OPTIONS | changed)


def test_block_matching_finds_a_whole_disparity():
    right = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    for disparity in (-2, 0, 3):
        frames = np.stack([np.roll(right, disparity, axis=1), right])
        got = psychometric.block_matching(frames, -3.0, 3.0)
        np.testing.assert_array_equal(got[:, 6:-6], disparity)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(psychometric.block_matching(frames, -3.0, 2.0)[:, 6:-6], 3)


@pytest.mark.parametrize("name", ["sgbm", "bm"])
def test_opencv_finds_a_disparity(name):
    match = psychometric.MATCHERS[name]
    right = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    for disparity in (-2, 0, 3):
        got = match(np.stack([np.roll(right, disparity, axis=1), right]), -3.0, 3.0)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[6:-6, 8:-8], disparity, atol=0.5)
    beyond = match(np.stack([np.roll(right, 3, axis=1), right]), -3.0, 2.0)
    assert beyond.max() <= 2


def test_opencv_beside_block_matching(rows):
    """On these small pairs StereoSGBM is the best of the three; StereoBM searches too much."""
    full, none = rows["correlation 1"], rows["correlation 0"]
    assert full["sgbm"] < full["block_matching"] < full["bm"] < full["constant"]
    assert none["sgbm"] > none["constant"] and none["bm"] > none["constant"]


def test_a_matcher_loses_depth_with_correlation(rows):
    errors = [rows[f"correlation {c:g}"]["model"] for c in (1, 0.5, 0)]
    assert errors[0] < 0.4 < errors[1] < errors[2]
    assert rows["correlation 1"]["slope"] > 0.7
    assert abs(rows["correlation 0"]["slope"]) < 0.1
    for row in rows.values():
        assert row["model"] == row["block_matching"]


def test_controls(rows):
    full = rows["correlation 1"]
    swapped = rows["eyes swapped"]  # whose truth has the other sign
    assert swapped["slope"] > 0.7 and swapped["model"] < 0.5 * swapped["constant"]
    for name in ("left eye twice", "2 rows lower", "left eye alone"):
        assert abs(rows[name]["slope"]) < 0.15
    assert rows["anticorrelated"]["model"] > rows["half-matched"]["model"] > 2 * full["model"]


def test_the_table_and_the_curve_are_written(rows, tmp_path):
    figure = plots.psychometric_curve(list(rows.values()))
    curve, controls = figure.axes
    drawn = curve.lines[0].get_xydata()
    np.testing.assert_array_equal(drawn[:, 0], psychometric.CORRELATIONS)
    assert drawn[-1, 1] == rows["correlation 1"]["model"]
    labels = [text.get_text() for text in controls.get_xticklabels()]
    assert labels == list(psychometric.CONTROLS)
    paths = plot.write(tmp_path / "plots", {"curve": figure, "table": list(rows.values())})
    assert [path.name for path in paths] == ["curve.png", "table.csv"]
    with paths[1].open() as file:
        read = list(csv.DictReader(file))
    assert [row["condition"] for row in read] == list(rows)
    assert float(read[-1]["model"]) == rows["2 rows lower"]["model"]


def test_a_run_on_stereograms_has_the_curve(monkeypatch):
    monkeypatch.setattr(dense, "PSYCHOMETRIC", 2)
    task = dense.make_task(stereo.get_config("rds:tiny").lock())
    monkeypatch.setattr(jax, "jit", lambda f: f)
    zero = np.zeros((2, 12, 12, 1), np.float32)
    predict = lambda variables, batch: zero[: len(batch["whole"])]  # noqa: E731
    args = list(task.plots.args)
    args[2] = predict
    figures = functools.partial(dense.draw, *args)({}, 2)
    assert list(figures) == ["predictions", "psychometric", "psychometric_table"]
    assert isinstance(figures["psychometric"], Figure)
    table = {row["condition"]: row for row in figures["psychometric_table"]}
    assert table["correlation 1"]["slope"] == 0 and table["correlation 1"]["model"] > 0
