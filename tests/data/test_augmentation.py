"""Each of the 16 operations against a plain statement of its definition."""

import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from perceiver_jax.data import augmentation as ra

MAGNITUDES = (1, 5, 8, 10)


class Coin:
    """A generator whose coin always falls the same way, and whose integers are given."""

    def __init__(self, negative=False, integers=()):
        self.negative, self.integers_left = negative, list(integers)

    def random(self):
        return 0.0 if self.negative else 0.9

    def integers(self, high):
        value = self.integers_left.pop(0)
        assert value < high
        return value


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def image(request):
    """Ramps of 20 to 200 in different directions with noise: not of full contrast, not square."""
    y, x = np.indices((90, 120)) / 119
    planes = np.stack([x, y + 0.2, (x + y) / 2], -1)[..., : request.param]
    noise = np.random.default_rng(1).integers(0, 12, planes.shape)
    return (20 + 170 * planes + noise).astype(np.uint8)


def test_there_are_sixteen_each_as_likely_and_always_applied(monkeypatch):
    names = [op.__name__ for op in ra.OPERATIONS]
    assert len(set(names)) == len(names) == 16
    calls = []
    ops = tuple(lambda i, m, rng, n=n: calls.append((n, m)) or i for n in names)
    monkeypatch.setattr(ra, "OPERATIONS", ops)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        ra.augment(np.zeros((2, 2, 3), np.uint8), rng, layers=4, magnitude=5)
    assert len(calls) == 4000
    assert {m for _, m in calls} == {5}
    counts = [sum(n == name for n, _ in calls) for name in names]
    assert min(counts) > 180
    assert max(counts) < 320


def test_magnitude_out_of_range():
    with pytest.raises(ValueError, match="0 to 10, got 11"):
        ra.augment(np.zeros((2, 2, 3), np.uint8), np.random.default_rng(0), layers=1, magnitude=11)


def test_shape_type_and_input_are_kept(image):
    before = image.copy()
    for op in ra.OPERATIONS:
        for magnitude in (0, 5, 10):
            got = op(image, magnitude, np.random.default_rng(0))
            assert (got.shape, got.dtype) == (image.shape, np.uint8), op.__name__
            np.testing.assert_array_equal(image, before, err_msg=op.__name__)


def test_auto_contrast(image):
    got = ra.auto_contrast(image, 5, None)
    for c in range(image.shape[-1]):
        plane = image[..., c].astype(float)
        want = (plane - plane.min()) / (plane.max() - plane.min()) * 255
        np.testing.assert_allclose(got[..., c], want, atol=1.001)  # fractions are cut
        assert (got[..., c].min(), got[..., c].max()) == (0, 255)
    flat = np.full_like(image, 7)
    np.testing.assert_array_equal(ra.auto_contrast(flat, 5, None), flat)


def test_equalize_is_pils(image):
    planes = [ImageOps.equalize(Image.fromarray(image[..., c])) for c in range(image.shape[-1])]
    np.testing.assert_array_equal(ra.equalize(image, 5, None), np.stack(planes, -1))
    flat = np.full_like(image, 7)
    np.testing.assert_array_equal(ra.equalize(flat, 5, None), flat)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_pointwise(image, magnitude):
    x = image.astype(int)
    step = 2 ** (8 - int(magnitude / 10 * 4))
    threshold, addition = int(magnitude / 10 * 256), int(magnitude / 10 * 110)
    np.testing.assert_array_equal(ra.invert(image, magnitude, None), 255 - x)
    np.testing.assert_array_equal(ra.posterize(image, magnitude, None), x // step * step)
    want = np.where(x < threshold, x, 255 - x)
    np.testing.assert_array_equal(ra.solarize(image, magnitude, None), want)
    want = np.where(x < 128, np.minimum(x + addition, 255), x)
    np.testing.assert_array_equal(ra.solarize_add(image, magnitude, None), want)


def test_effective_arguments_at_five():
    """The recipe's magnitude: posterize to 2 bits, solarize from 128, add 55, cut out 40 x 40."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert len(np.unique(ra.posterize(ramp, 5, None))) == 4
    assert ra.solarize(ramp, 5, None).max() == 127
    assert ra.solarize_add(ramp, 5, None)[0, 0, 0] == 55
    hole = ra.cutout(np.zeros((100, 100, 1), np.uint8), 5, Coin(integers=[50, 50]))
    assert (hole == 128).sum() == 40 * 40


@pytest.mark.parametrize("op", [ra.color, ra.contrast, ra.brightness, ra.sharpness])
def test_enhancements_are_the_identity_at_five(image, op):
    assert op(image, 5, None) is image


@pytest.mark.parametrize("magnitude", [1, 8, 10])
def test_enhancements(image, magnitude):
    factor = magnitude / 10 * 1.8 + 0.1
    x = image.astype(float)

    def check(op, degenerate, atol):
        want = np.clip(degenerate + factor * (x - degenerate), 0, 255)
        np.testing.assert_allclose(op(image, magnitude, None), want, atol=atol)

    luma = x @ [0.299, 0.587, 0.114] if x.shape[-1] == 3 else x[..., 0]
    check(ra.color, np.repeat(luma[..., None], x.shape[-1], -1), 1.0)
    check(ra.contrast, np.full_like(x, luma.mean()), 2.0)
    check(ra.brightness, np.zeros_like(x), 0.5001)
    smooth = x.copy()
    weights = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth[1:-1, 1:-1] = sum(
        weights[i, j] * x[i : i + x.shape[0] - 2, j : j + x.shape[1] - 2]
        for i in range(3)
        for j in range(3)
    )
    check(ra.sharpness, smooth, 1.0)


def nearest(image, source_of):
    """Output pixel (x, y) is the input pixel nearest to source_of(x, y), 128 outside."""
    height, width, _ = image.shape
    want = np.full(image.shape, 128, int)
    for y in range(height):
        for x in range(width):
            u, v = source_of(x, y)
            u, v = round(u), round(v)
            if 0 <= u < width and 0 <= v < height:
                want[y, x] = image[v, u]
    return want


@pytest.mark.parametrize("magnitude", [3, 5, 10])
@pytest.mark.parametrize("negative", [False, True])
def test_geometry(image, magnitude, negative):
    sign = -1 if negative else 1
    shear, pixels = sign * magnitude / 10 * 0.3, sign * magnitude / 10 * 100
    angle = math.radians(sign * magnitude / 10 * 30)
    cx, cy = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2

    def turned(x, y):
        x, y = x - cx, y - cy
        return (
            math.cos(angle) * x - math.sin(angle) * y + cx,
            math.sin(angle) * x + math.cos(angle) * y + cy,
        )

    sources = {
        ra.rotate: turned,
        ra.shear_x: lambda x, y: (x + shear * y, y),
        ra.shear_y: lambda x, y: (x, y + shear * x),
        ra.translate_x: lambda x, y: (x + pixels, y),
        ra.translate_y: lambda x, y: (x, y + pixels),
    }
    for op, source_of in sources.items():
        got, want = op(image, magnitude, Coin(negative)), nearest(image, source_of)
        # A point halfway between two pixels may go either way.
        differ = (got != want).any(-1).mean()
        assert differ < (0.001 if op in {ra.translate_x, ra.translate_y} else 0.07), op.__name__


def test_signs_fall_both_ways(image):
    for op in (ra.rotate, ra.shear_x, ra.shear_y, ra.translate_x, ra.translate_y):
        results = [op(image, 5, np.random.default_rng(seed)).tobytes() for seed in range(40)]
        assert len(set(results)) == 2
        assert 8 < results.count(results[0]) < 32


@pytest.mark.parametrize("centre", [(45, 60), (0, 0), (89, 119), (3, 100)])
def test_cutout(image, centre):
    got = ra.cutout(image, 5, Coin(integers=centre))
    y, x = np.indices(image.shape[:2])
    inside = (
        (y >= centre[0] - 20) & (y < centre[0] + 20) & (x >= centre[1] - 20) & (x < centre[1] + 20)
    )
    np.testing.assert_array_equal(got, np.where(inside[..., None], 128, image))
