"""Augmentation of pairs: crops and scalings of both frames and their truth, light, erased patches.

    "augment_pair(368, 496) | jitter_pair | erase_second | keep('frames', 'field', 'valid')"

An example has the fields that `scenes.py` makes: `frames` uint8 [2, H, W, 3], `field` float32 [H,
W, 2] (flow: right, down) or [H, W, 1] (disparity), `valid` bool [H, W] and, where the source has
it, `occluded` bool [H, W]. The numbers are those of RAFT (Teed & Deng 2020), whose augmentation
also trained the Perceiver IO flow model (Jaegle et al. 2022, app. H). That model's training began
with random crops alone, which are `augment_pair(368, 496, severity=0)`; then the augmentation grew
(`grow`).
"""

import math

import cv2
import numpy as np

from perceiver_jax.config_types import Fraction, NonNegative, Pixels, Whole
from perceiver_jax.data.pair_transforms import points_outside
from perceiver_jax.data.transforms import Example, transform


@transform
def grow(example: Example, rng: np.random.Generator, start: Whole, stop: Whole) -> Example:
    """Makes the transforms behind it grow with training: their `severity` rises from 0 to 1.

    Args:
      start: examples read in training (step x batch size) before the severity begins to rise.
      stop: the number of examples, > start, from which on the severity is 1.
    """
    if not 0 <= start < stop:
        raise ValueError(f"grow({start}, {stop}): positions ascend from 0")
    done = (example["position"] - start) / (stop - start)
    return {**example, "severity": min(max(done, 0.0), 1.0)}


@transform
def augment_pair(
    example: Example,
    rng: np.random.Generator,
    height: Pixels,
    width: Pixels,
    severity: NonNegative = 1.0,
    flips: tuple[Fraction, Fraction] = (0.5, 0.1),
) -> Example:
    """Scales, stretches and mirrors the pair, then crops it at random to [height, width].

    With probability 0.8 the sides grow by one factor 2^U(-0.2, 0.5), and with 0.8 each of them by
    another 2^U(-0.2, 0.2), but never to less than the crop. `severity` (times that of `grow`)
    multiplies the exponents and the probabilities of `flips` (left-right, up-down). Frames are
    interpolated linearly. The truth is that of the nearest pixel, so that no value lies between two
    surfaces. Pixels that move out of the crop become occluded.

    Raises:
      ValueError: the frames are smaller than the crop, or a stereo pair would be mirrored
        left-right, which swaps the eyes.
    """
    severity *= example.get("severity", 1.0)
    frames, field = example["frames"], example["field"]
    old_height, old_width = frames.shape[1:3]
    if height > old_height or width > old_width:
        raise ValueError(
            f"augment_pair({height}, {width}): the frames are {old_height} x {old_width}; "
            "choose a smaller crop"
        )
    if field.shape[-1] == 1 and flips[0]:
        raise ValueError(
            "augment_pair: mirroring left and right swaps the eyes of a stereo pair; give "
            f"flips=(0, {flips[1]})"
        )
    scale_x, scale_y = _scales(rng, severity)
    scale_x, scale_y = max(scale_x, width / old_width), max(scale_y, height / old_height)
    if scale_x == scale_y == 1:  # only a crop: do not resample
        left, top = rng.integers((old_width - width + 1, old_height - height + 1))
    else:
        left, top = rng.random(2) * (old_width * scale_x - width, old_height * scale_y - height)
    mirrored = rng.random(2) < severity * np.array(flips)
    sign_x, sign_y = 1 - 2 * mirrored.astype(int)

    # Pixel centres: new (x + 0.5) = scale * old (x + 0.5) - left; a mirrored axis counts back.
    step_x, step_y = sign_x / scale_x, sign_y / scale_y
    start_x = (left + (width - 0.5 if mirrored[0] else 0.5)) / scale_x - 0.5
    start_y = (top + (height - 0.5 if mirrored[1] else 0.5)) / scale_y - 0.5
    to_old = np.array([[step_x, 0, start_x], [0, step_y, start_y]])

    columns = _nearest(start_x + step_x * np.arange(width), old_width)
    rows = _nearest(start_y + step_y * np.arange(height), old_height)
    factors = (sign_x * scale_x, sign_y * scale_y)[: field.shape[-1]]
    changed = {
        "frames": np.stack([_warped(frame, to_old, (width, height)) for frame in frames]),
        "field": field[rows[:, None], columns] * np.array(factors, np.float32),
        "valid": example["valid"][rows[:, None], columns],
    }
    if "occluded" in example:
        outside = points_outside(changed["field"])
        changed["occluded"] = example["occluded"][rows[:, None], columns] | outside
    return {**example, **changed}


@transform
def jitter_pair(
    example: Example,
    rng: np.random.Generator,
    severity: NonNegative = 1.0,
    asymmetric: Fraction = 0.2,
) -> Example:
    """Changes brightness, contrast and saturation by factors in 1 +- 0.4, the hue by +-0.16 turns.

    Both frames change alike, or with probability `asymmetric` each by itself. `severity` (times
    that of `grow`) multiplies the ranges.
    """
    severity *= example.get("severity", 1.0)
    if severity == 0:
        return example
    apart = rng.random() < asymmetric
    first = _light(rng, severity)
    second = _light(rng, severity)
    lights = (first, second if apart else first)
    frames = [_lit(frame, *light) for frame, light in zip(example["frames"], lights, strict=True)]
    return {**example, "frames": np.stack(frames)}


@transform
def erase_second(
    example: Example,
    rng: np.random.Generator,
    sides: tuple[Pixels, Pixels] = (50, 100),
    probability: Fraction = 0.5,
) -> Example:
    """Fills one or two rectangles of the second frame with its mean colour: a simple occlusion.

    Their sides are `sides` pixels long, cut at the border. The truth does not change. The severity
    of `grow` multiplies `probability`.
    """
    probability *= example.get("severity", 1.0)
    frames = example["frames"].copy()
    height, width = frames.shape[1:3]
    mean = frames[1].mean((0, 1))
    for _ in range(rng.integers(1, 3) if rng.random() < probability else 0):
        top, left = rng.integers(height), rng.integers(width)
        down, right = rng.integers(sides[0], sides[1] + 1, 2)
        frames[1, top : top + down, left : left + right] = mean
    return {**example, "frames": frames}


def _scales(rng: np.random.Generator, severity: float) -> tuple[float, float]:
    """Factors of (width, height)."""
    scaled, stretched = rng.random(2) < 0.8
    scale, *stretch = severity * rng.uniform((-0.2, -0.2, -0.2), (0.5, 0.2, 0.2))
    if not scaled:
        return 1.0, 1.0
    return tuple(2 ** (scale + stretched * s) for s in stretch)


def _nearest(place: np.ndarray, length: int) -> np.ndarray:
    return np.clip(np.rint(place).astype(int), 0, length - 1)


def _warped(frame: np.ndarray, to_old: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, to_old, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _light(rng: np.random.Generator, severity: float) -> np.ndarray:
    """Factors of brightness, contrast and saturation, and turns of the hue."""
    ranges = np.array([0.4, 0.4, 0.4, 0.5 / math.pi])
    return (1, 1, 1, 0) + severity * ranges * rng.uniform(-1, 1, 4)


def _lit(
    frame: np.ndarray, brightness: float, contrast: float, saturation: float, turns: float
) -> np.ndarray:
    """Applies them in this order; contrast is about the mean grey, saturation about the pixel's."""
    mean = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean() * brightness
    tones = np.clip(np.arange(256) * brightness, 0, 255)
    tones = np.clip(mean + contrast * (tones - mean), 0, 255)
    frame = cv2.LUT(frame, np.rint(tones).astype(np.uint8))
    hue, strength, value = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL))
    hue = hue + np.uint8(round(turns * 256) % 256)  # wraps, as hues do
    turned = cv2.cvtColor(cv2.merge([hue, strength, value]), cv2.COLOR_HSV2RGB_FULL)
    grey = cv2.cvtColor(cv2.cvtColor(turned, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(turned, saturation, grey, 1 - saturation, 0)
