"""Digits in depth: what two eyes see and, in dots, what one eye cannot know."""

import numpy as np
import pytest

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.depth_digits import DepthDigits


def outline(size=(24, 24)):
    inside = np.zeros(size, bool)
    inside[6:18, 8:15] = True
    return inside


@pytest.mark.parametrize("pattern", ["dots", "noise", "blocks", "mix"])
@pytest.mark.parametrize("disparity", [(0, 2), (-1, 3)])
def test_ground_and_digit_have_their_own_disparities(pattern, disparity):
    digits = DepthDigits(pattern=pattern, disparity=disparity)
    inside = outline()
    left, right = digits.frames(np.random.default_rng(0), inside).astype(int)
    for moved, region in zip(disparity, (~inside, inside), strict=True):
        row, column = np.nonzero(region)
        there = column - moved
        seen = (there >= 0) & (there < 24)
        # The strip of ground that the digit, being nearer, hides from the right eye.
        hidden = np.zeros_like(inside)
        shift = disparity[1] - disparity[0]
        if region is not inside:
            hidden[:, :-shift] = inside[:, shift:]
        seen &= ~hidden[row, column]
        row, column, there = row[seen], column[seen], there[seen]
        assert len(row) > 60
        np.testing.assert_array_equal(right[row, there], left[row, column])
        if moved:
            assert np.any(right[row, column] != left[row, column])


def test_in_dots_one_eye_is_the_same_whatever_the_digit():
    """Bit by bit for the left eye; for the right one, the dots of another digit are as likely."""
    digits = DepthDigits()
    first, second = (
        digits.frames(np.random.default_rng(3), inside) for inside in (outline(), ~outline())
    )
    np.testing.assert_array_equal(first[0], second[0])
    assert np.any(first[1] != second[1])
    textured = DepthDigits(pattern="noise")
    first, second = (
        textured.frames(np.random.default_rng(3), inside) for inside in (outline(), ~outline())
    )
    assert np.any(first[0] != second[0])  # there one eye sees the outline
    assert set(np.unique(digits.frames(np.random.default_rng(0), outline()))) == {0, 255}


def test_labels_are_those_of_the_images_and_splits_share_no_digit():
    options = {"shift": 0, "size": (8, 8), "disparity": (0, 2)}
    sources_of = {s: registry.load("depth_digits", s, options=options) for s in ("train", "test")}
    for split, source in sources_of.items():
        images = registry.load("digits", split)
        known = {(i > 127).tobytes(): int(n) for i, n in zip(*images.arrays.values(), strict=True)}
        make = source.make.func
        for index in range(5):
            example = source[index]
            rng = np.random.default_rng((0, source.split, index))
            image = images[int(rng.integers(len(images)))]
            assert example["label"] == image["label"] and example["label"].dtype == np.int32
            inside = make.outline(np.random.default_rng(0), image["image"])
            assert known[inside[..., None].tobytes()] == example["label"]
            assert example["frames"].shape == (2, 8, 8, 3)


def test_the_digit_is_as_large_as_fits_and_moves():
    image = np.zeros((8, 8, 1), np.uint8)
    image[2:6, 3:5] = 255
    digits = DepthDigits(size=(24, 32), shift=3)
    middles = []
    for seed in range(40):
        inside = digits.outline(np.random.default_rng(seed), image)
        assert inside.shape == (24, 32) and 60 < inside.sum() < 110
        middles.append(np.argwhere(inside).mean(axis=0))
    spread = np.ptp(middles, axis=0)
    np.testing.assert_allclose(spread, 6)
    np.testing.assert_allclose(np.median(middles, axis=0), (11.5, 15.5), atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "tartan"}, r"source_options.pattern is one of \['dots', .*'mix'\]"),
        ({"disparity": (2, 0)}, "source_options.disparity ascends"),
        ({"disparity": (0.0, 1.5)}, r"disparity=\(0.0, 1.5\) is .*whole number, a whole number"),
        ({"shift": 7}, r"source_options.shift ascends within \[0, 6\]"),
        ({"sizes": (24, 24)}, r"unknown source_options \['sizes'\]"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        registry.load("depth_digits", "train", options=options)
