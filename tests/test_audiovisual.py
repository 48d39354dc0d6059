"""Audio-visual digits: one model, evaluated with both modalities and with each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tfds_files import write_spoken_digits, write_tfds

from configs import av_digits
from experiments.tasks import audiovisual
from experiments.tasks.data import TaskData


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)
    images = [(rng.integers(0, 256, (28, 28, 1), np.uint8), "png", i % 10) for i in range(4)]
    write_tfds(folder, "mnist", "3.0.1", {"train": images, "test": images})
    write_spoken_digits(folder)
    config = av_digits.get_config("tiny")
    config.data.data_dir = str(folder)
    config.data.eval_batch_size = 4
    return config


@pytest.fixture(scope="module")
def batch(config):
    return next(audiovisual.make_task(config).eval_data())


@pytest.fixture(scope="module")
def variables(config, batch):
    """Of small numbers, none of them zero."""
    task = audiovisual.make_task(config)
    prepared = task.prepare(batch, None)
    shapes = jax.eval_shape(lambda: task.model.init(jax.random.key(0), prepared, train=False))
    rng = np.random.default_rng(0)
    result = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32), shapes)
    return result | {"batch_stats": jax.tree.map(jnp.abs, result["batch_stats"])}


def noise(sound):
    return np.random.default_rng(1).uniform(-1, 1, sound.shape).astype(np.float32)


def test_what_is_hidden_has_no_say(config, batch, variables):
    """Each example beside the same with another image, and with another sound."""
    config = config.copy_and_resolve_references()
    config.audiovisual.eval_hidden = ("audio",)
    task = audiovisual.make_task(config)
    four = {name: np.repeat(x[:1], 4, axis=0) for name, x in batch.items()}
    four["image"][1] = 255 - four["image"][1]
    four["audio"][2] = noise(four["audio"][2])
    logits = np.asarray(jax.jit(task.predict)(variables, task.prepare(four, None)))
    changed = np.abs(logits - logits[:1]).max(axis=1) > 1e-5
    np.testing.assert_array_equal(changed, [False, True, False, False])
    assert task.description[-2] == "eval: hidden from the model: audio"


def test_targets_are_smoothed_in_training_only_and_nothing_is_mixed(config, batch):
    task = audiovisual.make_task(config)
    trained, evaluated = task.prepare(batch, jax.random.key(0)), task.prepare(batch, None)
    np.testing.assert_array_equal(trained["image"], evaluated["image"])
    np.testing.assert_array_equal(evaluated["target"].max(axis=1), 1)
    np.testing.assert_allclose(trained["target"].max(axis=1), 0.91)


def test_the_picture_has_a_guess_of_all_and_of_each_alone(config, batch, variables):
    """Two examples that differ in their sound only: the image alone says the same of both."""
    two = {name: np.repeat(x[:1], 2, axis=0) for name, x in batch.items()}
    two["audio"][1] = noise(two["audio"][1])
    task_data = TaskData(None, lambda: (x for x in [two]), (), None)
    spec, prepare = config.model.to_dict(), audiovisual.make_task(config).prepare
    drawn = audiovisual.draw(spec, prepare, task_data, variables, 2)
    axes = drawn["probabilities"].axes
    titles = [a.get_title() for a in axes]
    assert titles == ["", "all", "audio alone", "image alone", "", "", "", ""]
    heights = np.array([[bar.get_height() for bar in a.patches] for a in axes if a.patches])
    np.testing.assert_allclose(heights.sum(axis=1), 1, rtol=1e-5)
    same = np.isclose(heights[:3], heights[3:], atol=1e-5).all(axis=1)
    np.testing.assert_array_equal(same, [False, False, True])
    assert sorted(drawn["attention_mass_table"][0]) == ["audio", "cross_attend", "image", "latent"]
