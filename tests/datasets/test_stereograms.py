"""Stereograms: exact geometry, every control, and no depth in one eye alone."""

import numpy as np
import pytest

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.stereograms import SURFACES, Stereogram

SIZE = (48, 64)


def contrast(frames):
    """frames [2, H, W, 3] -> left and right in -1..1, [H, W] each."""
    np.testing.assert_array_equal(frames[..., 0], frames[..., 2])
    value = frames[..., 0] / 127.5 - 1
    return np.where(frames[..., 0] == 128, 0, value)  # 127.5 is rounded


def warped(right, disparity):
    """right at x - disparity, linearly; nan outside."""
    width = right.shape[1]
    x = np.arange(width) - disparity
    whole = np.floor(x).astype(int)
    at = [np.take_along_axis(right, np.clip(whole + i, 0, width - 1), 1) for i in (0, 1)]
    value = at[0] + (x - whole) * (at[1] - at[0])
    return np.where((x < 0) | (x > width - 1), np.nan, value)


def partners(example):
    """Left and right contrasts of the pixels that have a partner."""
    left, right = contrast(example["frames"])
    right = warped(right, example["field"][..., 0])
    there = ~example["occluded"] & example["valid"] & ~np.isnan(right)
    return left[there], right[there]


def correlation(example):
    return np.corrcoef(*partners(example))[0, 1]


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("density", [0.25, 1.0])
def test_the_right_eye_shifted_by_the_truth_is_the_left_eye(surface, density):
    make = Stereogram(size=SIZE, surface=surface, density=density)
    for index in range(5):
        example = make(np.random.default_rng(index))
        shapes = {name: (value.shape, str(value.dtype)) for name, value in example.items()}
        assert shapes == {
            "frames": ((2, *SIZE, 3), "uint8"),
            "field": ((*SIZE, 1), "float32"),
            "valid": (SIZE, "bool"),
            "occluded": (SIZE, "bool"),
        }
        np.testing.assert_array_equal(*partners(example))  # to the bit, for whole pixels
        assert np.all(np.abs(example["field"]) <= 4)
        left, _ = contrast(example["frames"])
        assert abs((left != 0).mean() - density) < 0.05
        assert example["valid"].all()


def test_occlusion_is_what_a_loop_over_pixels_finds():
    for index in range(4):
        example = Stereogram(size=(16, 32))(np.random.default_rng(index))
        disparity = example["field"][..., 0].astype(int)
        for y, row in enumerate(disparity):
            for x, d in enumerate(row):
                rivals = [e for u, e in enumerate(row) if u - e == x - d and e > d]
                hidden = bool(rivals) or not 0 <= x - d < 32
                if 8 <= x < 24:  # beyond, the rival may lie outside of the view
                    assert example["occluded"][y, x] == hidden


def test_sub_pixels_and_large_dots_match_as_well_as_pixels_can():
    make = Stereogram(size=SIZE, surface="plane", subpixel=8, dot_size=4, density=0.4)
    examples = [make(np.random.default_rng(i)) for i in range(5)]
    assert all(correlation(example) > 0.85 for example in examples)
    fractions = np.unique(np.concatenate([e["field"].ravel() for e in examples]) % 1)
    np.testing.assert_array_equal(fractions, np.arange(8) / 8)


def test_every_surface_is_different_and_within_the_range():
    for kind, distinct in (("step", 2), ("disc", 2), ("plane", 3), ("smooth", 3)):
        make = Stereogram(size=SIZE, surface=kind, disparity=(-8, 8))
        counts = [len(np.unique(make(np.random.default_rng(i))["field"])) for i in range(8)]
        assert max(counts) == 2 if distinct == 2 else max(counts) >= distinct
    mix = Stereogram(size=SIZE)
    assert {len(np.unique(mix(np.random.default_rng(i))["field"])) > 2 for i in range(20)} == {
        True,
        False,
    }


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, 1.0),
        ({"correlation": 0.6}, 0.6),
        ({"correlation": 0.0}, 0.0),
        ({"reversed": 1.0}, -1.0),
        ({"reversed": 0.5}, 0.0),
        ({"reversed": 0.5, "correlation": 0.5}, 0.0),
        ({"reversed": 1.0, "correlation": 0.5}, -0.5),
        ({"eyes": "left_twice"}, 0.0),
        ({"vertical": 2}, 0.0),
        ({"vertical": -1}, 0.0),
        ({"eyes": "swapped"}, 1.0),
    ],
    ids=str,
)
def test_correlation_of_partners_under_each_control(options, expected):
    # A surface that is nowhere at zero, where an eye seen twice would match itself.
    make = Stereogram(size=SIZE, disparity=(1, 6), **options)
    both = [partners(make(np.random.default_rng(i))) for i in range(8)]
    measured = np.corrcoef(*(np.concatenate(side) for side in zip(*both, strict=True)))[0, 1]
    assert abs(measured - expected) < 0.03, measured


def test_controls_change_one_thing_alone():
    def make(**options):
        return Stereogram(size=SIZE, **options)(np.random.default_rng(3))

    plain = make()
    for options in (
        {"correlation": 0.0},
        {"reversed": 1.0},
        {"eyes": "left"},
        {"eyes": "left_twice"},
    ):
        control = make(**options)
        np.testing.assert_array_equal(control["field"], plain["field"])
        np.testing.assert_array_equal(control["frames"][0], plain["frames"][0])
        assert np.any(control["frames"][1] != plain["frames"][1])
    assert np.all(make(eyes="left")["frames"][1] == 128)
    np.testing.assert_array_equal(*make(eyes="left_twice")["frames"])
    half = contrast(make(reversed=0.5)["frames"])[1] / contrast(plain["frames"])[1]
    assert set(np.unique(half[~np.isnan(half)])) >= {-1.0, 1.0}
    lower, plain_right = make(vertical=2)["frames"][1], make(vertical=0)["frames"][1]
    assert np.any(lower != plain_right)


def test_vertical_moves_the_right_eyes_dots_down():
    def right(vertical):  # uncorrelated with the margins' rows, but the surface is flat
        make = Stereogram(size=SIZE, vertical=vertical, disparity=(2, 2))
        return make(np.random.default_rng(0))["frames"]

    left, down = contrast(right(2))
    np.testing.assert_array_equal(down[2:, :-2], left[:-2, 2:])
    left, up = contrast(right(-3))
    np.testing.assert_array_equal(up[:-3, :-2], left[3:, 2:])


def test_swapped_eyes_turn_the_sign_of_depth():
    plain, swapped = (
        Stereogram(size=SIZE, eyes=eyes)(np.random.default_rng(5)) for eyes in ("both", "swapped")
    )
    np.testing.assert_array_equal(plain["frames"], swapped["frames"][::-1])
    height, width = SIZE
    for y in range(height):
        for x in range(width):
            partner = x - int(plain["field"][y, x, 0])
            if not plain["occluded"][y, x]:
                assert swapped["field"][y, partner, 0] == -plain["field"][y, x, 0]
                assert swapped["valid"][y, partner] and not swapped["occluded"][y, partner]
    assert 0.7 < swapped["valid"].mean() < 1


# --- No cue in one eye ---------------------------------------------------------------------------


def statistics(eyes):
    """Moments at every pixel that dots could betray a surface by: [number, moments, H, W]."""
    eyes = np.asarray(eyes)
    moments = [eyes, eyes**2]
    # Copies of dots, or cuts, show in products with neighbours: along rows up to twice the largest
    # disparity, and along columns.
    for axis, lags in ((2, range(1, 9)), (1, (1, 2))):
        for lag in lags:
            other = np.roll(eyes, -lag, axis)
            moments += [eyes * other, (eyes * other) ** 2]
    return np.stack(moments, axis=1)


def largest_z(eyes, reference, regions):
    """How surely some moment in some region differs from the same in dots without a surface."""
    worst = 0.0
    for region in regions:
        a, b = (statistics(x)[..., region].mean(-1) for x in (eyes, reference))
        error = np.sqrt((a.var(0) + b.var(0)) / len(a)) + 1e-9
        worst = max(worst, float(np.max(np.abs(a.mean(0) - b.mean(0)) / error)))
    return worst


def gaps(left, disparity):
    """A broken generator: what the right eye uncovers stays empty."""
    right = np.zeros_like(left)
    width = left.shape[1]
    for d in np.unique(disparity).astype(int):
        target = np.arange(width) - d
        y, x = np.nonzero((disparity.astype(int) == d) & (target >= 0) & (target < width))
        right[y, x - d] = left[y, x]
    return right


def doubled(left, disparity):
    """A broken generator: there the left eye's dots stay, so some are seen twice."""
    right = gaps(left, disparity)
    return np.where(right == 0, left, right)


def blurred(left, disparity):
    """A broken generator: the left image resampled between its pixels."""
    return np.nan_to_num(warped(left, -(disparity + 0.5 * (disparity > 0))))


@pytest.mark.parametrize(
    "options",
    [{}, {"dot_size": 2, "density": 0.6}, {"subpixel": 4, "dot_size": 2, "density": 0.6}],
    ids=["pixels", "large dots", "sub-pixels"],
)
def test_one_eye_alone_is_featureless(options):
    """Any surface gives either eye the same statistics as dots on no surface at all.

    Half a surface stands forth, so that any of its ghosts would be at one known place.
    """
    make = Stereogram(size=(24, 40), disparity=(-3, 4), **options)
    rows, columns = make.margins()
    shift = np.full((24 + 2 * rows, 40 + 2 * columns), -2 * make.subpixel, np.int32)
    shift[rows + 6 : rows + 18, columns + 12 : columns + 28] = 3.5 * make.subpixel
    flat = np.full_like(shift, 0)
    regions = [np.zeros((24, 40), bool) for _ in range(3)]
    regions[0][6:18, 8:26] = True  # the square, in the right eye and in the left
    regions[1][6:18, 26:32] = True  # what its far side uncovers
    regions[2][:, :] = True

    def pairs(surface, seed):
        made = [make.render(np.random.default_rng((seed, i)), surface) for i in range(300)]
        eyes = np.stack([contrast(example["frames"]) for example in made]).astype(np.float32)
        return eyes[:, 0], eyes[:, 1], made[0]["field"][..., 0]

    left, right, field = pairs(shift, 0)
    reference = pairs(flat, 1)[0]
    assert largest_z(left, reference, regions) < 4.5
    assert largest_z(right, reference, regions) < 4.5
    # The same measure finds out generators that are broken.
    for broken in (gaps, doubled, blurred):
        wrong = np.stack([broken(x, field) for x in left[:200]])
        assert largest_z(wrong, reference[:200], regions) > 9, broken.__name__


@pytest.mark.parametrize(
    "split, options, message",
    [
        ("train", {"sise": (8, 8)}, r"unknown source_options \['sise'\]; .*size=\(64, 64\)"),
        ("train", {"surface": "bump"}, "surface is one of .*'disc'.* not 'bump'"),
        ("train", {"eyes": "right"}, "eyes is one of"),
        ("train", {"correlation": -1}, r"correlation ascends within \[0, 1\], got -1"),
        ("train", {"disparity": (3, 1)}, r"disparity ascends within \[-16.0, 16.0\]"),
        ("train", {"density": 2}, r"density ascends within \[0, 1\]"),
        ("train", {"dot_size": 1.5}, "dot_size=1.5 is not allowed: write a whole number"),
        (
            "train",
            {"size": 64},
            r"size=64 is not allowed: write \(a whole number, a",
        ),
        ("train", {"size": (4, 64)}, r"size ascends within \[8, 4096\]"),
        ("train", {"vertical": 17}, r"vertical ascends within \[-16.0, 16.0\]"),
        ("valid", {}, r"splits \['train', 'test'\] and parts as 'test\[:500\]', not 'valid'"),
        ("test[5:5]", {}, "no part of the 10,000 examples"),
        ("test[:10001]", {}, "no part of the 10,000 examples"),
    ],
)
def test_bad_options_are_told(split, options, message):
    with pytest.raises(ValueError, match=message):
        registry.load("stereograms", split, options=options)
