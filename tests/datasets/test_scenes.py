"""Scenes: the truth against what the pictures show, occlusion against brute force."""

import cv2
import numpy as np
import pytest
from tfds_files import write_tfds

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.layers import Layer, render
from perceiver_jax.datasets.generated.scenes import Scene

SIZE = (48, 64)
GRID = np.stack(np.meshgrid(np.arange(64), np.arange(48)), -1).astype(np.float64)  # x, y


def scene(index, **options):
    """(layers, example) of one scene."""
    make = Scene(size=SIZE, **options)
    rng = np.random.default_rng(index)
    layers = make.draw(rng)
    return layers, make(np.random.default_rng(index))


def at(image, points):
    """A picture [H, W, C] read linearly at points (x, y) [H, W, 2]."""
    x, y = (points[..., i].astype(np.float32) for i in (0, 1))
    return cv2.remap(image.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=(np.nan,) * 3)


def depth_of(layers, poses, points):
    """By brute force: which layer is on top at each point, and how far the next outline is."""
    top, margin = np.zeros(points.shape[:2], int), np.full(points.shape[:2], np.inf)
    for number, (layer, pose) in enumerate(zip(layers, poses, strict=True)):
        if layer.outline is None:
            continue
        corners = (layer.outline @ pose[:2, :2].T + pose[:2, 2]).astype(np.float32)
        for row, column in np.ndindex(*top.shape):
            x, y = points[row, column]
            inside = cv2.pointPolygonTest(corners[:, None], (float(x), float(y)), True)
            top[row, column] = number if inside > 0 else top[row, column]
            margin[row, column] = min(margin[row, column], abs(inside))
    return top, margin


@pytest.mark.parametrize("options", [{}, {"task": "stereo"}, {"direction": "backward"}], ids=str)
def test_truth_and_occlusion_against_brute_force(options):
    for index in range(2):
        layers, example = scene(index, texture="noise", layers=(3, 5), **options)
        field = example["field"]
        flow = field if field.shape[-1] == 2 else np.concatenate([-field, 0 * field], -1)
        still, moved = [np.eye(3)] * len(layers), [layer.motion for layer in layers]
        first, second = (moved, still) if options.get("direction") else (still, moved)
        top, margin = depth_of(layers, first, GRID)
        sure = margin > 1.0  # a polygon is filled up to and with its outline's pixels

        # The field is the layer's own map.
        maps = np.stack([b @ np.linalg.inv(a) for a, b in zip(first, second, strict=True)])
        homogeneous = np.concatenate([GRID, np.ones((*SIZE, 1))], -1)
        expected = np.einsum("hwij,hwj->hwi", maps[top][..., :2, :], homogeneous) - GRID
        np.testing.assert_allclose(flow[sure], expected[sure], atol=1e-3)

        # Occluded is what a nearer layer covers, or what leaves.
        target = GRID + flow
        other, other_margin = depth_of(layers, second, target)
        outside = np.any((target < 0) | (target > np.array(SIZE[::-1]) - 1), axis=-1)
        at_border = np.min(np.abs(np.stack([target, np.array(SIZE[::-1]) - 1 - target])), (0, 3))
        sure &= (other_margin > 1.5) & (at_border > 0.6)
        hidden = outside | (other > top)
        assert sure.mean() > 0.5 and 0.01 < hidden[sure].mean() < 0.6
        np.testing.assert_array_equal(example["occluded"][sure], hidden[sure])

        # The second frame read where the truth says is the first.
        visible = sure & ~hidden
        error = np.abs(at(example["frames"][1], target) - example["frames"][0])[visible]
        wrong = np.abs(at(example["frames"][1], target + np.array([1, 0])) - example["frames"][0])[
            visible
        ]
        assert error.mean() < 2.5  # of 255
        assert error.mean() < 0.3 * np.nanmean(wrong)


def test_whole_pixels_match_to_the_bit():
    rng = np.random.default_rng(0)
    textures = rng.integers(0, 256, (2, *SIZE, 3), np.uint8)
    square = np.float64([(10, 10), (30, 10), (30, 30), (10, 30)])
    motions = np.eye(3)[None].repeat(2, 0)
    motions[0, :2, 2], motions[1, :2, 2] = (2, -1), (-4, 3)
    layers = [
        Layer(outline, texture, np.eye(3), motion)
        for outline, texture, motion in zip((None, square), textures, motions, strict=True)
    ]
    for backward in (False, True):
        example = render(layers, SIZE, backward=backward)
        first, second = example["frames"]
        target = (GRID + example["field"]).astype(int)
        seen = ~example["occluded"]
        assert 0.8 < seen.mean() < 1
        x, y = target[seen].T
        np.testing.assert_array_equal(second[y, x], first[seen])
        corner = (20 - 4 * backward, 20 + 3 * backward)  # within the square in that frame
        sign = -1 if backward else 1
        np.testing.assert_array_equal(example["field"][corner[1], corner[0]], (-4 * sign, 3 * sign))
        np.testing.assert_array_equal(example["field"][0, 0], (2 * sign, -sign))


def test_the_reversed_pair_leads_back():
    for index in range(3):
        _, forward = scene(index, layers=(2, 4))
        _, backward = scene(index, layers=(2, 4), direction="backward")
        np.testing.assert_array_equal(forward["frames"], backward["frames"][::-1])
        target = GRID + forward["field"]
        back = np.stack(
            [at(backward["field"][..., i], target) for i in (0, 1)], -1
        )  # an affine field is read exactly between pixels
        there = ~forward["occluded"] & ~np.isnan(back).any(-1)
        length = np.linalg.norm(forward["field"] + back, axis=-1)[there]
        # Only at the rims of shapes are two layers' fields mixed.
        assert np.mean(length < 1e-2) > 0.85
    coins = [scene(i, direction="random")[1]["frames"][0] for i in range(8)]
    either = {bool(np.array_equal(c, scene(i)[1]["frames"][0])) for i, c in enumerate(coins)}
    assert either == {True, False}


def test_stereo_keeps_to_its_range_and_near_hides_far():
    make = Scene(task="stereo", size=SIZE, disparity=(1, 6), slant=0.2)
    for index in range(10):
        layers = make.draw(np.random.default_rng(index))
        example = make(np.random.default_rng(index))
        assert example["field"].shape == (*SIZE, 1) and example["field"].dtype == np.float32
        assert example["field"].min() >= 1 - 1e-3 and example["field"].max() <= 6 + 1e-3
        np.testing.assert_array_equal(
            [layer.motion[1:] for layer in layers], [np.eye(3)[1:]] * len(layers)
        )
        middles = [
            -(layer.motion[0] - np.eye(3)[0]) @ [*layer.outline.mean(0), 1] for layer in layers[1:]
        ]
        assert np.all(np.diff(middles) > -0.5)


def test_photometric_changes_the_second_frame_alone():
    _, plain = scene(1)
    _, lit = scene(1, photometric=1.0)
    np.testing.assert_array_equal(lit["frames"][0], plain["frames"][0])
    np.testing.assert_array_equal(lit["field"], plain["field"])
    change = np.abs(lit["frames"][1].astype(int) - plain["frames"][1])
    assert 2 < change.mean() < 80


def test_textures_of_pictures(tmp_path):
    """Images of one colour per split: the scenes of each split show its own alone."""
    colours = {"train": (200, 10, 10), "test": (10, 10, 200)}
    splits = {
        split: [(np.full((20, 30, 3), colour, np.uint8), "png", 0)] * 2
        for split, colour in colours.items()
    }
    write_tfds(tmp_path, "cifar10", "3.0.2", splits)
    for split, colour in colours.items():
        source = registry.load(
            "scenes", split, data_dir=str(tmp_path), options={"images": "cifar10", "size": (40, 16)}
        )
        frames = source[3]["frames"]
        np.testing.assert_array_equal(frames, np.broadcast_to(np.uint8(colour), frames.shape))


@pytest.mark.parametrize("texture", ["noise", "blocks", "stripes", "mix"])
def test_examples_and_textures(texture):
    source = registry.load("scenes", "test[:4]", options={"size": SIZE, "texture": texture})
    again = registry.load("scenes", "test", options={"size": SIZE, "texture": texture})
    for i in range(4):
        example = source[i]
        shapes = {name: (value.shape, str(value.dtype)) for name, value in example.items()}
        assert shapes == {
            "frames": ((2, *SIZE, 3), "uint8"),
            "field": ((*SIZE, 2), "float32"),
            "valid": (SIZE, "bool"),
            "occluded": (SIZE, "bool"),
        }
        assert example["frames"].std() > 15
        assert np.abs(example["field"]).max() < 30
        for field, value in example.items():
            np.testing.assert_array_equal(value, again[i][field])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "depth"}, r"task is one of \['flow', 'stereo'\], not 'depth'"),
        ({"direction": "up"}, "direction is one of"),
        ({"layers": (5, 2)}, r"layers ascends within \[0, 100\], got \(5, 2\)"),
        ({"texture": "fur"}, "texture is one of .*'noise'"),
        ({"task": "stereo", "direction": "random"}, "direction of a stereo scene is 'forward'"),
        ({"speed": 1}, r"unknown source_options \['speed'\]"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        registry.load("scenes", "train", options=options)
