"""Optical flow between images larger than the model's: overlapping tiles, blended.

References: Perceiver IO (Jaegle et al. 2022) app. H; the released notebook, of which the tiles that
lie twice or reach over the edge are left out.
"""

import itertools
from typing import Any

import numpy as np

from perceiver_jax.inference.programs import Progress, predict, require, require_uint8, silent
from perceiver_jax.inference.tiles import edge_distance, tile_starts
from perceiver_jax.modalities import flow as flow_modality
from perceiver_jax.perceiver import Perceiver


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
    """Where every pixel of the first image goes, in pixels.

    The model's output is in pixels already (`modalities.flow.Flow.scale`). Where tiles overlap,
    the answers are averaged with weights that fall towards each tile's edge.

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
    meaning = "the two images must be uint8 [H, W, 3]"
    frames = [require_uint8(image, 3, meaning) for image in (first, second)]
    if frames[0].shape != frames[1].shape:
        raise ValueError(f"the images differ in size: {frames[0].shape} and {frames[1].shape}")
    frames = np.stack(frames).astype(np.float32) / 255 * 2 - 1  # [2, H, W, 3]
    shape, tile = frames.shape[1:3], tuple(model.output.shape)
    if shape[0] < tile[0] or shape[1] < tile[1]:
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} pixels (height x width) are smaller than the "
            f"model's tile of {tile[0]} x {tile[1]}: enlarge or pad them"
        )
    starts = [tile_starts(size, edge, min_overlap) for size, edge in zip(shape, tile, strict=True)]
    tiles = [np.s_[y : y + tile[0], x : x + tile[1]] for y, x in itertools.product(*starts)]
    weights = edge_distance(*tile)[..., None]
    total, weight = np.zeros((*shape, 2)), np.zeros((*shape, 1))
    progress(0, len(tiles))
    for i in range(0, len(tiles), batch_size):
        chosen = tiles[i : i + batch_size]
        batch = np.stack([frames[:, *place] for place in chosen])
        flows = np.asarray(predict(model, variables, {"frames": batch}))
        for place, flow in zip(chosen, flows, strict=True):
            total[place] += flow * weights
            weight[place] += weights
        progress(i + len(chosen), len(tiles))
    return (total / weight).astype(np.float32)
