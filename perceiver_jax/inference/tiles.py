"""Images larger than a model's: cut into overlapping tiles, predicted, averaged.

References: Perceiver IO (Jaegle et al. 2022) app. H: tiles are averaged with weights that fall
towards each tile's edge.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def shrink(images: jax.Array, factor: int) -> jax.Array:
    """`[..., H, W, C]` -> `[..., H / factor, W / factor, C]`: the means of squares of pixels.

    Raises:
      ValueError: the factor does not divide H and W.
    """
    *lead, height, width, channels = images.shape
    if height % factor or width % factor:
        raise ValueError(
            f"shrinking by {factor} needs sides that it divides, not {height}, {width}"
        )
    shape = (*lead, height // factor, factor, width // factor, factor, channels)
    return images.reshape(shape).mean(axis=(-4, -2))


def enlarge(field: jax.Array, factor: int) -> jax.Array:
    """A flow or disparity of images that `shrink` made, in the pixels of those before.

    `[B, H, W, C]` -> `[B, factor H, factor W, C]`, bilinear.
    """
    batch, height, width, channels = field.shape
    shape = (batch, factor * height, factor * width, channels)
    return factor * jax.image.resize(field, shape, "linear")


def tile_starts(size: int, tile: int, min_overlap: int) -> list[int]:
    """Starts of the tiles on one axis: every `tile - min_overlap` pixels, the last at the end.

    Every start occurs once and every pixel is covered.
    """
    if not 0 <= min_overlap < tile:
        raise ValueError(
            f"min_overlap={min_overlap} must be at least 0 and below the tile's {tile}"
        )
    if size < tile:
        raise ValueError(f"{size} pixels are fewer than the model's tile of {tile}: pad the image")
    return [*range(0, size - tile, tile - min_overlap), size - tile]


def edge_distance(height: int, width: int) -> np.ndarray:
    """The distance of each pixel to the nearest edge, float32 `[height, width]`; 1 on the edge."""
    rows, columns = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (height, width))
    return np.minimum(rows[:, None], columns[None]).astype(np.float32)


def place_tiles(
    size: jax.Array, full: tuple[int, int], tile: tuple[int, int], min_overlap: int
) -> tuple[jax.Array, jax.Array]:
    """Places tiles on images that lie in the top left corners of arrays of one size.

    Each image is cut exactly as `tile_starts` cuts it. Images that need fewer tiles repeat one.

    Args:
      size: int32 `[B, 2]`, the images' own heights and widths.
      full: (H, W) of the arrays.
      tile: (h, w).
      min_overlap: pixels that neighbouring tiles share at least.

    Returns:
      Corners (y, x) `[n, B, 2]`, and bool `[n, B]`: False for a repeated tile.
    """
    starts = [tile_starts(n, edge, min_overlap) for n, edge in zip(full, tile, strict=True)]
    before = [[-1, *axis[:-1]] for axis in starts]
    starts, before = (np.array([*itertools.product(*axes)])[:, None] for axes in (starts, before))
    last = jnp.maximum(size - np.array([tile]), 0)[None]  # [1, B, 2], of each image's last tile
    return jnp.minimum(starts, last), jnp.all(before < last, axis=-1)


def average_tiles(
    answers: jax.Array, corners: jax.Array, needed: jax.Array, full: tuple[int, int]
) -> jax.Array:
    """Averages overlapping tiles, weighted by each pixel's distance to the edge of its tile.

    Args:
      answers: predictions `[n, B, h, w, C]`.
      corners, needed: see `place_tiles`.
      full: (H, W).

    Returns:
      float32 `[B, H, W, C]`; 0 where no tile is.
    """
    _, batch_size, height, width, channels = answers.shape
    edges = edge_distance(height, width)[..., None]

    def add(total, part, corner):
        start = (corner[0], corner[1], 0)
        window = jax.lax.dynamic_slice(total, start, part.shape)
        return jax.lax.dynamic_update_slice(total, window + part, start)

    def body(sums, tile):
        answer, corner, counts = tile
        weights = jnp.where(counts[:, None, None, None], edges[None], 0.0)  # [B, h, w, 1]
        parts = jnp.concatenate([answer.astype(jnp.float32) * weights, weights], axis=-1)
        return jax.vmap(add)(sums, parts, corner), None

    sums = jnp.zeros((batch_size, *full, channels + 1), jnp.float32)
    sums, _ = jax.lax.scan(body, sums, (answers, corners, needed))
    total, weight = sums[..., :-1], sums[..., -1:]
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1.0), 0.0)


def blend(
    predict: Callable[[jax.Array], jax.Array],
    frames: jax.Array,
    size: jax.Array,
    *,
    tile: tuple[int, int],
    min_overlap: int,
) -> jax.Array:
    """Predicts tile by tile and averages. Pure: for use inside a compiled function.

    Padding below and at the right of an image changes nothing, unless the image is smaller than the
    tile.

    Args:
      predict: tiles `[B, F, h, w, 3]` -> `[B, h, w, C]`.
      frames: `[B, F, H, W, 3]`, at least as large as the tile.
      size, tile, min_overlap: see `place_tiles`.

    Returns:
      float32 `[B, H, W, C]`; 0 where no tile is.
    """
    full = frames.shape[2:4]
    corners, needed = place_tiles(size, full, tile, min_overlap)

    def cut(pair, corner):
        return jax.lax.dynamic_slice(
            pair, (0, corner[0], corner[1], 0), (pair.shape[0], *tile, pair.shape[-1])
        )

    answers = jax.lax.map(lambda corner: predict(jax.vmap(cut)(frames, corner)), corners)
    return average_tiles(answers, corners, needed, full)
