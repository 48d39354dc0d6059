"""Random changes of one property of an image: place, a part, colour. All are uint8 [H, W, C]."""

import numpy as np

from perceiver_jax.config_types import Fraction, Padding, Pixels
from perceiver_jax.data.image_transforms import uint8_image
from perceiver_jax.data.transforms import Example, transform


@transform
def roll(example: Example, rng: np.random.Generator, pixels: Padding) -> Example:
    """Shifts by up to `pixels` along each axis; what leaves on one side comes in on the other."""
    image, shift = uint8_image(example), rng.integers(-pixels, pixels + 1, size=2)
    return {**example, "image": np.roll(image, tuple(shift), axis=(0, 1))}


@transform
def cutout(example: Example, rng: np.random.Generator, size: Pixels) -> Example:
    """Fills a random square of `size` pixels, all inside, with mid-grey (DeVries, Taylor 2017)."""
    image = uint8_image(example).copy()
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in image.shape[:2])
    image[top : top + size, left : left + size] = 127
    return {**example, "image": image}


@transform
def grey(example: Example, rng: np.random.Generator, probability: Fraction) -> Example:
    """Gives every channel the mean of all, with this probability."""
    image = uint8_image(example)
    if rng.random() < probability:
        mean = np.rint(image.mean(axis=-1, keepdims=True)).astype(np.uint8)
        image = np.broadcast_to(mean, image.shape)
    return {**example, "image": image}


@transform
def shuffle_channels(example: Example, rng: np.random.Generator) -> Example:
    """Puts the channels into a random order."""
    image = uint8_image(example)
    return {**example, "image": image[..., rng.permutation(image.shape[-1])]}
