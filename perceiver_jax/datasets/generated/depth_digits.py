"""Handwritten digits cut out in depth: pairs whose class two eyes see, and one eye or none.

A digit stands before its ground. In random dots (`stereograms`) either eye alone is noise that
knows nothing of it. In textures its outline shows to one eye too, as a border between two patterns.
"""

import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np

from perceiver_jax.data.transforms import Example, decode
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.source import (
    Generated,
    check_generated,
    configured,
    require_choice,
    require_range,
    require_size,
)
from perceiver_jax.datasets.generated.stereograms import Stereogram
from perceiver_jax.datasets.generated.textures import TEXTURES

PATTERNS = ("dots", *TEXTURES, "mix")


@dataclasses.dataclass(frozen=True)
class DepthDigits:
    """Called with a random generator and a source of digits, makes one labelled pair.

    An example is `frames` uint8 [2, H, W, 3] (left, right) and the digit's `label` int32.

    Attributes:
      size: (H, W) in pixels; the digit is as large as fits.
      disparity: (ground, digit) in whole pixels, the digit's larger: it is nearer.
      shift: how far the digit is from the middle at most, in pixels along each axis.
      pattern: `dots`, or one of `textures.TEXTURES` or `mix` for ground and digit apart.
      images: the source of the digits' `image` and `label`: `digits` or a TFDS name (`mnist`). Its
        splits `train` and `test` are those of the pairs.
    """

    size: tuple[int, int] = (24, 24)
    disparity: tuple[int, int] = (0, 2)
    shift: int = 2
    pattern: str = "dots"
    images: str = "digits"

    def __post_init__(self):
        require_choice("pattern", self.pattern, PATTERNS)
        require_size(self.size)
        require_range(
            "disparity", self.disparity, -self.size[1] // 4, self.size[1] // 4, whole=True
        )
        require_range("shift", self.shift, 0, min(self.size) // 4, whole=True)

    def __call__(self, rng: np.random.Generator, images: Sequence[Example]) -> Example:
        digit = decode(images[int(rng.integers(len(images)))], rng)
        frames = self.frames(rng, self.outline(rng, digit["image"]))
        return {"frames": frames, "label": np.int32(digit["label"])}

    def outline(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Where the digit of an image [h, w, 1] is in the left view: bool [H, W]."""
        side = min(self.size)
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        inside = np.zeros(self.size, np.uint8)
        top, left = ((length - side) // 2 for length in self.size)
        inside[top : top + side, left : left + side] = large > 127
        down, right = rng.integers(-self.shift, self.shift + 1, 2)
        moved = np.float32([[1, 0, right], [0, 1, down]])
        return cv2.warpAffine(inside, moved, self.size[::-1]).astype(bool)

    def frames(self, rng: np.random.Generator, inside: np.ndarray) -> np.ndarray:
        """The pair, uint8 [2, H, W, 3], of a digit's outline in the left view."""
        ground, digit = self.disparity
        if self.pattern == "dots":
            dots = Stereogram(size=self.size, disparity=self.disparity)
            rows, columns = dots.margins()
            inside = np.pad(inside, ((rows, rows), (columns, columns)))
            return dots.render(rng, np.where(inside, digit, ground).astype(np.int16))["frames"]
        height, width = self.size
        margin = max(map(abs, self.disparity))
        inside = np.pad(inside, ((0, 0), (margin, margin)))[..., None]
        patterns = []
        for _ in range(2):
            kind = str(rng.choice(tuple(TEXTURES))) if self.pattern == "mix" else self.pattern
            patterns.append(TEXTURES[kind](rng, (height, width + 2 * margin)))

        def view(ground: int, digit: int) -> np.ndarray:
            """What a view moved to the right by the planes' disparities shows."""
            behind, before = (np.s_[:, margin + d : margin + d + width] for d in (ground, digit))
            return np.where(inside[before], patterns[1][before], patterns[0][behind])

        return np.stack([view(0, 0), view(ground, digit)])


check_options = functools.partial(check_generated, DepthDigits)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `depth_digits`; `options` are those of `DepthDigits`, `data_dir` is TFDS's."""
    make = configured(DepthDigits, options)
    part = "test" if split.startswith("test") else "train"
    images = registry.load(make.images, part, data_dir=data_dir)
    return Generated("depth_digits", split, seed, functools.partial(make, images=images))
