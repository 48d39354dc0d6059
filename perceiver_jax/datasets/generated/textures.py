"""Random textures: procedural ones by name, and parts of pictures.

A texture is a function of (generator, (h, w)) that returns uint8 [h, w, 3].
"""

import math
from typing import Any

import cv2
import numpy as np

from perceiver_jax.data.transforms import decode


def _length(rng: np.random.Generator, shape: tuple[int, int], least: float, most: float) -> float:
    """A length, log-uniform from `least` pixels to the fraction `most` of the shorter side."""
    return least * max(most * min(shape) / least, 1) ** rng.random()


def _noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Three octaves of smooth noise in random colours."""
    height, width = shape
    coarse, texture = _length(rng, shape, 12, 1 / 3), None
    for cell in (coarse, coarse / 2, coarse / 4):
        grid = (max(int(height / cell), 2), max(int(width / cell), 2), 3)
        octave = rng.integers(0, 256, grid, np.uint8)
        octave = cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC)
        share = rng.uniform(0.3, 0.7)
        texture = (
            octave if texture is None else cv2.addWeighted(texture, 1 - share, octave, share, 0)
        )
    return _coloured(rng, texture)


def _blocks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Rectangles of random colours with sharp edges."""
    height, width = shape
    grid = [max(int(side / _length(rng, shape, 4, 1 / 8)), 1) for side in shape]
    texture = rng.integers(0, 256, (*grid, 3), np.uint8)
    return cv2.resize(texture, (width, height), interpolation=cv2.INTER_NEAREST)


def _stripes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A sine, half hidden in noise: stripes alone do not show motion along them."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    turns = 256 / _length(rng, shape, 5, 1 / 8)  # whole numbers: the sine is looked up
    turn_x, turn_y = (int(256 * turns * f(angle)) for f in (math.cos, math.sin))
    phases = ((turn_x * x + turn_y * y) >> 8).astype(np.uint8)
    wave = 127.5 + 127.5 * np.sin(np.arange(256) * (2 * np.pi / 256) + phase)
    stripes = cv2.merge([cv2.LUT(phases, wave.astype(np.uint8))] * 3)
    return cv2.addWeighted(_coloured(rng, stripes), 0.5, _noise(rng, shape), 0.5, 0)


def _coloured(rng: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    """Gives each channel a random mean and contrast."""
    mean, gain = rng.uniform(50, 205, 3), rng.uniform(0.4, 1.6, 3) * rng.choice((-1, 1), 3)
    tones = np.clip(mean + gain * (np.arange(256)[:, None] - 128), 0, 255)
    return cv2.LUT(texture, np.rint(tones).astype(np.uint8)[None])


def picture(rng: np.random.Generator, pictures: Any, shape: tuple[int, int]) -> np.ndarray:
    """A random part of a random image; an image that is too small is enlarged."""
    image = decode(pictures[int(rng.integers(len(pictures)))], rng)["image"]
    height, width = shape
    if image.shape[0] >= height and image.shape[1] >= width:
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        image = image[top : top + height, left : left + width]
    else:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        image = image.reshape(height, width, -1)
    return np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))


TEXTURES = {"noise": _noise, "blocks": _blocks, "stripes": _stripes}
