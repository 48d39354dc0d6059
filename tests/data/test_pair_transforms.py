"""Augmented pairs: the truth goes where the pixels go."""

import cv2
import numpy as np
import pytest

from perceiver_jax.data import pair_augmentation, pair_transforms, parse, transforms
from perceiver_jax.datasets.generated.scenes import Scene

SIZE = (48, 64)


def flow_pair(index=0, **options):
    options = {"texture": "noise", "size": SIZE, "displacement": 4.0} | options
    return Scene(**options)(np.random.default_rng(index))


def mismatch(example, by=(0, 0)):
    """Mean difference of the first frame and the second read where the truth (plus `by`) says.

    Only away from edges in depth, where a linear reading mixes surfaces.
    """
    field = example["field"]
    flow = field if field.shape[-1] == 2 else np.concatenate([-field, 0 * field], -1)
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    second = cv2.remap(
        example["frames"][1].astype(np.float32),
        (x + flow[..., 0] + by[0]).astype(np.float32),
        (y + flow[..., 1] + by[1]).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    edge = (np.abs(cv2.Laplacian(flow, cv2.CV_32F)).max(-1) > 0.15) | example["occluded"]
    smooth = cv2.dilate(edge.astype(np.uint8), np.ones((5, 5))) == 0
    smooth[[0, -1]] = smooth[:, [0, -1]] = False
    assert smooth.mean() > 0.15
    return np.abs(second - example["frames"][0])[smooth].mean()


@pytest.mark.parametrize("task", ["flow", "stereo"])
def test_truth_follows_scale_stretch_crop_and_mirror(task):
    flips = "(0.5, 0.5)" if task == "flow" else "(0, 0.5)"
    line = parse(
        f"augment_pair(32, 40, flips={flips}) | keep('frames', 'field', 'valid', 'occluded')"
    )
    right, wrong = [], []
    for index in range(12):
        pair = flow_pair(index, task=task, layers=(1, 3))
        example = line(pair, np.random.default_rng(index))
        assert example["frames"].shape == (2, 32, 40, 3)
        assert example["field"].shape == (32, 40, 2 if task == "flow" else 1)
        assert {example[name].dtype for name in ("valid", "occluded")} == {np.dtype(bool)}
        assert example["field"].dtype == np.float32
        right.append(mismatch(example))
        wrong.append(mismatch(example, by=(1, 0)))
    assert np.mean(right) < 3
    assert np.mean(right) < 0.4 * np.mean(wrong), (np.mean(right), np.mean(wrong))


def test_scales_reach_what_they_should(monkeypatch):
    """A flow of one vector everywhere is multiplied by each side's factor, and may change sign."""
    pair = flow_pair()
    pair["field"] = np.broadcast_to(np.float32([3, 5]), (*SIZE, 2))
    factors = np.array(
        [
            pair_augmentation.augment_pair(pair, np.random.default_rng(i), 16, 16)["field"][0, 0]
            / (3, 5)
            for i in range(400)
        ]
    )
    sizes = np.log2(np.abs(factors))
    assert -0.4 <= sizes.min() < -0.3 and 0.6 < sizes.max() <= 0.7
    assert 0.15 < np.mean(np.all(sizes == 0, axis=1)) < 0.25
    unstretched = np.isclose(sizes[:, 0], sizes[:, 1])
    assert 0.3 < unstretched.mean() < 0.45  # 0.2 + 0.8 * 0.2
    np.testing.assert_allclose(np.mean(factors < 0, axis=0), (0.5, 0.1), atol=0.08)
    # Never to less than the crop.
    tight = pair_augmentation.augment_pair(pair, np.random.default_rng(0), *SIZE)
    assert np.all(np.abs(tight["field"][0, 0]) >= (3, 5))
    assert tight["valid"].all()


def test_severity_zero_is_a_crop_to_the_bit():
    pair, starts = flow_pair(layers=(3, 3)), set()
    for index in range(10):
        rng = np.random.default_rng(index)
        example = pair_augmentation.augment_pair(pair, rng, 40, 60, severity=0.0)
        found = [
            (top, left)
            for top in range(9)
            for left in range(5)
            if np.array_equal(pair["field"][top : top + 40, left : left + 60], example["field"])
        ]
        ((top, left),) = found
        starts.add(found[0])
        box = np.s_[top : top + 40, left : left + 60]
        np.testing.assert_array_equal(example["frames"], pair["frames"][:, *box])
        assert np.all(example["occluded"] >= pair["occluded"][box])
        assert example["occluded"].sum() < pair["occluded"][box].sum() + 600
    assert len(starts) > 5


def test_mirrors_to_the_bit(monkeypatch):
    monkeypatch.setattr(pair_augmentation, "_scales", lambda rng, severity: (1.0, 1.0))
    pair = flow_pair()
    both = pair_augmentation.augment_pair(pair, np.random.default_rng(0), *SIZE, flips=(1, 1))
    np.testing.assert_array_equal(both["frames"], pair["frames"][:, ::-1, ::-1])
    np.testing.assert_array_equal(both["field"], -pair["field"][::-1, ::-1])
    np.testing.assert_array_equal(both["occluded"], pair["occluded"][::-1, ::-1])
    up = pair_augmentation.augment_pair(pair, np.random.default_rng(0), *SIZE, flips=(0, 1))
    np.testing.assert_array_equal(up["field"], pair["field"][::-1] * np.float32([1, -1]))


def test_what_leaves_the_crop_is_occluded():
    pair = flow_pair(layers=(0, 0))
    pair["field"] = np.broadcast_to(np.float32([6, 0]), (*SIZE, 2))
    pair["occluded"] = np.zeros(SIZE, bool)
    cropped = pair_augmentation.augment_pair(pair, np.random.default_rng(0), 20, 20, severity=0.0)
    np.testing.assert_array_equal(cropped["occluded"][0], np.arange(20) >= 14)
    del pair["occluded"]  # a set may not know it
    bare = pair_augmentation.augment_pair(pair, np.random.default_rng(0), 20, 20)
    assert set(bare) == {"frames", "field", "valid"}


def test_light_is_of_both_frames_or_of_each():
    pair = flow_pair()
    pair["frames"] = np.stack([pair["frames"][0]] * 2)

    def jittered(index, **options):
        rng = np.random.default_rng(index)
        return pair_augmentation.jitter_pair(pair, rng, **options)["frames"].astype(int)

    for index in range(4):
        same, apart = jittered(index, asymmetric=0.0), jittered(index, asymmetric=1.0)
        np.testing.assert_array_equal(same[0], same[1])
        np.testing.assert_array_equal(same[0], apart[0])
        assert np.abs(apart[0] - apart[1]).mean() > 3
        assert np.abs(same - pair["frames"]).mean() > 3
        near = jittered(index, severity=0.02) - pair["frames"].astype(int)
        assert np.abs(near).mean() < 4
    assert np.array_equal(jittered(0, severity=0.0), pair["frames"])
    different = [np.any(f[0] != f[1]) for f in map(jittered, range(60))]
    assert 0.08 < np.mean(different) < 0.35
    assert pair["frames"].dtype == np.uint8


@pytest.mark.parametrize(
    "light, expected",
    [
        ((0.5, 1, 1, 0), (60, 20, 10)),
        ((1, 1, 0, 0), (62, 62, 62)),  # the grey of these: 0.299, 0.587, 0.114
        ((1, 1, 1, 1 / 3), (20, 120, 40)),  # red's place is green's, and so on
        ((1, 0.0, 1, 0), (62, 62, 62)),
    ],
)
def test_each_light_alone(light, expected):
    frame = np.broadcast_to(np.uint8([120, 40, 20]), (4, 4, 3)).copy()
    np.testing.assert_allclose(pair_augmentation._lit(frame, *light)[0, 0], expected, atol=2)


def test_erasing_fills_rectangles_of_the_second_frame_with_its_mean():
    pair, erased = flow_pair(), 0
    before = pair["frames"].copy()
    for index in range(40):
        rng = np.random.default_rng(index)
        example = pair_augmentation.erase_second(pair, rng, sides=(5, 9))
        np.testing.assert_array_equal(example["frames"][0], before[0])
        changed = np.any(example["frames"][1] != before[1], axis=-1)
        erased += changed.any()
        assert changed.sum() <= 2 * 81
        if changed.any():
            colours = np.unique(example["frames"][1][changed], axis=0)
            np.testing.assert_array_equal(colours, [before[1].mean((0, 1)).astype(np.uint8)])
    assert 12 <= erased <= 28
    np.testing.assert_array_equal(pair["frames"], before)  # a source's memory stays


def test_the_reversed_pair_of_a_file_is_close_to_the_true_one():
    for index in range(3):
        pair, truth = flow_pair(index), flow_pair(index, direction="backward")
        back = pair_transforms.reverse_pair(pair, np.random.default_rng(0), probability=1.0)
        np.testing.assert_array_equal(back["frames"], truth["frames"])
        known = back["valid"] & ~truth["occluded"]
        assert 0.7 < back["valid"].mean() < 1
        assert np.all(back["occluded"] >= ~back["valid"])
        error = np.linalg.norm(back["field"] - truth["field"], axis=-1)[known]
        length = np.linalg.norm(truth["field"], axis=-1)[known]
        assert np.median(error) < 0.1 and error.mean() < 0.25 * length.mean()
    rng = np.random.default_rng(0)
    turned = [pair_transforms.reverse_pair(pair, rng) is not pair for _ in range(200)]
    assert 0.4 < np.mean(turned) < 0.6


def test_both_directions_of_a_pair_are_read_in_the_first_phase_alone():
    """The paper's first phase: forward and backward; from the augmentation on, forward."""
    line = parse("grow(100, 200) | reverse_pair(0.5, first_phase=True) | keep('frames')")
    pair = flow_pair(0)

    def reversed_share(position):
        rngs = map(np.random.default_rng, range(200))
        frames = [line(pair | {"position": position}, rng)["frames"] for rng in rngs]
        return np.mean([np.array_equal(x, pair["frames"][::-1]) for x in frames])

    assert 0.4 < reversed_share(100) < 0.6
    assert reversed_share(101) == 0


def test_errors():
    stereo, rng = flow_pair(task="stereo"), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"swaps the eyes of a stereo pair; give flips=\(0, 0.1\)"):
        pair_augmentation.augment_pair(stereo, rng, 32, 32)
    with pytest.raises(ValueError, match="the frames are 48 x 64; choose a smaller crop"):
        pair_augmentation.augment_pair(stereo, rng, 49, 32)
    with pytest.raises(ValueError, match="reverse_pair is for flow"):
        pair_transforms.reverse_pair(stereo, rng, probability=1.0)
    assert {"augment_pair", "jitter_pair", "erase_second", "reverse_pair"} <= set(
        transforms.TRANSFORMS
    )


@pytest.mark.parametrize(
    ("line", "changed"),
    [("augment_pair(32, 40)", "field"), ("jitter_pair", "frames"), ("erase_second", "frames")],
)
def test_augmentation_grows_with_the_position(line, changed):
    """Nothing, then half of its severity, then all of it."""
    grown = parse(f"grow(10, 20) | {line} | keep('{changed}')")

    def at(position, index):
        example = flow_pair(index) | {"position": position}
        return grown(example, np.random.default_rng(index))[changed]

    def plainly(severity, index):
        name, _, rest = line.partition("(")
        strength = "probability" if name == "erase_second" else "severity"
        full = 0.5 if name == "erase_second" else 1.0
        arguments = ", ".join(x for x in (rest.rstrip(")"), f"{strength}={severity * full}") if x)
        plain = parse(f"{name}({arguments}) | keep('{changed}')")
        return plain(flow_pair(index), np.random.default_rng(index))[changed]

    differ = 0
    for index in range(4):
        for position, severity in ((0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (1000, 1.0)):
            np.testing.assert_array_equal(at(position, index), plainly(severity, index))
        differ += not np.array_equal(at(10, index), at(20, index))
    assert differ
    with pytest.raises(ValueError, match=r"grow\(20, 20\): positions ascend"):
        parse("grow(20, 20) | keep('field')")({"position": 3}, np.random.default_rng(0))


def test_views_as_one_picture():
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    rng = np.random.default_rng(0)

    def run(line):
        return parse(line)({"frames": frames, "label": 1}, rng)

    left, right = frames
    np.testing.assert_array_equal(run("left_twice | keep('frames')")["frames"], [left, left])
    np.testing.assert_array_equal(run("left_view | keep('image')")["image"], left)
    beside = run("side_by_side | keep('image', 'label')")
    np.testing.assert_array_equal(beside["image"], np.concatenate([left, right], axis=1))
    assert set(beside) == {"image", "label"}
