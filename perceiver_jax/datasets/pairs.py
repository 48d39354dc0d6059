"""Pairs of images with a value for each pixel, optical flow or disparity: examples and crops.

An example, of a real set (`pair_sets`) or a generated one:

    frames    uint8 [2, H, W, 3]     first and second, or left and right; grey images three times
    field     float32 [H, W, 2]      flow: right, down; or [H, W, 1]: the left view's disparity
    valid     bool [H, W]            where the field is known; elsewhere it is 0
    occluded  bool [H, W]            known, but not to be seen in the second image; where a set
                                     tells
    size      int32 [2]              H, W: they stay when `pad_pair` makes images of one size

or, to classify pairs, `frames` and a `label`.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from perceiver_jax import files
from perceiver_jax.data.transforms import Example, decode, transform

# (field [H, W, C], valid [H, W], occluded [H, W] or None)
Truth = tuple[np.ndarray, np.ndarray, np.ndarray | None]
FIELDS = {"field", "valid", "occluded"}  # whose first axes are [H, W]


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
        field, valid, occluded = pair.read(*pair.truth)
        size = images[0].shape[:2]
        parts = {pair.second: images[1], pair.truth[0]: field}
        for path, array in parts.items():
            if array.shape[:2] != size:
                raise ValueError(f"{path} has the size {array.shape[:2]}, {pair.first} has {size}")
        valid = valid & np.isfinite(field).all(axis=-1)
        example = {
            "frames": np.stack(images),
            "field": np.where(valid[..., None], field, 0).astype(np.float32),
            "valid": valid,
            "size": np.array(size, np.int32),
        }
        return example if occluded is None else example | {"occluded": occluded & valid}

    def __repr__(self) -> str:
        return self.name


@transform
def cityscapes_pair(example: Example, rng: np.random.Generator) -> Example:
    """TFDS `cityscapes/stereo_disparity` as a pair.

    Of the 16-bit `disparity_map` p, 0 is unknown and the rest is (p - 1) / 256 pixels (Cordts et
    al. 2016, the set's own description).
    """
    views = decode({side: example[f"image_{side}"] for side in ("left", "right")}, rng)
    png = np.frombuffer(example["disparity_map"].data, np.uint8)
    stored = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        kind = "no image" if stored is None else f"{stored.dtype} {list(stored.shape)}"
        raise ValueError(
            f"cityscapes_pair: disparity_map is a grey 16-bit PNG, got {kind}; prepare "
            "cityscapes/stereo_disparity from disparity_trainvaltest.zip"
        )
    valid = stored > 0
    field = np.where(valid, (stored.astype(np.float32) - 1) / 256, 0).astype(np.float32)
    frames = np.stack([views["left"], views["right"]])
    return {"frames": frames, "field": field[..., None], "valid": valid}


@transform
def label_pair(
    example: Example, rng: np.random.Generator, left: str, right: str, label: str
) -> Example:
    """Two decoded images and a class, by the names of their fields, as `frames` and `label`."""
    del rng
    views = [example[name] for name in (left, right)]
    height, width = views[0].shape[:2]
    frames = np.stack([np.broadcast_to(view, (height, width, 3)) for view in views])
    return {"frames": frames, "label": example[label]}


@transform
def pad_pair(example: Example, rng: np.random.Generator, height: int, width: int) -> Example:
    """Fills up to one size below and at the right: the frames' borders go on, nothing is valid."""
    frames = example["frames"]
    size = frames.shape[1:3]
    if size[0] > height or size[1] > width:
        raise ValueError(
            f"pad_pair({height}, {width}): an image has the size {size}; give the set's largest"
        )
    room = [(0, height - size[0]), (0, width - size[1])]
    padded = {"frames": np.pad(frames, [(0, 0), *room, (0, 0)], mode="edge")}
    for name in FIELDS & example.keys():
        padded[name] = np.pad(example[name], room + [(0, 0)] * (example[name].ndim - 2))
    return {"size": np.array(size, np.int32)} | example | padded


@transform
def crop_pair(example: Example, rng: np.random.Generator, height: int, width: int) -> Example:
    """Cuts a random window; images smaller than it are padded."""
    full = example["frames"].shape[1:3]
    full = max(full[0], height), max(full[1], width)
    example = pad_pair(example, rng, *full)
    top, left = (int(rng.integers(n - m + 1)) for n, m in zip(full, (height, width), strict=True))
    window = np.s_[top : top + height, left : left + width]
    cut = {name: example[name][window] for name in FIELDS & example.keys()}
    size = np.minimum(example["size"], (height, width)).astype(np.int32)
    return example | cut | {"frames": example["frames"][:, *window], "size": size}


@transform
def middle_pair(example: Example, rng: np.random.Generator, height: int, width: int) -> Example:
    """Cuts the window in the middle of a pair without a field."""
    del rng
    frames = example["frames"]
    full = frames.shape[1:3]
    if full[0] < height or full[1] < width:
        raise ValueError(f"middle_pair({height}, {width}): the views are {full[0]} x {full[1]}")
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    return {**example, "frames": frames[:, top : top + height, left : left + width]}
