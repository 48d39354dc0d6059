"""Optical flow and disparity of images larger than the model's, in overlapping tiles.

References: Perceiver IO (Jaegle et al. 2022) app. H; the released notebook, but without its
repeated tiles and tiles that leave the image.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.inference import tiles
from perceiver_jax.inference.programs import Progress, predict, require, require_uint8, silent
from perceiver_jax.modalities import flow as flow_modality
from perceiver_jax.modalities import stereo as stereo_modality
from perceiver_jax.perceiver import Perceiver

_average_tiles = jax.jit(tiles.average_tiles, static_argnames="full")


def optical_flow(
    model: Perceiver,
    variables: Any,
    first: np.ndarray,
    second: np.ndarray,
    *,
    min_overlap: int = 20,
    batch_size: int = 1,
    progress: Progress = silent,
) -> np.ndarray:
    """Estimates the displacement of every pixel of the first image, in pixels.

    Where tiles overlap, their flows are averaged, weighted by the distance to each tile's edge.

    Args:
      first, second: uint8 `[H, W, 3]`, RGB, at least as large as the model's tile.
      min_overlap: pixels that neighbouring tiles share at least.
      batch_size: tiles in one call of the model.
      progress: called with (tiles done, of how many).

    Returns:
      float32 `[H, W, 2]`: right, down.

    Raises:
      ValueError: images smaller than the tile, of different sizes, or not uint8 RGB.
    """
    require(model.output, flow_modality.Flow, "optical_flow")
    frames = (first, second)
    return _field(model, variables, frames, min_overlap, batch_size, progress)


def disparity(
    model: Perceiver,
    variables: Any,
    left: np.ndarray,
    right: np.ndarray,
    *,
    min_overlap: int = 20,
    batch_size: int = 1,
    progress: Progress = silent,
) -> np.ndarray:
    """Estimates the disparity of every pixel of the left view, in pixels; as `optical_flow`.

    Returns:
      float32 `[H, W, 1]`.
    """
    require(model.output, stereo_modality.Disparity, "disparity")
    return _field(model, variables, (left, right), min_overlap, batch_size, progress)


def _field(model, variables, frames, min_overlap, batch_size, progress) -> np.ndarray:
    meaning = "the two images must be uint8 [H, W, 3]"
    frames = [require_uint8(image, 3, meaning) for image in frames]
    if frames[0].shape != frames[1].shape:
        raise ValueError(f"the images differ in size: {frames[0].shape} and {frames[1].shape}")
    frames = np.stack(frames).astype(np.float32) / 255 * 2 - 1  # [2, H, W, 3]
    shape, tile = frames.shape[1:3], tuple(model.output.shape)
    if shape[0] < tile[0] or shape[1] < tile[1]:
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} pixels (height x width) are smaller than the "
            f"model's tile of {tile[0]} x {tile[1]}: enlarge or pad them"
        )
    corners, needed = tiles.place_tiles(np.array([shape]), shape, tile, min_overlap)
    places = [np.s_[y : y + tile[0], x : x + tile[1]] for y, x in np.asarray(corners)[:, 0]]
    fields = []
    progress(0, len(places))
    for i in range(0, len(places), batch_size):
        batch = np.stack([frames[:, *place] for place in places[i : i + batch_size]])
        fields.append(predict(model, variables, {"frames": batch}))
        progress(i + len(batch), len(places))
    field = _average_tiles(jnp.concatenate(fields)[:, None], corners, needed, shape)
    return np.asarray(field[0])
