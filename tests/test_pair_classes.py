"""Pairs of views and a class: one eye against two in the same experiment with the same model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import stereo
from experiments.tasks import image
from perceiver_jax.build import build

NUMBERS = {"num_classes": 10, "mean": (127.5,) * 3, "std": (127.5,) * 3, "label_smoothing": 0.0}


def parameters(eyes):
    """Shapes by name of `depth_digits` with these eyes."""
    config = stereo.get_config("depth_digits:tiny")
    config.model.input.eyes = eyes
    model = build(config.model.to_dict())
    batch = {"frames": jnp.zeros((1, 2, 12, 12, 3))}
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def test_one_eye_and_two_are_the_same_model():
    both, left, twice = (parameters(eyes) for eyes in ("both", "left", "left_twice"))
    assert both == twice
    different = {name for name in both if both[name] != left[name]}
    assert both.keys() == left.keys() and different == {"['input']['project']['kernel']"}
    assert both[different.pop()][0] == 2 * 7 * 3


def test_smallnorb_and_its_control_differ_by_the_eyes_alone():
    both, mono = (stereo.get_config(name) for name in ("smallnorb", "smallnorb_mono"))
    assert (both.model.input.eyes, mono.model.input.eyes) == ("both", "left")
    mono.model.input.eyes = "both"
    assert both.to_dict() == mono.to_dict()


def test_views_are_normalised_and_never_mixed():
    batch = {"frames": np.full((2, 2, 4, 4, 3), 255, np.uint8), "label": np.array([3, 0])}
    prepared = image.prepare_images(batch, jax.random.key(0), mix_alpha=0.0, **NUMBERS)
    np.testing.assert_array_equal(prepared["frames"], np.ones((2, 2, 4, 4, 3)))
    assert prepared["target"].argmax(axis=1).tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"mix_alpha mixes images; write 0\.0 for pairs"):
        image.prepare_images(batch, jax.random.key(0), mix_alpha=0.2, **NUMBERS)


def test_pictures_show_both_views():
    task = image.make_task(stereo.get_config("depth_digits:tiny").lock())
    batch = next(task.eval_data())
    prepared = task.prepare(batch, None)
    init = jax.eval_shape(lambda: task.model.init(jax.random.key(0), prepared, train=False))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), init)
    figures = task.plots(variables, 3)
    assert set(figures) == {"predictions", "attention_cross_attend"}
    shown = figures["predictions"].axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, np.concatenate(list(batch["frames"][0]), axis=1))
    left = figures["attention_cross_attend"].axes[0].images[0].get_array()
    np.testing.assert_array_equal(left, batch["frames"][0, 0])
