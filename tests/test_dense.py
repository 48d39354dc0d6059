"""The dense experiment: which pixels are learned, and whole images evaluated in tiles."""

import dataclasses
import functools
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pair_files
import pytest

from configs import flow, stereo
from experiments.tasks import data, dense, matching
from experiments.tasks.psychometric import MATCHERS
from perceiver_jax import inference, pretrained
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.train.step import divide, make_eval_step


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """A tiny flow task on three images of different sizes, and weights that answer something."""
    folder = tmp_path_factory.mktemp("kitti")
    pair_files.write_kitti(folder)
    config = flow.get_config("kitti:tiny")
    config.data.data_dir, config.data.eval_batch_size = str(folder), 4
    task = dense.make_task(config)
    batch = next(task.eval_data())
    init = jax.jit(lambda b: task.model.init(jax.random.key(0), task.prepare(b, None), train=False))
    variables = init(batch)
    kernel = variables["params"]["output"]["flow"]["kernel"]  # zero at the start
    variables["params"]["output"]["flow"]["kernel"] = jax.random.normal(
        jax.random.key(1), kernel.shape
    )
    return task, batch, variables


@pytest.fixture(scope="module")
def predicted(kitti):
    task, batch, variables = kitti

    @jax.jit
    def run(variables, batch):  # the program that also draws, so that it is compiled once
        batch = task.prepare(batch, None)
        return task.predict(variables, batch), batch["size"]

    return np.asarray(run(variables, batch)[0])


def test_an_evaluation_is_the_tiled_flow_of_each_image(kitti, predicted):
    task, batch, variables = kitti
    for i, (height, width) in enumerate(batch["size"]):
        pair = batch["frames"][i, :, :height, :width]
        expected = inference.optical_flow(task.model, variables, *pair, min_overlap=4)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(
            predicted[i, :height, :width], expected, atol=2e-5 * np.abs(expected).max()
        )


def test_an_evaluation_counts_by_the_prediction_of_the_task(kitti, predicted):
    """Without compiling the model again: the step is given the prediction made before."""
    task, batch, variables = kitti
    step = make_eval_step(dataclasses.replace(task, predict=lambda v, b: jnp.asarray(predicted)))
    state = types.SimpleNamespace(variables=variables)
    got = divide(jax.device_get(step(state, jax.tree.map(jnp.asarray, batch))[0]))
    assert batch["mask"].tolist() == [True, True, True, False]
    error = np.linalg.norm(predicted - batch["field"], axis=-1)[:3]
    valid, occluded = batch["valid"][:3], batch["occluded"][:3]
    assert got["epe"] == pytest.approx(error[valid].mean(), rel=1e-5)
    assert got["epe_noc"] == pytest.approx(error[valid & ~occluded].mean(), rel=1e-5)
    images = [e[v].mean() for e, v in zip(error, valid, strict=True)]
    assert got["image_epe"] == pytest.approx(np.mean(images), rel=1e-5)
    assert 0 < got["fl_all"] < 1
    assert set(got) == {"loss"} | {
        f"{name}{which}" for name in ("epe", "image_epe", "fl_all") for which in ("", "_noc")
    }


def test_sintel_counts_all_pixels_and_the_valid_ones_beside(tmp_path):
    pair_files.write_sintel(tmp_path)
    config = flow.get_config("sintel:tiny")
    config.data.data_dir, config.data.eval_batch_size = str(tmp_path), 6
    task = dense.make_task(config)
    batch = next(task.eval_data())
    assert batch["known"].sum() > batch["valid"].sum()
    for name, counted in (("epe", "known"), ("epe_valid", "valid")):
        _, count = task.metrics[name](batch["field"] + 1, batch)
        assert count == batch[counted].sum()


@pytest.mark.parametrize("variant", [*flow.SETS, "autoflow", "autoflow_recipe"])
def test_the_configs_are_the_released_model(variant):
    config = flow.get_config(variant)
    assert build(config.model.to_dict()) == pretrained.released("flow").build()


def test_a_config_of_generated_pairs_reads_files_too(tmp_path):
    """No command line empties a dict: the options of the generator are left alone, and told."""
    pair_files.write_masked(tmp_path)
    config = stereo.get_config("textured_small:tiny")
    config.data.source, config.data.data_dir = "middlebury", str(tmp_path)
    config.data.train_split, config.data.eval_split = "", "trainingQ"
    config.data.eval = config.data.eval.replace("(12, 12)", "(20, 31)")
    told = data.open_data(config)
    assert len(told.eval_source) == 2 and told.first_examples(1)["frames"].shape[2:4] == (20, 31)
    assert told.description[-1] == "source_options: not read, middlebury has none"
    config = stereo.get_config("textured_small:tiny")
    assert not any("not read" in line for line in data.open_data(config).description)


def test_a_disparity_has_the_metrics_of_stereo():
    names = set(dense.field_metrics(channels=1, with_occlusions=False))
    assert names == {"epe", "image_epe", "d1_all", "bad_0.5", "bad_1", "bad_2", "bad_3"}


def batch_of_windows():
    rng = np.random.default_rng(0)
    numbers = np.arange(2 * 48).reshape(2, 6, 8, 1)
    valid = rng.random((2, 6, 8)) < 0.3
    return {
        "frames": rng.integers(0, 256, (2, 2, 6, 8, 3), np.uint8),
        "field": np.where(valid[..., None], numbers, -1).astype(np.float32),
        "valid": valid,
        "occluded": valid & (numbers[..., 0] % 2 == 0),
        "mask": np.ones(2, bool),
    }


def test_training_chooses_pixels_of_each_example_valid_ones_first():
    batch = batch_of_windows()
    prepare = jax.jit(
        functools.partial(dense.prepare_pairs, tile=(6, 8), num_queries=20),
    )
    got = jax.device_get(prepare(batch, jax.random.key(0)))
    assert got["indices"].shape == got["valid"].shape == (2, 20)
    for i in range(2):
        known = np.flatnonzero(batch["valid"][i])
        assert len(set(got["indices"][i])) == 20 > len(known)
        assert set(known) <= set(got["indices"][i])
        np.testing.assert_array_equal(got["valid"][i], np.isin(got["indices"][i], known))
        flat = batch["field"][i].reshape(-1)
        np.testing.assert_array_equal(got["field"][i, :, 0], flat[got["indices"][i]])
        occluded = batch["occluded"][i].reshape(-1)
        np.testing.assert_array_equal(got["occluded"][i], occluded[got["indices"][i]])
    other = prepare(batch, jax.random.key(1))["indices"]
    assert not np.array_equal(other, got["indices"])
    assert not np.array_equal(got["indices"][0], got["indices"][1])
    assert got["frames"].min() >= -1 and got["frames"].max() <= 1


def test_without_a_number_of_queries_all_pixels_are_learned():
    batch = batch_of_windows()
    got = dense.prepare_pairs(batch, jax.random.key(0), tile=(6, 8), num_queries=0)
    assert "indices" not in got
    np.testing.assert_array_equal(got["field"], batch["field"])


def test_a_window_of_another_size_says_what_to_write():
    with pytest.raises(ValueError, match=r"shape=\(6, 9\), not of \(6, 8\).*crop_pair\(6, 9\)"):
        dense.prepare_pairs(batch_of_windows(), jax.random.key(0), tile=(6, 9), num_queries=4)


def test_pictures_show_each_image_in_its_own_size(kitti):
    task, batch, variables = kitti
    figure = task.plots(variables, 4)["predictions"]
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 4 * 7
    assert titles[:4] == ["first", "second", "truth", "prediction"]
    assert titles[4].startswith("error ") and titles[5] == "occluded"
    assert figure.axes[7].images[0].get_array().shape == (*batch["size"][1], 3)


def test_an_evaluation_on_smaller_images(tmp_path):
    """What is predicted of images shrunk by 2 counts in the pixels of the images themselves."""
    pair_files.write_middlebury_2014(tmp_path)
    config = stereo.get_config("middlebury2014:tiny")
    config.data.data_dir = str(tmp_path)
    task = dense.make_task(config.lock())
    batch = task.prepare(next(task.eval_data()), None)
    model = types.SimpleNamespace(
        output=task.model.output,
        apply=lambda variables, batch, train: batch["frames"][:, 0, ..., :1],  # the left view
    )
    settings = {"min_overlap": 4, "chunk_size": 0}
    found = dense.predict_whole(model, {}, batch, shrink=2, **settings)
    left = np.asarray(batch["whole"][0, 0, :20, :28, :1])
    small = left.reshape(10, 2, 14, 2, 1).mean(axis=(1, 3))
    wanted = 2 * jax.image.resize(small, left.shape, "linear")
    np.testing.assert_allclose(found[0, :19, :27], wanted[:19, :27], atol=1e-5)
    assert found.shape == (*batch["whole"].shape[:1], 32, 48, 1)
    same = dense.predict_whole(model, {}, batch, shrink=1, **settings)
    np.testing.assert_allclose(same[0, :20, :28], left, atol=1e-6)
    config = stereo.get_config("middlebury2014:tiny")
    config.data.data_dir, config.dense.shrink = str(tmp_path), 5
    with pytest.raises(
        ConfigError, match=r"config\.dense\.shrink=5 does not divide the \(32, 48\)"
    ):
        dense.make_task(config.lock())


def test_a_model_beside_matchers():
    rng = np.random.default_rng(0)
    right = cv2.GaussianBlur(rng.integers(0, 256, (40, 70, 3), np.uint8), (3, 3), 0)
    frames = np.stack([np.roll(right, 4, axis=1), right])
    truth = np.full((40, 70, 1), 4, np.float32)
    valid = np.zeros((40, 70), bool)
    valid[8:-8, 16:-16] = True
    truth[~valid] = np.nan
    found = matching.errors([frames] * 2, [truth] * 2, [valid] * 2, [truth * 0, truth * 0 + 6])
    rows = {row.pop("method"): row for row in found}
    assert rows["model"] == {"epe": 3, "bad_0.5": 1, "bad_1": 1, "bad_2": 0.5, "bad_3": 0.5}
    assert rows["constant"]["epe"] == 0 and list(rows) == ["model", *MATCHERS, "constant"]
    for name in ("sgbm", "block_matching"):
        assert rows[name]["epe"] < 0.3, rows
    (nothing, *_) = matching.errors([frames], [truth], [valid & False], [truth])
    assert np.isnan(nothing["epe"])
