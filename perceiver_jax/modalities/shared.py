"""Shared by modalities: an initialiser, and tokens and queries for the points of a grid."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens


def plain_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Truncated normal with parameter 1/sqrt(fan_in), without variance correction."""
    fan_in = math.prod(shape[:-1])
    return nn.initializers.truncated_normal(1 / math.sqrt(fan_in))(key, shape, dtype)


def grid_tokens(values: jax.Array, num_bands: int, max_resolution: tuple[int, ...]) -> Tokens:
    """One token per point of a grid: its values and the Fourier features of its place.

    Args:
      values: `[B, *grid, C]`.
      num_bands, max_resolution: see `Fourier`; () is the shape of the grid.

    Returns:
      M tokens of C channels + positions, M the number of points, in row-major order.
    """
    batch_size, *grid, channels = values.shape
    return Tokens(
        content=values.reshape(batch_size, math.prod(grid), channels),  # [B, M, C]
        position=Fourier(tuple(grid), num_bands, max_resolution),
    )


def grid_queries(
    grid: tuple[int, ...],
    num_bands: int,
    max_resolution: tuple[int, ...],
    indices: jax.Array | None,
) -> Tokens:
    """One query per point of a grid, or per flat index in `indices`: its place alone.

    The whole grid has both of its ends. Chosen points lie on a grid without its end point, as the
    released autoencoder was trained and is used: to decode a whole video as it does, pass all
    indices (in chunks).

    Args:
      grid: points per axis.
      num_bands, max_resolution: see `Fourier`.
      indices: `[n]`, or `[B, n]` where each example has its own; None for the whole grid.
    """
    position = Fourier(grid, num_bands, max_resolution)
    if indices is None:
        return Tokens(position=position)
    return Tokens(position=position.replace(endpoint=False)).take(indices)
