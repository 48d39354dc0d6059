"""Images larger than a model's, in overlapping tiles; many queries, in chunks.

References: Perceiver IO (Jaegle et al. 2022) app. H: tiles are averaged with weights that fall
towards each tile's edge.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.perceiver import Perceiver


def tile_starts(size: int, tile: int, min_overlap: int) -> list[int]:
    """Where tiles begin on an axis: in steps of `tile - min_overlap`, the last at the end.

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
    """How far each pixel is from the nearest edge, float32 `[height, width]`; 1 on the edge."""
    rows, columns = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (height, width))
    return np.minimum(rows[:, None], columns[None]).astype(np.float32)


def blend(
    predict: Callable[[jax.Array], jax.Array],
    frames: jax.Array,
    size: jax.Array,
    *,
    tile: tuple[int, int],
    min_overlap: int,
) -> jax.Array:
    """What `predict` says of each tile, averaged. Pure: for use inside a compiled function.

    Images of several sizes lie in the top left corners of arrays of one size. Each is cut exactly
    as `tile_starts` cuts an image of its own size, so padding below and at the right changes
    nothing; only of an image smaller than the tile does the tile see padding.

    Args:
      predict: tiles `[B, F, h, w, 3]` -> `[B, h, w, C]`.
      frames: `[B, F, H, W, 3]`, at least as large as the tile.
      size: int32 `[B, 2]`, the images' own heights and widths.
      tile: (h, w).
      min_overlap: pixels that neighbouring tiles share at least.

    Returns:
      float32 `[B, H, W, C]`; 0 where no tile is.
    """
    full = frames.shape[2:4]
    starts = [tile_starts(n, edge, min_overlap) for n, edge in zip(full, tile, strict=True)]
    before = [[-1, *axis[:-1]] for axis in starts]
    starts, before = (np.array([*itertools.product(*axes)])[:, None] for axes in (starts, before))
    # Where an image's last tiles are, [1, B, 2].
    last = jnp.maximum(size - np.array([tile]), 0)[None]
    corners = jnp.minimum(starts, last)  # [tiles, B, 2]
    needed = jnp.all(before < last, axis=-1)  # [tiles, B]: else it is the tile before once more
    edges = edge_distance(*tile)[..., None]

    def add(total, tile_answer, corner):
        start = (corner[0], corner[1], 0)
        window = jax.lax.dynamic_slice(total, start, tile_answer.shape)
        return jax.lax.dynamic_update_slice(total, window + tile_answer, start)

    def cut(pair, corner):
        return jax.lax.dynamic_slice(
            pair, (0, corner[0], corner[1], 0), (pair.shape[0], *tile, pair.shape[-1])
        )

    def body(sums, step):
        corner, needed = step
        answer = predict(jax.vmap(cut)(frames, corner)).astype(jnp.float32)
        weights = jnp.where(needed[:, None, None, None], edges[None], 0.0)  # [B, h, w, 1]
        parts = jnp.concatenate([answer * weights, weights], axis=-1)
        return jax.vmap(add)(sums, parts, corner), None

    channels = jax.eval_shape(predict, frames[:, :, : tile[0], : tile[1]]).shape[-1]
    sums = jnp.zeros((frames.shape[0], *full, channels + 1), jnp.float32)
    sums, _ = jax.lax.scan(body, sums, (corners, needed))
    total, weight = sums[..., :-1], sums[..., -1:]
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1.0), 0.0)


def decode_in_chunks(
    model: Perceiver, variables: Any, batch: Any, *, count: int, chunk_size: int
) -> jax.Array:
    """All outputs of a model of one modality, `chunk_size` at a time after encoding once.

    Pure: for use inside a compiled function. What is kept at once grows with the chunk, not with
    the outputs.

    Args:
      batch: prepared.
      count: how many outputs there are.

    Returns:
      float32 `[B, count, C]`.
    """
    tokens, latents = model.apply(variables, batch, train=False, method="encode")

    def decode(indices):
        return model.apply(
            variables, tokens, latents, train=False, indices=indices, method="decode"
        )

    return in_chunks(decode, count, chunk_size)


def in_chunks(answer: Callable[[jax.Array], jax.Array], count: int, chunk_size: int) -> jax.Array:
    """Answers 0 to `count` - 1, a chunk at a time. Pure: for use inside a compiled function.

    All chunks have one size: the last asks for the last answer again and again.

    Args:
      answer: flat indices `[n]` -> `[B, ...]`, whose other axes hold n answers one after another.

    Returns:
      `[B, count, C]`.
    """
    chunks = -(-count // chunk_size)
    indices = np.minimum(np.arange(chunks * chunk_size, dtype=np.int32), count - 1)
    parts = jax.lax.map(answer, jnp.asarray(indices.reshape(chunks, chunk_size)))
    parts = jnp.moveaxis(parts, 0, 1)  # [B, chunks, ...]
    return parts.reshape(parts.shape[0], chunks * chunk_size, -1)[:, :count]
