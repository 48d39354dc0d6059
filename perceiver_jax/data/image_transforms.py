"""Transforms of images, and of all frames of a video alike.

    "decode | inception_crop(224) | flip | randaugment(4, 5) | resize(224) | keep('image', 'label')"

The crops, `flip` and `resize` change all frames of `video`, uint8 [T, H, W, C], or the `image`,
uint8 [H, W, C], of an example without a video.
"""

import functools
from typing import Annotated

import cv2
import numpy as np

from perceiver_jax.config_types import Number, Padding, Pixels, Range, Rate, Whole
from perceiver_jax.data import augmentation
from perceiver_jax.data.transforms import Encoded, Example, transform, with_channels

Magnitude = Annotated[float, Range(0, 10)]  # of RandAugment


@transform
def inception_crop(example: Example, rng: np.random.Generator, size: Pixels) -> Example:
    """A random crop at source resolution: area 8 to 100 %, aspect ratio 3/4 to 4/3.

    When no crop can be drawn, or it is the whole image, takes `central_crop(size)` as the
    official code does. `resize(size)` comes later, after flip and RandAugment.
    """
    field, frames = _frames(example)
    height, width = frames.shape[-3:-1]
    box = sample_box(height, width, rng)
    if box is None or box[2:] == (height, width):
        return central_crop(example, rng, size)
    top, left, box_height, box_width = box
    return {**example, field: frames[..., top : top + box_height, left : left + box_width, :]}


def sample_box(
    height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draws (top, left, height, width) as TF's `sample_distorted_bounding_box` does.

    The aspect ratio is uniform in [3/4, 4/3], then the *height* is uniform between those of the
    smallest and the largest area (so areas are not uniform). `min_object_covered=0.1` with the
    whole image as the object rejects areas under 10 %. None after 10 rejected attempts.
    """
    total = height * width
    for _ in range(10):
        aspect = rng.uniform(3 / 4, 4 / 3)  # width / height
        lowest = round((0.08 * total / aspect) ** 0.5)
        highest = min(round((total / aspect) ** 0.5), int((width + 0.5) / aspect), height)
        box_height = int(rng.integers(min(lowest, highest), highest + 1))
        box_width = round(box_height * aspect)
        if 0 < box_width <= width and 0.1 * total <= box_height * box_width <= total:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return None


@transform
def central_crop(
    example: Example, rng: np.random.Generator, size: Pixels, border: Padding = 32
) -> Example:
    """The central square of side int(size / (size + border) * min(H, W)); `resize(size)` follows.

    For 224 that is 7/8 of the short side, all of it without a border. An odd margin's extra pixel
    goes before the crop: the offset is ((extent - side) + 1) // 2, as in the official evaluation.
    """
    del rng
    field, frames = _frames(example)
    height, width = frames.shape[-3:-1]
    side = max(int(size / (size + border) * min(height, width)), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return {**example, field: frames[..., top : top + side, left : left + side, :]}


@transform
def flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrors left and right with probability 1/2."""
    field, frames = _frames(example)
    if rng.random() < 0.5:
        frames = np.ascontiguousarray(np.flip(frames, axis=-2))
    return {**example, field: frames}


@transform
def resize(example: Example, rng: np.random.Generator, size: Pixels) -> Example:
    """Bicubic, without antialiasing, to uint8 [size, size, C]; the aspect ratio is not kept.

    Rounded and clamped to 0..255: the official code resizes to float and lets overshoot through.
    OpenCV's cubic has a = -0.75 where TF's has -0.5.
    """
    del rng
    field, frames = _frames(example)
    return {**example, field: _resized(frames, size, cv2.INTER_CUBIC)}


def _resized(frames: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Frames `[..., H, W, C]` at `[..., size, size, C]`, by OpenCV."""
    resized = [
        with_channels(cv2.resize(frame, (size, size), interpolation=interpolation))
        for frame in frames.reshape(-1, *frames.shape[-3:])
    ]
    return np.stack(resized).reshape(*frames.shape[:-3], size, size, -1)


@transform
def resize_area(example: Example, rng: np.random.Generator, size: Pixels) -> Example:
    """To uint8 [size, size, C]: a pixel is the mean of the area that it covers, so nothing aliases.

    For photographs that are made much smaller. An axis that grows is treated as by `resize`.
    """
    field, frames = _frames(example)
    if size > min(frames.shape[-3:-1]):
        return resize(example, rng, size)
    return {**example, field: _resized(frames, size, cv2.INTER_AREA)}


@transform
def resize_tf(example: Example, rng: np.random.Generator, size: Pixels) -> Example:
    """TensorFlow's `tf.image.resize(image, (size, size), "bicubic")`: float32 [size, size, C].

    As in the papers' own evaluation: the cubic kernel of Keys (1981) with a = -0.5, half-pixel
    centres, no antialiasing, weights renormalised where the kernel leaves the image, and neither
    rounded nor clamped. It matches TensorFlow to 1e-4 of the range 0..255.
    """
    del rng
    field, frames = _frames(example)
    height, width, channels = frames.shape[-3:]
    by_rows = _cubic_weights(height, size) @ frames.astype(np.float32).reshape(
        *frames.shape[:-2], width * channels
    )
    by_rows = by_rows.reshape(*frames.shape[:-3], size, width, channels)
    return {**example, field: _cubic_weights(width, size) @ by_rows}


@functools.lru_cache(maxsize=1024)
def _cubic_weights(length: int, size: int) -> np.ndarray:
    """The matrix [size, length] that resizes one axis; float32 where TensorFlow's code is."""
    centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(length / size)
    centre -= np.float32(0.5)
    first = np.floor(centre).astype(int)
    fraction = np.rint((centre - first) * 1024) / 1024  # from a table of 1,024 steps
    weights = np.zeros((size, length))
    for tap in range(-1, 3):
        index, x = first + tap, np.abs(tap - fraction)
        near = (1.5 * x - 2.5) * x**2 + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        inside = (index >= 0) & (index < length)
        weights[inside.nonzero()[0], index[inside]] = np.where(x <= 1, near, far)[inside]
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@transform
def pad_crop(example: Example, rng: np.random.Generator, padding: Padding) -> Example:
    """Pads with `padding` zeros on each side and crops the old size at random.

    The CIFAR augmentation with 4; with 1 or 2, a small random shift for MNIST and digits.
    """
    image = uint8_image(example)
    height, width = image.shape[:2]
    padded = with_channels(
        cv2.copyMakeBorder(image, *[padding] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    )
    top, left = rng.integers(2 * padding + 1, size=2)
    return {**example, "image": padded[top : top + height, left : left + width]}


@transform
def wrong_places(example: Example, rng: np.random.Generator, seed: Whole) -> Example:
    """Permutes the pixels of every image by one fixed random order, before they have positions.

    So every pixel gets the position of another one. `permutation_seed` of `image.Pixels` permutes
    the same way, but each pixel keeps its own position, so a Perceiver computes the same function.
    """
    del rng
    image = uint8_image(example)
    pixels = image.reshape(-1, image.shape[-1])
    return {**example, "image": pixels[_order(len(pixels), seed)].reshape(image.shape)}


@functools.lru_cache
def _order(num_pixels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(num_pixels)


@transform
def affine(
    example: Example, rng: np.random.Generator, degrees: Number, scale: Rate, shift: Number
) -> Example:
    """Rotates, scales and shifts about the centre, bilinearly, zeros outside: for MNIST, digits.

    The angle is uniform in +-degrees, the factor in 1 +- scale, the shift of each axis in
    +-shift pixels.
    """
    image = uint8_image(example)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        ((width - 1) / 2, (height - 1) / 2),
        rng.uniform(-degrees, degrees),
        1 + rng.uniform(-scale, scale),
    )
    matrix[:, 2] += rng.uniform(-shift, shift, size=2)
    return {**example, "image": with_channels(cv2.warpAffine(image, matrix, (width, height)))}


@transform
def randaugment(
    example: Example, rng: np.random.Generator, layers: Whole, magnitude: Magnitude
) -> Example:
    """`layers` operations drawn uniformly from the 16 of `augmentation`, each always applied."""
    image = augmentation.augment(uint8_image(example), rng, layers=layers, magnitude=magnitude)
    return {**example, "image": image}


def uint8_image(example: Example) -> np.ndarray:
    """The example's image, checked to be uint8 [H, W, C]."""
    image = example["image"]
    if isinstance(image, Encoded):
        raise ValueError("the image is still encoded: put `decode` first in the pipeline")
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"need a uint8 image [H, W, C], got {image.dtype} {list(image.shape)}")
    return image


def _frames(example: Example) -> tuple[str, np.ndarray]:
    """("video", frames), or ("image", image) of an example without one: uint8 `[..., H, W, C]`."""
    if "video" not in example:
        return "image", uint8_image(example)
    video = example["video"]
    if video.dtype != np.uint8 or video.ndim != 4:
        raise ValueError(f"need a uint8 video [T, H, W, C], got {video.dtype} {list(video.shape)}")
    return "video", video
