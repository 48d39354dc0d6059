"""Figures say what their arrays say."""

import matplotlib.colors
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


def test_cost_curves_have_a_curve_per_contender_and_mark_what_has_no_figure():
    rows = [
        {"case": f"{n}", "phase": phase, "contender": contender, "inputs": n}
        | {"median_seconds": n / speed, "temporaries_bytes": 100 * n}
        for phase in ("forward", "gradient")
        for contender, speed, largest in (("ours", 80, 4096), ("dense", 10, 1024))
        for n in (4096, 256, 1024)
        if n <= largest
    ]
    rows.append({"case": "4096", "phase": "gradient", "contender": "dense"})  # was refused
    figure = plots.cost_curves(rows)
    time = figure.axes[1]
    assert [a.get_title() for a in figure.axes] == ["forward", "gradient"] * 2
    assert time.get_xscale() == time.get_yscale() == "log"
    ours, dense, refused = time.lines
    np.testing.assert_allclose(ours.get_ydata(), [256 / 80, 1024 / 80, 4096 / 80])
    np.testing.assert_array_equal(dense.get_xdata(), [256, 1024])
    np.testing.assert_array_equal(refused.get_xdata(), [4096])
    assert len(figure.axes[0].lines) == 2
    np.testing.assert_array_equal(figure.axes[2].lines[1].get_ydata(), [25600, 102400])


def test_colours():
    flow = np.array([[[24, 0], [0, 0], [-24, 0], [99, 0], [12, 0], [0, 24]]], np.float32)
    right, still, left, fast, half, down = plots.flow_colours(flow)[0].tolist()
    assert right == fast == [255, 0, 0]
    assert still == [255, 255, 255]
    assert left == [0, 255, 255]
    assert half == [255, 128, 128]
    assert down[1] == 255 > down[0] > down[2] == 0, "a quarter turn: yellow-green"


def test_a_field_grid_has_one_scale_per_row_and_greys_what_is_unknown():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    truth = np.zeros((4, 6, 2), np.float32)
    truth[..., 0] = 8.0
    valid = np.ones((4, 6), bool)
    valid[0, 0] = False
    occluded = np.zeros((4, 6), bool)
    occluded[1, 1] = True
    figure = plots.field_grid([frames], [truth], [truth / 2], [valid], [occluded])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "first", "second", "truth", "prediction", "error 4.00 px", "occluded", "radius 8 px"
    ]  # fmt: skip
    shown = dict(zip(titles, (axes.images[0].get_array() for axes in figure.axes), strict=True))
    assert shown["truth"][0, 0].tolist() == [128, 128, 128]
    assert shown["truth"][2, 2].tolist() == [255, 0, 0]
    assert shown["prediction"][2, 2].tolist() == [255, 128, 128]
    assert [shown["occluded"][place] for place in ((1, 1), (2, 2), (0, 0))] == [255, 0, 128]
    wheel = shown["radius 8 px"]
    assert wheel[50, 100].tolist() == [255, 0, 0], "right is red, on the key as in the picture"
    assert wheel[100, 50].tolist() == shown_colour(0, 8), "down is down"


def shown_colour(right, down):
    return plots.flow_colours(np.array([[[right, down]]]), full_colour=8.0)[0, 0].tolist()


def test_a_disparity_grid_names_its_range():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    disparity = np.linspace(-3, 6, 24, dtype=np.float32).reshape(4, 6, 1)
    valid = np.ones((4, 6), bool)
    figure = plots.field_grid(
        [frames] * 2, [disparity, disparity + 5], [disparity] * 2, [valid] * 2
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["left", "right", "truth", "prediction"]
    assert titles[5].startswith("-3 to ") and titles[11].startswith("0 to ")


def test_a_tone_is_bright_at_its_frequency():
    wave = np.sin(2 * np.pi * 500 / 4000 * np.arange(2000))
    clip = np.zeros((1, 2, 8, 8, 3), np.uint8)
    sounds = np.stack([wave]), np.stack([wave * 0])
    figure = plots.reconstructions(
        clip, clip, *sounds, np.array([[0.3, 0.7]]), ["a"], samples_per_second=4000
    )
    heard, silent = (figure.axes[i].images[0] for i in (3, 7))
    assert set(np.argmax(heard.get_array(), axis=0)) == {500 * 160 // 4000}
    assert tuple(heard.get_extent()[2:]) == (0, 2000)
    assert silent.get_array().max() <= -100


def test_label_probabilities_show_the_truth_in_green():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    chances = {"all": np.array([[0.2, 0.8], [0.6, 0.4]]), "image alone": np.full((2, 2), 0.5)}
    axes = plots.label_probabilities(images, chances, np.array([1, 1])).axes
    assert [a.get_title() for a in axes] == ["", "all", "image alone", "", "", ""]
    bars = axes[4].patches
    assert [bar.get_height() for bar in bars] == [0.6, 0.4]
    assert bars[1].get_facecolor() == matplotlib.colors.to_rgba(plots.RIGHT)
    assert bars[0].get_facecolor() == matplotlib.colors.to_rgba(plots.WRONG)


def test_attention_mass_is_stacked_in_the_order_of_the_last_modality():
    mass = {"read": {"sound": np.array([0.1, 0.7, 0.4]), "video": np.array([0.9, 0.3, 0.6])}}
    (panel,) = plots.attention_mass(mass, {"sound": 0.25, "video": 0.75}).axes
    heights = np.reshape([bar.get_height() for bar in panel.patches], (2, 3))
    np.testing.assert_allclose(heights, [[0.7, 0.4, 0.1], [0.3, 0.6, 0.9]])
    np.testing.assert_allclose([bar.get_y() for bar in panel.patches[3:]], [0.7, 0.4, 0.1])
    assert [line.get_ydata()[0] for line in panel.lines] == [0.25, 1.0]
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert texts == ["sound: 40.0%, of the tokens 25.0%", "video: 60.0%, of the tokens 75.0%"]


def test_a_cloud_is_seen_from_the_front_and_near_points_are_darker():
    points = np.array([[0, 0, -1], [0, 0, 1], [0, 2, 0], [0, -2, 0]], float)
    image = plots.cloud_image(points)
    drawn = np.unique(image[(image < 255).all(axis=-1)][:, 0])
    assert len(drawn) == 4
    rows = np.flatnonzero((image < 255).any(axis=(1, 2)))
    assert rows[0] == 0 and rows[-1] == len(image) - 1, "up is up"
    far, near = (np.argwhere((image == level).all(axis=-1)).mean(axis=0) for level in drawn[[3, 0]])
    assert far[0] < near[0], "seen from above, what is near is lower"


def test_the_attention_of_clouds_is_that_of_focused_latents_from_three_sides():
    points = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0.5]], float)
    maps = np.full((5, 3), 1 / 3)
    maps[1], maps[4] = [1, 0, 0], [0, 0, 1]
    figure = plots.cloud_attention([points] * 2, [maps] * 2, max_latents=2)
    assert [a.get_title() for a in figure.axes[:3]] == ["latent 1", "latent 4", "mean of all"]
    assert len(figure.axes) == 2 * 3 * 3
    names = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert names == ["front (x, y)", "side (z, y)", "top (x, z)"] * 2
    image = figure.axes[0].images[0].get_array()
    yellow = np.argwhere((image == [253, 231, 36]).all(axis=-1))
    assert yellow.mean(axis=0).tolist() == [len(image) - 2, 1], "the first point, below at the left"


def test_confusion_counts_guesses_by_class():
    labels, guesses = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, -1])
    axes = plots.confusion(labels, guesses, ["bed", "cup"]).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["bed", "cup", "none"]
    counts = {tuple(map(int, t.get_position()[::-1])): t.get_text() for t in axes.texts}
    assert counts == {(0, 0): "1", (0, 1): "1", (1, 1): "2", (1, 2): "1"}
    np.testing.assert_allclose(axes.images[0].get_array()[1], [0, 2 / 3, 1 / 3])
    assert len(plots.confusion(labels[:4], guesses[:4], ["bed", "cup"]).axes[0].get_xticks()) == 2


def test_entities_name_others_in_green_and_red():
    places = np.array([[[0, 0], [1, 0], [0, 1], [9, 9]]], float)
    present = np.array([[True, True, True, False]])
    named, truth = np.array([[1, 0, 1, 0]]), np.array([[1, 0, 0, -1]])
    (axes,) = plots.named_entities(places, present, named, truth).axes
    assert axes.get_title() == "2 of 3 right"
    colours = [arrow.arrow_patch.get_edgecolor() for arrow in axes.texts]
    assert colours == [
        matplotlib.colors.to_rgba(c) for c in (plots.RIGHT, plots.RIGHT, plots.WRONG)
    ]
    right, drawn = axes.lines
    np.testing.assert_array_equal(right.get_xydata(), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(drawn.get_xydata(), places[0, :3])


def test_entities_attend_to_others():
    places = np.array([[[0, 0], [1, 0], [0, 9]]], float)
    present = np.array([[True, True, False]])
    weights = np.array([[[0.2, 0.8, 0], [1, 0, 0], [0, 0, 1]]])
    axes = plots.entity_attention(places, present, weights, ["guess 3, is 4"], 3).axes
    assert [a.get_title() for a in axes] == ["entity 0", "entity 1", ""]
    assert axes[0].get_ylabel() == "guess 3, is 4"
    np.testing.assert_allclose(axes[0].collections[0].get_array(), [0.25, 1])
    np.testing.assert_array_equal(axes[1].lines[0].get_xydata(), [[1, 0]])
    np.testing.assert_allclose([*axes[1].get_xlim(), *axes[1].get_ylim()], [-0.1, 1.1, -0.6, 0.6])


def test_what_latents_read_is_drawn_at_its_place():
    weights = np.triu(np.ones((70, 70))).T[[3, 69]] / np.array([[4], [70]])
    symbols = [plots.symbol(b) for b in b"a b\n" + bytes(range(33, 99))]
    assert symbols[:4] == ["a", "␣", "b", "↵"] and plots.symbol(0) == "00"
    matrix = plots.reading_matrix(symbols, weights, np.array([3, 69]), ["x", "y"])
    axes = matrix.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    assert [patch.get_xy() for patch in axes.patches] == [(2.5, -0.5), (68.5, 0.5)]
    text = plots.reading_text(symbols, weights, np.array([3, 69]), ["x", "y"])
    first, second = text.axes
    assert [t.get_text() for t in first.texts] == symbols[:4]
    assert len(second.texts) == 70 and second.texts[64].get_position() == (0, 1)  # the second row
    np.testing.assert_allclose(second.images[0].get_array().ravel()[:70], weights[1])
    assert first.get_title(loc="left") == "to predict x at place 4; darkest: 25%"


def test_what_latents_read_long_before_is_said():
    total = plots.sequences.SHOWN + 100
    weights = np.full((1, total), 1 / total)
    figure = plots.reading_text(["a"] * total, weights, np.array([total - 1]), ["b"])
    (axes,) = figure.axes
    start = 64  # rows begin at multiples of their length
    assert len(axes.texts) == total - start
    assert axes.get_title(loc="left").endswith(f"{start / total:.0%} before the first row")


def test_what_latents_read_of_an_image_is_summed_over_channels():
    weights = np.zeros((2, 12))
    weights[1, 3:7] = 0.2, 0.3, 0.25, 0.375
    figure = plots.reading_pixels(np.zeros((2, 2, 3), np.uint8), weights, np.array([3, 7]))
    np.testing.assert_allclose(figure.axes[1].images[1].get_array()[..., 3], [[0, 1], [0.5, 0]])
    assert figure.axes[1].get_title() == "row 1, column 0"


def test_completions_show_what_was_given():
    image = np.arange(1, 5, dtype=np.uint8).reshape(2, 2, 1)
    figure = plots.completions([image], [2], [np.stack([image + 1, image + 2])])
    shown = [axes.images[0].get_array().ravel().tolist() for axes in figure.axes]
    assert shown == [[1, 2, 128, 128], [2, 3, 4, 5], [3, 4, 5, 6], [1, 2, 3, 4]]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["given", "completed 1", "completed 2", "original"]
