"""Video in blocks of pixels; video out pixel by pixel.

A batch holds `video`: float `[B, T, H, W, C]` in [0, 1].

References: Perceiver IO (Jaegle et al. 2022) section 4.3 and app. I; the released autoencoder.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Bands, Channels, Resolution, Shape3
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import grid_queries, grid_tokens, plain_init
from perceiver_jax.tokens import Tokens


def space_to_depth(video: jax.Array, block: tuple[int, int, int]) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T/t, H/h, W/w, t h w C]`, channels in (t, h, w, C) order."""
    sizes = video.shape[1:4]
    if any(size % edge for size, edge in zip(sizes, block, strict=True)):
        raise ValueError(f"block={block} must divide the video's (T, H, W)={sizes}")
    (frames, height, width), (t, h, w) = sizes, block
    x = video.reshape(-1, frames // t, t, height // h, h, width // w, w, video.shape[-1])
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)  # [B, T/t, H/h, W/w, t, h, w, C]
    return x.reshape(*x.shape[:4], -1)


class Blocks(nn.Module):
    """Every block of pixels is a token: its values and its place in (time, row, column).

    Attributes:
      block: (t, h, w) pixels of one token.
      num_bands, max_resolution: see `Fourier`, of the blocks; () is their own number.
    """

    block: Shape3 = (1, 4, 4)
    num_bands: Bands = 32
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`video [B, T, H, W, C]` -> T/t H/h W/w tokens of t h w C channels + positions."""
        chex.assert_rank(batch["video"], 5)
        blocks = space_to_depth(batch["video"].astype(self.dtype), self.block)
        return grid_tokens(blocks, self.num_bands, self.max_resolution)


class Pixels(nn.Module):
    """Every pixel, from a query that is its place; see `grid_queries` about chosen pixels.

    Attributes:
      shape: (T, H, W) of the video.
      channels: of a pixel.
      num_bands, max_resolution: see `Fourier`.
    """

    shape: Shape3
    channels: Channels = 3
    num_bands: Bands = 32
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens | None, indices: jax.Array | None = None) -> Tokens:
        """One query per pixel, or per flat index in `indices`, `[n]` or `[B, n]`."""
        return grid_queries(self.shape, self.num_bands, self.max_resolution, indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the decoder's width to the channels of a pixel."""
        return (LinearWeights(self.channels, plain_init, name="pixels")(width),)

    def __call__(self, decoded: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, T H W, C]` -> float32 `[B, T, H, W, C]`; at indices `[B, n, C]` as it is."""
        pixels = decoded.astype(jnp.float32)
        return pixels if indices is not None else pixels.reshape(-1, *self.shape, self.channels)
