"""RandAugment as the Perceiver IO ImageNet recipe uses it: 4 layers, magnitude 5.

Perceiver IO, App. A.1 (4 layers, magnitude 5); RandAugment, Cubuk et al. 2020, arXiv 1909.13719.
The operations are those of the EfficientNet code, which the official pipeline uses:

  * 16 operations, drawn uniformly and with replacement, always applied.
  * Each is `op(image, magnitude, rng)`, with a magnitude M from 0 to 10. Signed operations draw
    their sign with probability 1/2.
  * Geometric operations read the nearest pixel and fill with 128.
  * At M = 5 the enhancement factor is exactly 1, so color, contrast, brightness and sharpness
    change nothing: 4 of the 16 are the identity.

There are two deliberate differences, without effect at M = 5. Blends round, where the original
truncates. `contrast` blends with the mean grey value; the original computes the number of pixels /
256 instead, which is white for any image above 256 x 256.

Images are uint8 [H, W, C] with C = 3, or C = 1, for which `color` is the identity. The operations
use tables of 256 entries and OpenCV, several times as fast as NumPy arithmetic on whole images.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

FILL = 128
_LEVELS = np.arange(256)


def augment(
    image: np.ndarray, rng: np.random.Generator, *, layers: int, magnitude: float
) -> np.ndarray:
    """Applies `layers` random operations to uint8 [H, W, C]; does not change `image`."""
    if not 0 <= magnitude <= 10:
        raise ValueError(f"randaugment: the magnitude is 0 to 10, got {magnitude}")
    for _ in range(layers):
        image = OPERATIONS[rng.integers(len(OPERATIONS))](image, magnitude, rng)
    return image


# --- Tone: one table of 256 entries per channel ----------------------------------------------


def auto_contrast(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Stretches each channel linearly to 0..255; keeps a constant channel."""
    return _lookup(image, np.stack([_stretch(counts) for counts in _histograms(image)]))


def _stretch(counts: np.ndarray) -> np.ndarray:
    present = np.flatnonzero(counts)
    low, high = present[0], present[-1]
    if low == high:
        return _LEVELS
    scale = np.float32(255) / np.float32(high - low)
    return np.clip(_LEVELS.astype(np.float32) * scale - np.float32(low) * scale, 0, 255)


def equalize(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Flattens each channel's histogram, with PIL's integer arithmetic."""
    return _lookup(image, np.stack([_flatten(counts) for counts in _histograms(image)]))


def _flatten(counts: np.ndarray) -> np.ndarray:
    last = counts[np.flatnonzero(counts)[-1]]
    step = (counts.sum() - last) // 255
    if step == 0:
        return _LEVELS
    before = np.cumsum(counts) - counts  # pixels darker than each level
    return np.clip((before + step // 2) // step, 0, 255) * (_LEVELS > 0)


def invert(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """255 - image."""
    return _lookup(image, 255 - _LEVELS)


def posterize(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Keeps the int(M / 10 * 4) highest bits: 2 at M = 5, and none (a black image) below M = 2.5.

    A *higher* magnitude changes less here. Other implementations of RandAugment reverse this.
    """
    shift = 8 - int(magnitude / 10 * 4)
    return _lookup(image, _LEVELS >> shift << shift)


def solarize(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Inverts the levels from int(M / 10 * 256) on: from 128 at M = 5."""
    return _lookup(image, np.where(int(magnitude / 10 * 256) > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Adds int(M / 10 * 110), saturating, to the levels below 128: 55 at M = 5."""
    raised = np.minimum(_LEVELS + int(magnitude / 10 * 110), 255)
    return _lookup(image, np.where(_LEVELS < 128, raised, _LEVELS))


# --- Enhancement: degenerate + factor * (image - degenerate) ---------------------------------


def color(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Blends with the grey image: away from it (factor > 1) or towards it."""
    return image if image.shape[-1] == 1 else _blend(_grey_of, image, magnitude)


def contrast(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Blends with the mean grey level, as `color`."""
    return _blend(lambda x: np.full_like(x, int(_grey_of(x).mean())), image, magnitude)


def brightness(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Blends with black, as `color`."""
    return _blend(np.zeros_like, image, magnitude)


def sharpness(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Blends with the image smoothed by [1 1 1; 1 5 1; 1 1 1] / 13; keeps the border pixels."""
    return _blend(_smoothed, image, magnitude)


def _blend(
    degenerate: Callable[[np.ndarray], np.ndarray], image: np.ndarray, magnitude: float
) -> np.ndarray:
    factor = magnitude / 10 * 1.8 + 0.1
    if factor == 1.0:
        return image
    return _shaped(cv2.addWeighted(image, factor, degenerate(image), 1 - factor, 0), image)


def _grey_of(image: np.ndarray) -> np.ndarray:
    """Luma 0.299 R + 0.587 G + 0.114 B, in every channel."""
    if image.shape[-1] == 1:
        return image
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _smoothed(image: np.ndarray) -> np.ndarray:
    kernel = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = image.copy()
    smooth[1:-1, 1:-1] = _shaped(cv2.filter2D(image, -1, kernel), image)[1:-1, 1:-1]
    return smooth


# --- Geometry: each matrix maps an output pixel (x, y, 1) to the input pixel that it shows ------


def rotate(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Rotates by +-M / 10 * 30 degrees about the centre."""
    angle = math.radians(_signed(magnitude / 10 * 30, rng))
    x, y = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return _warp(image, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


def shear_x(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Moves row y by +-M / 10 * 0.3 y pixels, so the top left corner stays."""
    return _warp(image, [[1, _signed(magnitude / 10 * 0.3, rng), 0], [0, 1, 0]])


def shear_y(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Moves column x by +-M / 10 * 0.3 x pixels."""
    return _warp(image, [[1, 0, 0], [_signed(magnitude / 10 * 0.3, rng), 1, 0]])


def translate_x(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Moves by +-M / 10 * 100 pixels at any image size: too far for images as small as CIFAR's."""
    return _warp(image, [[1, 0, _signed(magnitude / 10 * 100, rng)], [0, 1, 0]])


def translate_y(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """As `translate_x`, vertically."""
    return _warp(image, [[1, 0, 0], [0, 1, _signed(magnitude / 10 * 100, rng)]])


def cutout(image: np.ndarray, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Fills a square of half-side int(M / 10 * 40) about a uniform pixel: 40 x 40 at M = 5."""
    half = int(magnitude / 10 * 40)
    y, x = rng.integers(image.shape[0]), rng.integers(image.shape[1])
    image = image.copy()
    image[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = FILL
    return image


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() < 0.5 else value


def _warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    height, width, channels = image.shape
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    fill = (FILL,) * channels
    matrix = np.float64(matrix)
    return _shaped(
        cv2.warpAffine(image, matrix, (width, height), flags=flags, borderValue=fill), image
    )


def _histograms(image: np.ndarray) -> np.ndarray:
    """Counts of each level, int64 [C, 256]."""
    channels = range(image.shape[-1])
    counts = [cv2.calcHist([image], [c], None, [256], [0, 256]).ravel() for c in channels]
    return np.stack(counts).astype(np.int64)


def _lookup(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Maps levels by `table`, [256] for all channels or [C, 256] for each; truncates fractions."""
    table = np.ascontiguousarray(np.atleast_2d(table).T.astype(np.uint8))  # [256, 1 or C]
    return _shaped(cv2.LUT(image, table[:, None]), image)


def _shaped(result: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Restores the axis of a single channel, which OpenCV drops."""
    return result.reshape(image.shape)


OPERATIONS = (
    auto_contrast,
    equalize,
    invert,
    rotate,
    posterize,
    solarize,
    color,
    contrast,
    brightness,
    sharpness,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    cutout,
    solarize_add,
)
