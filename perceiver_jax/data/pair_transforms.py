"""Transforms of pairs: examples of other sets as pairs, padding, crops, reversed order.

    "crop_pair(368, 496) | keep('frames', 'field', 'valid', 'occluded')"

An example has `frames` uint8 [2, H, W, 3], `field` float32 [H, W, 2] (flow: right, down) or
[H, W, 1] (disparity), `valid` bool [H, W] and, where the source has it, `occluded` bool [H, W].
"""

import cv2
import numpy as np

from perceiver_jax.config_types import Fraction, Pixels
from perceiver_jax.data.transforms import Example, decode, transform

FIELDS = {"field", "valid", "occluded", "known"}  # whose first axes are [H, W]


@transform
def cityscapes_pair(example: Example, rng: np.random.Generator) -> Example:
    """TFDS `cityscapes/stereo_disparity` as a pair.

    A value p of the 16-bit `disparity_map` means (p - 1) / 256 pixels, and 0 unknown (Cordts et al.
    2016, and the dataset's own description).
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
    """Makes `frames` and `label` of two decoded images and a class, named by their fields."""
    del rng
    views = [example[name] for name in (left, right)]
    height, width = views[0].shape[:2]
    frames = np.stack([np.broadcast_to(view, (height, width, 3)) for view in views])
    return {"frames": frames, "label": example[label]}


@transform
def left_twice(example: Example, rng: np.random.Generator) -> Example:
    """The left view in both places: a pair without any disparity."""
    return {**example, "frames": example["frames"][[0, 0]]}


@transform
def left_view(example: Example, rng: np.random.Generator) -> Example:
    """Makes `image` of the left view, in place of `frames`."""
    rest = {name: value for name, value in example.items() if name != "frames"}
    return {**rest, "image": example["frames"][0]}


@transform
def side_by_side(example: Example, rng: np.random.Generator) -> Example:
    """Makes `image` [H, 2 W, C] of both views, in place of `frames`: the left one at the left."""
    rest = {name: value for name, value in example.items() if name != "frames"}
    return {**rest, "image": np.concatenate(list(example["frames"]), axis=1)}


@transform
def pad_pair(example: Example, rng: np.random.Generator, height: Pixels, width: Pixels) -> Example:
    """Pads below and at the right to one size: frames by their border pixels, `valid` by False."""
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
def crop_pair(example: Example, rng: np.random.Generator, height: Pixels, width: Pixels) -> Example:
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
def middle_pair(
    example: Example, rng: np.random.Generator, height: Pixels, width: Pixels
) -> Example:
    """Cuts the central window of a pair that has no field."""
    del rng
    frames = example["frames"]
    full = frames.shape[1:3]
    if full[0] < height or full[1] < width:
        raise ValueError(f"middle_pair({height}, {width}): the views are {full[0]} x {full[1]}")
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    return {**example, "frames": frames[:, top : top + height, left : left + width]}


@transform
def reverse_pair(
    example: Example,
    rng: np.random.Generator,
    probability: Fraction = 0.5,
    first_phase: bool = False,
) -> Example:
    """Swaps the frames and estimates the flow back, which pairs from files do not have.

    The flow back at a pixel is the negative mean of the flows that end there; where none does,
    `valid` is False (Perceiver IO, app. H). For generated scenes set `direction`, which is exact.

    Args:
      probability: of swapping; 1/2 gives both directions of every pair equally often.
      first_phase: whether to swap only before the severity of `grow` begins to rise.
    """
    if first_phase and example["severity"] > 0:
        return example
    if rng.random() >= probability:
        return example
    field = example["field"]
    if field.shape[-1] != 2:
        raise ValueError("reverse_pair is for flow: its field has 2 channels, not a disparity's 1")
    height, width = field.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x = np.rint(x + field[..., 0]).astype(int)
    to_y = np.rint(y + field[..., 1]).astype(int)
    lands = example["valid"] & (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    place = (to_y * width + to_x)[lands]
    count = np.bincount(place, minlength=height * width).reshape(height, width)
    back = [
        np.bincount(place, -field[..., axis][lands], height * width).reshape(height, width)
        for axis in (0, 1)
    ]
    changed = {
        "frames": example["frames"][::-1].copy(),
        "field": (np.stack(back, -1) / np.maximum(count, 1)[..., None]).astype(np.float32),
        "valid": count > 0,
    }
    if "occluded" in example:
        changed["occluded"] = (count == 0) | points_outside(changed["field"])
    return {**example, **changed}


def points_outside(field: np.ndarray) -> np.ndarray:
    """Whether a flow or disparity points outside of the frame, at each pixel: bool [H, W]."""
    height, width, channels = field.shape
    y, x = np.ogrid[:height, :width]
    to_x = np.rint(x + field[..., 0] if channels == 2 else x - field[..., 0])
    to_y = np.rint(y + field[..., 1]) if channels == 2 else y
    return (to_x < 0) | (to_x >= width) | (to_y < 0) | (to_y >= height)
