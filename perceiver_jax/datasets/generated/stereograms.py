"""Random-dot stereograms: depth that neither eye sees by itself (Julesz 1960).

The left eye's image is a random field of black and white dots: each site of a fine lattice has a
dot with the same probability, independently. The surface's disparity moves each dot to a site of
the right eye's lattice, where the nearest surface hides those behind it. Sites that no dot is moved
to are drawn at random again. So the sites of either eye alone are independent draws of one
distribution for any surface, and carry no information about it. Dots become pixels last: moving
finished pixels would leave gaps and copies, and blur or cut dots at the surface's edges.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.generated.source import (
    Generated,
    check_generated,
    configured,
    require_choice,
    require_range,
    require_size,
)

SURFACES = ("plane", "step", "disc", "corrugation", "smooth")
EYES = ("both", "swapped", "left", "left_twice")


@dataclasses.dataclass(frozen=True)
class Stereogram:
    """Makes one stereogram when called with a random generator.

    An example is `frames` uint8 [2, H, W, 3] (left, right), `field` float32 [H, W, 1] (disparity in
    pixels in the left view: x_right = x_left - disparity), `valid` bool [H, W] and `occluded` bool
    [H, W] (pixels of the left view without a partner in the right one, its border included).

    Attributes:
      size: (H, W) in pixels.
      density: the area of all dots per area of the image, before they overlap.
      dot_size: side of a square dot in pixels.
      disparity: (lowest, highest) in pixels; positive is nearer than the screen.
      surface: one of `SURFACES`, or `mix` for one of them at random.
      subpixel: disparities and dots lie on 1 / subpixel of a pixel; 1 is whole pixels.
      correlation: the fraction of the right eye's sites that are not drawn again: 1 is fully
        correlated, 0 uncorrelated (Read et al. 2011).
      reversed: the fraction of matched dots with the opposite contrast in the right eye: 1 is
        anticorrelated (Cumming & Parker 1997), 0.5 half-matched (correlation zero on average).
      vertical: whole pixels by which the right eye's dots are moved down.
      eyes: `both`, or a control: `swapped` (truth and masks are those of the new left eye; `valid`
        is False where the surface is unknown there), `left` (the right eye sees uniform grey) or
        `left_twice`. The last two keep the truth, although it cannot be seen.
    """

    size: tuple[int, int] = (64, 64)
    density: float = 1.0
    dot_size: int = 1
    disparity: tuple[float, float] = (-4.0, 4.0)
    surface: str = "mix"
    subpixel: int = 1
    correlation: float = 1.0
    reversed: float = 0.0
    vertical: int = 0
    eyes: str = "both"

    def __post_init__(self):
        require_choice("surface", self.surface, (*SURFACES, "mix"))
        require_choice("eyes", self.eyes, EYES)
        require_size(self.size)
        require_range("disparity", self.disparity, -self.size[1] / 4, self.size[1] / 4)
        require_range("dot_size", self.dot_size, 1, 64, whole=True)
        require_range("subpixel", self.subpixel, 1, 16, whole=True)
        require_range("density", self.density, 0, self.dot_size**2)
        require_range("vertical", self.vertical, -self.size[0] / 4, self.size[0] / 4, whole=True)
        require_range("correlation", self.correlation, 0, 1)
        require_range("reversed", self.reversed, 0, 1)

    def __call__(self, rng: np.random.Generator) -> Example:
        return self.render(rng, self.depth(rng))

    def margins(self) -> tuple[int, int]:
        """(rows, columns) outside the image, on each side, whose dots may reach into it."""
        sideways = math.ceil(max(map(abs, self.disparity)))
        return abs(self.vertical) + self.dot_size, sideways + self.dot_size

    def depth(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a surface: disparities in sub-pixels, int16, of the image with its margins."""
        kind = str(rng.choice(SURFACES)) if self.surface == "mix" else self.surface
        (rows, columns), (height, width) = self.margins(), self.size
        # In units of the image's shorter side, from its centre.
        y, x = np.mgrid[-rows : height + rows, -columns : width + columns].astype(np.float32)
        side = min(height, width)
        y, x = (y - (height - 1) / 2) / side, (x - (width - 1) / 2) / side
        level = _SURFACES[kind](rng, y, x)  # 0..1 within the image
        low, high = self.disparity
        disparity = low + (high - low) * np.clip(level, 0, 1)
        return np.rint(disparity * self.subpixel).astype(np.int16)

    def render(self, rng: np.random.Generator, shift: np.ndarray) -> Example:
        """The stereogram of a surface as `depth` gives it."""
        rows, columns = self.margins()
        sites = np.repeat(shift, self.subpixel, axis=1)  # one column for each lattice site
        left = self._dots(rng, sites.shape)
        partner = _partners(sites)  # in the right eye: column of the left one, or -1
        seen = partner >= 0
        right = np.where(seen, np.take_along_axis(left, np.maximum(partner, 0), axis=1), 0)
        right = np.where(rng.random(right.shape, np.float32) < self.reversed, -right, right)
        fresh = ~seen | (rng.random(right.shape, np.float32) >= self.correlation)
        right = np.where(fresh, self._dots(rng, right.shape), right)
        right = np.roll(right, self.vertical, axis=0)  # wrapped rows stay in the margin

        crop = np.s_[rows:-rows, columns:-columns]
        views = [self._draw(eye)[crop] for eye in (left, right)]
        inside = _between(partner // self.subpixel, columns, shift.shape[1] - columns)
        if self.eyes == "swapped":
            views.reverse()
            valid = _per_pixel(seen, self.subpixel) >= 0.5
            occluded = _per_pixel(seen & inside, self.subpixel) < 0.5
            field = np.where(valid, -_moved(sites, partner, self.subpixel), 0)
        else:
            landed = np.zeros(sites.shape, bool)
            column = np.arange(sites.shape[1]) // self.subpixel
            visible = seen & _between(column, columns, shift.shape[1] - columns)
            row, _ = np.nonzero(visible)
            landed[row, partner[visible]] = True
            occluded = _per_pixel(landed, self.subpixel) < 0.5
            field, valid = shift, np.ones(shift.shape, bool)
        if self.eyes == "left":
            views[1] = np.zeros_like(views[1])
        elif self.eyes == "left_twice":
            views[1] = views[0]
        frames = np.rint(127.5 + 127.5 * np.stack(views)).astype(np.uint8)
        return {
            "frames": np.repeat(frames[..., None], 3, axis=-1),
            "field": (field[crop] / np.float32(self.subpixel)).astype(np.float32)[..., None],
            "valid": valid[crop].copy(),
            "occluded": occluded[crop].copy(),
        }

    def _dots(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Independent sites: -1 a black dot, 1 a white one, 0 none."""
        chance = self.density / self.dot_size**2 / self.subpixel
        draw = rng.random(shape, np.float32)
        return (draw < chance).astype(np.int8) - 2 * (draw < chance / 2).astype(np.int8)

    def _draw(self, dots: np.ndarray) -> np.ndarray:
        """Sites [H, W * subpixel] -> contrasts -1..1 [H, W]: squares that add up and saturate."""
        side = (self.dot_size * self.subpixel, self.dot_size)
        image = cv2.boxFilter(dots.astype(np.float32), -1, side, normalize=False)
        image = np.clip(image, -1, 1)
        return _per_pixel(image, self.subpixel)


check_options = functools.partial(check_generated, Stereogram)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `stereograms`; `options` are the attributes of `Stereogram`."""
    del data_dir
    return Generated("stereograms", split, seed, configured(Stereogram, options))


def _partners(shift: np.ndarray) -> np.ndarray:
    """For each site of the right eye, the left column of the nearest dot moved there, or -1."""
    height, width = shift.shape
    column = np.arange(width, dtype=np.int32)
    source = np.flatnonzero(_between(column - shift, 0, width))
    # Far to near: of several assignments to one site the last one holds.
    source = source[np.argsort(shift.reshape(-1)[source], kind="stable")]
    partner = np.full(height * width, -1, np.int32)
    partner[source - shift.reshape(-1)[source]] = source % width
    return partner.reshape(height, width)


def _moved(sites: np.ndarray, partner: np.ndarray, subpixel: int) -> np.ndarray:
    """The surface as the right eye sees it: the nearest disparity in each of its pixels."""
    moved = np.take_along_axis(sites, np.maximum(partner, 0), axis=1)
    moved = np.where(partner >= 0, moved, np.iinfo(np.int16).min)
    return moved.reshape(len(sites), -1, subpixel).max(-1)


def _per_pixel(sites: np.ndarray, subpixel: int) -> np.ndarray:
    """Means of the sites of each pixel, [H, W * subpixel] -> float32 [H, W]."""
    height, width = sites.shape
    sites = sites.astype(np.float32)
    return cv2.resize(sites, (width // subpixel, height), interpolation=cv2.INTER_AREA)


def _between(x: np.ndarray, low: int, high: int) -> np.ndarray:
    return (x >= low) & (x < high)


# --- Surfaces: (generator, y, x) -> nearness 0..1 -----------------------------------------------


def _plane(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A plane slanted in any direction, as steep as the range allows."""
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 1) / (abs(np.cos(angle)) + abs(np.sin(angle)))
    room = (1 - slope * (abs(np.cos(angle)) + abs(np.sin(angle)))) / 2
    middle = 0.5 + rng.uniform(-room, room)
    return middle + slope * (x * np.cos(angle) + y * np.sin(angle))


def _two_levels(rng: np.random.Generator) -> np.ndarray:
    """Two levels at least a quarter of the range apart, in random order."""
    gap = rng.uniform(0.25, 1)
    low = rng.uniform(0, 1 - gap)
    return rng.permutation([low, low + gap])


def _step(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Two levels, divided by a straight edge of any direction."""
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
    side = x * np.cos(angle) + y * np.sin(angle) > offset
    return np.where(side, *_two_levels(rng))


def _disc(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A disc before its background, or seen through a round hole."""
    radius = rng.uniform(0.15, 0.35)
    centre_y, centre_x = rng.uniform(-0.45 + radius, 0.45 - radius, 2)
    inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
    return np.where(inside, *_two_levels(rng))


def _corrugation(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A sine of 1 to 3 cycles along any direction."""
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    height, cycles = rng.uniform(0.2, 0.5), rng.uniform(1, 3)
    middle = rng.uniform(height, 1 - height)
    along = x * np.cos(angle) + y * np.sin(angle)
    return middle + height * np.sin(2 * np.pi * cycles * along + phase)


def _smooth(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A random landscape: 3x3 to 6x6 random heights, interpolated bicubically."""
    heights = rng.random((rng.integers(3, 7),) * 2, np.float32)
    return cv2.resize(heights, y.shape[::-1], interpolation=cv2.INTER_CUBIC)


_SURFACES = {
    "plane": _plane,
    "step": _step,
    "disc": _disc,
    "corrugation": _corrugation,
    "smooth": _smooth,
}
