"""Decodes many queries in chunks, so that memory grows with the chunk, not with the outputs."""

from collections.abc import Callable

import jax
import numpy as np


def num_chunks(count: int, chunk_size: int) -> int:
    """How many chunks `count` outputs are decoded in."""
    return -(-count // chunk_size)


def in_chunks(
    decode: Callable[[jax.Array], jax.Array],
    count: int,
    chunk_size: int,
    *,
    each: Callable = jax.lax.map,
) -> jax.Array:
    """Decodes outputs 0 to `count` - 1, a chunk at a time.

    All chunks have one size, so one program is compiled; the last chunk repeats the last output.

    Args:
      decode: flat indices `[n]` -> `[B, ...]`, whose other axes hold n outputs one after another.
      count: number of outputs.
      chunk_size: n, or `count` if that is less.
      each: `each(decode, indices [chunks, n])` stacks the results of all chunks `[chunks, B, ...]`:
        `jax.lax.map` inside a compiled function, or a loop around one.

    Returns:
      `[B, count, C]`.
    """
    size = min(chunk_size, count)
    chunks = num_chunks(count, size)
    indices = np.minimum(np.arange(chunks * size, dtype=np.int32), count - 1)
    parts = each(decode, indices.reshape(chunks, size)).swapaxes(0, 1)  # [B, chunks, ...]
    return parts.reshape(parts.shape[0], chunks * size, -1)[:, :count]
