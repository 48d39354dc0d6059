"""Figures say what their arrays say."""

import numpy as np

from perceiver_jax import plots


def test_training_curves_have_a_panel_per_metric_and_skip_what_is_not_finite():
    records = [{"step": s, "kind": "train", "loss": 1 / s, "l2": 1.0} for s in range(1, 9)]
    records += [{"step": 8, "kind": "train", "loss": None, "l2": 1.0}]
    records += [{"step": 8, "kind": "eval", "loss": 0.25, "accuracy": 0.5}]
    figure = plots.training_curves(records)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["loss", "l2", "accuracy"]
    loss = figure.axes[0]
    assert len(loss.lines) == 3  # training, its running mean, evaluation
    assert len(loss.lines[0].get_xdata()) == 8
    assert [text.get_text() for text in loss.texts] == ["0.25"]


def test_running_mean():
    np.testing.assert_allclose(plots.running_mean(np.ones(50)), 1)
    values = np.arange(100.0)
    smooth = plots.running_mean(values)
    np.testing.assert_allclose(smooth[2:-2], values[2:-2])
    assert smooth[0] == 1.0  # the mean of 0, 1, 2


def test_prediction_grid_names_what_is_wrong():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.75, 0.25]])
    figure = plots.prediction_grid(images, logits, np.array([0, 1, 1]), ["cat", "dog"])
    assert [a.get_title() for a in figure.axes] == ["cat 90%", "dog 80%", "cat 75%\nis dog"]
    colours = [a.title.get_color() for a in figure.axes]
    assert colours == [plots.RIGHT, plots.RIGHT, plots.WRONG]


def test_attention_maps_choose_the_focused_latents_and_draw_their_weights():
    images = np.zeros((2, 6, 6, 3), np.uint8)
    maps = np.full((2, 5, 3, 3), 1 / 9)
    for focused in (1, 4):
        maps[:, focused] = np.eye(3)[focused % 3][None, :, None] * np.ones((3, 3)) / 3
    figure = plots.attention_maps(images, maps, max_latents=2)
    titles = [a.get_title() for a in figure.axes[:4]]
    assert titles == ["image", "latent 1", "latent 4", "mean of all"]
    np.testing.assert_allclose(figure.axes[1].images[-1].get_array(), maps[0, 1])
    np.testing.assert_allclose(figure.axes[7].images[-1].get_array(), maps[1].mean(axis=0))


def test_colours():
    flow = np.array([[[24, 0], [0, 0], [-24, 0], [99, 0], [12, 0], [0, 24]]], np.float32)
    right, still, left, fast, half, down = plots.flow_colours(flow)[0].tolist()
    assert right == fast == [255, 0, 0]
    assert still == [255, 255, 255]
    assert left == [0, 255, 255]
    assert half == [255, 128, 128]
    assert down[1] == 255 > down[0] > down[2] == 0, "a quarter turn: yellow-green"
