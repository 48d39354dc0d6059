"""Transforms of point clouds: float32 `points` [n, d], and fields [n, c] of the same points.

    "sample_points(2048) | scale_points(0.99, 1.01) | center_points | unit_cube | keep(...)"

`sample_points` or `first_points` gives all clouds of a batch one size, with `points_mask` bool [n],
False on padding; they come first, and the others leave padding where it is.

Reference: Perceiver (Jaegle et al. 2021), section 4.3.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from perceiver_jax.config_types import NonNegative, Positive, Size
from perceiver_jax.data.transforms import Example, transform

AXES = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}  # the plane that turns


@transform
def sample_points(example: Example, rng: np.random.Generator, count: Size) -> Example:
    """Draws `count` points without replacement, in random order; fewer are padded with zeros."""
    return _take(example, rng.permutation(len(example["points"]))[:count], count)


@transform
def first_points(example: Example, rng: np.random.Generator, count: Size) -> Example:
    """Takes the first `count` points; fewer are padded with zeros."""
    del rng
    return _take(example, np.arange(min(len(example["points"]), count)), count)


def _take(example: Example, rows: np.ndarray, count: int) -> Example:
    def taken(value):
        value = np.asarray(value)[rows]
        return np.pad(value, ((0, count - len(rows)), (0, 0)))

    size = len(example["points"])
    fields = {name: x for name, x in example.items() if np.ndim(x) == 2 and len(x) == size}
    fields = {name: taken(x) for name, x in fields.items()}
    return {**example, **fields, "points_mask": np.arange(count) < len(rows)}


@transform
def scale_points(
    example: Example, rng: np.random.Generator, low: Positive, high: Positive
) -> Example:
    """Multiplies each point by its own random factor, uniform between `low` and `high`."""
    return _moved(example, lambda x: x * rng.uniform(low, high, (len(x), 1)))


@transform
def shift_points(example: Example, rng: np.random.Generator, most: NonNegative) -> Example:
    """Moves each point by up to `most` along every axis, uniformly."""
    return _moved(example, lambda x: x + rng.uniform(-most, most, x.shape))


@transform
def rotate_points(
    example: Example, rng: np.random.Generator, axis: Literal["x", "y", "z"]
) -> Example:
    """Turns the cloud, and `normal` if there is one, by a random angle about an axis."""
    angle = rng.uniform(0, 2 * np.pi)
    first, second = AXES[axis]
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    fields = [name for name in ("points", "normal") if name in example]
    return {**example, **{name: _float32(example[name] @ turn.T) for name in fields}}


@transform
def center_points(example: Example, rng: np.random.Generator) -> Example:
    """Moves the mean of the points to zero."""
    del rng
    return _moved(example, lambda x: x - x.mean(axis=0))


@transform
def unit_cube(example: Example, rng: np.random.Generator) -> Example:
    """Divides by the largest absolute coordinate, so that all are in -1..1.

    The paper says "unit cube" and not how; Fourier features are made for -1..1.
    """
    del rng
    return _moved(example, lambda x: x / max(np.abs(x).max(), 1e-12))


def _moved(example: Example, move: Callable[[np.ndarray], np.ndarray]) -> Example:
    """The example with its points moved, of which padding is none."""
    points = np.asarray(example["points"], np.float64)
    present = example.get("points_mask", np.ones(len(points), bool))
    result = np.zeros_like(points)
    if present.any():
        result[present] = move(points[present])
    return {**example, "points": _float32(result)}


def _float32(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32)
