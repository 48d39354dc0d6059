"""Optical flow: two frames in, the displacement of every pixel of the first one out.

A batch holds `frames`: float `[B, 2, H, W, 3]` in [-1, 1].

References: Perceiver IO (Jaegle et al. 2022) section 4.2 and app. H; the released flow model.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.factored import Head
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.image import plain_init
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens


def neighbourhoods(image: jax.Array, patch: tuple[int, int] = (3, 3)) -> jax.Array:
    """`[..., H, W, C]` -> `[..., H, W, h w C]`, patches `[h, w]` in (row, column, C) order."""
    if min(patch) < 1 or not all(side % 2 for side in patch):
        raise ValueError(f"patch={patch}: its sides are odd, so that a pixel is in its middle")
    height, width = image.shape[-3:-1]
    rows, columns = (side // 2 for side in patch)
    around = [(rows, rows), (columns, columns), (0, 0)]
    padded = jnp.pad(image, [(0, 0)] * (image.ndim - 3) + around)
    shifted = [
        padded[..., row : row + height, column : column + width, :]
        for row in range(patch[0])
        for column in range(patch[1])
    ]
    return jnp.concatenate(shifted, axis=-1)


def stacked_patches(frames: jax.Array, patch: tuple[int, int] = (3, 3)) -> jax.Array:
    """`[B, F, H, W, C]` -> `[B, H, W, F h w C]`: each pixel's patches, the first frame's first."""
    patches = neighbourhoods(frames, patch)  # [B, F, H, W, h w C]
    return jnp.concatenate(list(jnp.moveaxis(patches, 1, 0)), axis=-1)


class FramePair(nn.Module):
    """Every pixel is a token: its patches of both frames, projected, and its place.

    Attributes:
      channels: width of the projection.
      patch: (height, width) of the patches, odd.
      num_bands, max_resolution: see `Fourier`; () is the frames' own size.
    """

    channels: int = 64
    patch: tuple[int, int] = (3, 3)
    num_bands: int = 64
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`frames [B, 2, H, W, 3]` -> H W tokens of `channels` + positions."""
        frames = batch["frames"].astype(self.dtype)
        if frames.ndim != 5 or frames.shape[1] != 2:
            raise ValueError(f"frames must be [B, 2, H, W, C], got {frames.shape}")
        batch_size, _, height, width, _ = frames.shape
        content = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")(
            stacked_patches(frames, self.patch)
        )
        return Tokens(
            content=content.reshape(batch_size, height * width, self.channels),
            position=Fourier((height, width), self.num_bands, self.max_resolution),
        )


class Flow(nn.Module):
    """The flow at every pixel; the queries are the input's tokens.

    Attributes:
      shape: (H, W) of the frames.
      scale: pixels per unit of the last layer. The released network divides by 100 inside, and its
        targets were divided by 20: together 0.2.
    """

    shape: tuple[int, int]
    scale: float = 20 / 100
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens, indices: jax.Array | None = None) -> Tokens:
        """The input's tokens, or those of the pixels at `indices`, `[n]` or `[B, n]`."""
        return tokens if indices is None else tokens.take(indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the answers' width to right and down."""
        return (LinearWeights(2, nn.initializers.zeros, name="flow")(width),)

    def __call__(self, answers: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, H W, 2]` -> pixels right, down: float32 `[B, H, W, 2]`; at indices `[B, n, 2]`."""
        flow = answers.astype(jnp.float32) * self.scale
        if indices is not None:
            return flow
        if flow.shape[1] != math.prod(self.shape):
            raise ValueError(f"{flow.shape[1]} answers are no frame of output.shape={self.shape}")
        return flow.reshape(-1, *self.shape, 2)
