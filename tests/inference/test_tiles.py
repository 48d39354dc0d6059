"""Tiles inside a compiled function are those of `tile_starts`, whatever an image's padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.inference import tiles

TILE, OVERLAP = (6, 8), 2


def answer(frames):
    """Depends on what a tile sees and on the place within it, so that seams would show."""
    shading = jnp.arange(48.0).reshape(1, 6, 8, 1)
    return jnp.stack([frames[:, 0, ..., 0], frames[:, 1].mean(-1)], axis=-1) + shading


blend = jax.jit(
    lambda frames, size: tiles.blend(answer, frames, size, tile=TILE, min_overlap=OVERLAP)
)


def by_hand(frames):
    """Every tile of one image `[2, H, W, 3]`, summed pixel by pixel."""
    height, width = frames.shape[1:3]
    total, weight = np.zeros((height, width, 2)), np.zeros((height, width, 1))
    for y in tiles.tile_starts(height, TILE[0], OVERLAP):
        for x in tiles.tile_starts(width, TILE[1], OVERLAP):
            part = np.asarray(answer(frames[None, :, y : y + 6, x : x + 8]))[0]
            for i, j in np.ndindex(TILE):
                share = min(i + 1, 6 - i, j + 1, 8 - j)
                total[y + i, x + j] += share * part[i, j]
                weight[y + i, x + j] += share
    return total / weight


def test_each_image_is_cut_by_its_own_size():
    rng = np.random.default_rng(0)
    sizes = [(13, 21), (9, 14), (6, 8), (7, 21), (10, 9)]
    frames = rng.normal(size=(len(sizes), 2, 13, 21, 3)).astype(np.float32)
    result = np.asarray(blend(frames, np.array(sizes, np.int32)))
    other = rng.normal(size=frames.shape).astype(np.float32)
    for i, (height, width) in enumerate(sizes):
        expected = by_hand(frames[i, :, :height, :width])
        np.testing.assert_allclose(result[i, :height, :width], expected, rtol=2e-5)
        other[i, :, :height, :width] = frames[i, :, :height, :width]
    again = np.asarray(blend(other, np.array(sizes, np.int32)))
    for i, (height, width) in enumerate(sizes):
        np.testing.assert_array_equal(again[i, :height, :width], result[i, :height, :width])


def test_an_image_smaller_than_the_tile_is_refused():
    with pytest.raises(ValueError, match="5 pixels are fewer than the model's tile of 6: pad"):
        blend(np.zeros((1, 2, 5, 9, 3), np.float32), np.array([[5, 9]], np.int32))
