"""Classifies images, prepared as in the official ImageNet evaluation."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.data import image_transforms, on_device
from perceiver_jax.inference.programs import (
    Progress,
    TopK,
    predict,
    require,
    require_uint8,
    silent,
    top_k,
)
from perceiver_jax.modalities import image as image_modality
from perceiver_jax.perceiver import Perceiver

IMAGE_INPUTS = (
    image_modality.Pixels,
    image_modality.LearnedPositions,
    image_modality.ConvStem,
)


def classify(
    model: Perceiver,
    variables: Any,
    images: Sequence[np.ndarray],
    *,
    k: int = 5,
    native_size: bool = False,
    batch_size: int = 8,
    progress: Progress = silent,
) -> TopK:
    """Finds the k likeliest classes of each image.

    Args:
      images: uint8 `[H, W, 3]` each, RGB, of any sizes.
      native_size: predict from the whole image at its own size instead of a resized crop; needs
        Fourier positions.
      batch_size: images in one call of the model (one where `native_size`).
      progress: called with (images done, of how many).

    Raises:
      ValueError: other arrays, a model of another task, or learned positions at native size.
    """
    require(model.input, IMAGE_INPUTS, "classify")
    learned = isinstance(model.input, image_modality.LearnedPositions)
    if native_size and learned:
        raise ValueError("native_size=True needs Fourier positions: the learned ones fit one size")
    meaning = "an image must be uint8 [H, W, 3]"
    images = [require_uint8(image, 3, meaning) for image in images]
    if not native_size:
        size = image_size(model, variables)
        images = [prepare(image, size) for image in images]
    step = 1 if native_size else batch_size
    logits = []
    progress(0, len(images))
    for start in range(0, len(images), step):
        batch = np.stack(images[start : start + step])
        logits.append(predict(model, variables, {"image": on_device.normalize(jnp.asarray(batch))}))
        progress(start + len(batch), len(images))
    if not logits:
        raise ValueError("no images")
    return top_k(np.concatenate(jax.device_get(logits)), k)


def image_size(model: Perceiver, variables: Any) -> int:
    """Returns the side of the square images that the model was trained on."""
    module = model.input
    if isinstance(module, image_modality.LearnedPositions):
        return math.isqrt(variables["params"]["input"]["positions"].shape[0])
    if not module.max_resolution:
        raise ValueError("the model does not say its image size (input.max_resolution)")
    stride = 4 if isinstance(module, image_modality.ConvStem) else 1
    return module.max_resolution[0] * stride


def prepare(image: np.ndarray, size: int) -> np.ndarray:
    """Crops the central 7/8 of the short side and resizes it: float32 `[size, size, 3]` in 0..255.

    The transforms are those of `configs/imagenet.py`, which evaluates the released weights.
    """
    example = image_transforms.central_crop({"image": image}, None, 224)
    return image_transforms.resize_tf(example, None, size)["image"]
