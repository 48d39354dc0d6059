"""Pairs of images with a value for each pixel, optical flow or disparity: examples and crops.

An example, of a real set (`pair_sets`) or a generated one:

    frames    uint8 [2, H, W, 3]     first and second, or left and right; grey images three times
    field     float32 [H, W, 2]      flow: right, down; or [H, W, 1]: the left view's disparity
    valid     bool [H, W]            where the field is known; elsewhere it is 0
    occluded  bool [H, W]            known, but hidden in the second image; only of some sets
    known     bool [H, W]            all values, of sets that mark some of them as invalid
    size      int32 [2]              H, W before `pad_pair` pads images to one size

or, to classify pairs, `frames` and a `label`.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from perceiver_jax import files
from perceiver_jax.data.transforms import Example


class Truth(NamedTuple):
    """The truth in a set's files: `field` [H, W, C] and masks [H, W], None where it has none."""

    field: np.ndarray
    valid: np.ndarray
    occluded: np.ndarray | None = None
    known: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one example: two images, and a function of paths that reads the truth."""

    first: pathlib.Path
    second: pathlib.Path
    read: Callable[..., Truth]
    truth: tuple[pathlib.Path, ...]


class Pairs:
    """A source of pairs that are files; see the module's docstring."""

    in_memory = False

    def __init__(self, name: str, pairs: list[Pair]):
        self.name, self.pairs = name, pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        pair = self.pairs[index]
        images = [files.read_image(path) for path in (pair.first, pair.second)]
        field, valid, occluded, known = truth = pair.read(*pair.truth)
        size = images[0].shape[:2]
        parts = {pair.second: images[1], pair.truth[0]: field}
        for path, array in parts.items():
            if array.shape[:2] != size:
                raise ValueError(f"{path} has the size {array.shape[:2]}, {pair.first} has {size}")
        finite = np.isfinite(field).all(axis=-1)
        valid = valid & finite
        known = valid if known is None else known & finite
        example = {
            "frames": np.stack(images),
            "field": np.where(known[..., None], field, 0).astype(np.float32),
            "valid": valid,
            "size": np.array(size, np.int32),
        }
        if occluded is not None:
            example["occluded"] = occluded & known
        if truth.known is not None:
            example["known"] = known
        return example

    def __repr__(self) -> str:
        return self.name
