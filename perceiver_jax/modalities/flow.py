"""Optical flow: two frames in, the displacement of every pixel of the first one out.

A batch holds `frames`: float `[B, 2, H, W, 3]` in [-1, 1]. The input and the output serve stereo
too, see `stereo`.

References: Perceiver IO (Jaegle et al. 2022) section 4.2 and app. H; the released flow model.
"""

import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Bands, Channels, Odd, Positive, Resolution, Shape2
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import grid_tokens, plain_init
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens

# The views that the model sees. The last two are controls, which show no displacement.
EYES = {"both": (0, 1), "left": (0,), "left_twice": (0, 0)}


def select_views(batch, eyes: str) -> jax.Array:
    """The views `[B, 1 or 2, H, W, C]` of `frames` that `eyes` names."""
    frames = batch["frames"]
    if eyes not in EYES:
        raise ValueError(f"eyes={eyes!r} is not one of {sorted(EYES)}")
    if frames.ndim != 5 or frames.shape[1] != 2:
        raise ValueError(f"frames must be [B, 2, H, W, C], got {frames.shape}")
    return frames[:, np.array(EYES[eyes])]


def stack_patches(frames: jax.Array, patch: tuple[int, int] = (3, 3)) -> jax.Array:
    """The patches `(h, w)` around each pixel, zeros outside of the frame.

    `[B, F, H, W, C]` -> `[B, H, W, F h w C]`, channels in (frame, row, column, C) order.
    """
    if min(patch) < 1 or not all(side % 2 for side in patch):
        raise ValueError(f"patch={patch}: its sides are odd, so that a pixel is in its middle")
    count, height, width = frames.shape[1:4]
    rows, columns = (side // 2 for side in patch)
    padded = jnp.pad(frames, [(0, 0), (0, 0), (rows, rows), (columns, columns), (0, 0)])
    shifted = [
        padded[:, frame, row : row + height, column : column + width]
        for frame, row, column in np.ndindex(count, *patch)
    ]
    return jnp.concatenate(shifted, axis=-1)


class FramePair(nn.Module):
    """Every pixel is a token: its patches in both frames, projected, and its place.

    Attributes:
      channels: width of the projection.
      patch: (height, width) of the patches, odd. In a patch as wide as the displacements, a token
        holds both pixels of a match.
      num_bands, max_resolution: see `Fourier`; () is the frames' own size.
      eyes: "both", or a control: "left" shows the first frame alone, "left_twice" two of it. The
        controls change the width of the projection at most.
    """

    channels: Channels = 64
    patch: tuple[Odd, Odd] = (3, 3)
    num_bands: Bands = 64
    max_resolution: Resolution = ()
    eyes: Literal["both", "left", "left_twice"] = "both"
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`frames [B, 2, H, W, 3]` -> H W tokens of `channels` + positions."""
        patches = stack_patches(select_views(batch, self.eyes).astype(self.dtype), self.patch)
        project = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")
        return grid_tokens(project(patches), self.num_bands, self.max_resolution)


class PixelField(nn.Module):
    """A vector for every pixel of the first frame; `Flow` and `stereo.Disparity` name its parts.

    Attributes:
      shape: (H, W) of the frames.
      scale: pixels per unit of the last layer. The released network divides by 100 inside, and its
        targets were divided by 20: together 0.2.
      num_bands, max_resolution: of Fourier queries, see `Fourier`; with 0 bands the queries are the
        tokens of the first frame.
    """

    quantity: ClassVar[str]  # also the name of the head's parameters
    components: ClassVar[int]

    shape: Shape2
    scale: Positive = 20 / 100
    num_bands: Bands = 0
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens, indices: jax.Array | None = None) -> Tokens:
        """One query per pixel, or per flat index in `indices`, `[n]` or `[B, n]`."""
        if self.num_bands:
            queries = Tokens(position=Fourier(self.shape, self.num_bands, self.max_resolution))
        else:
            queries = tokens["left"] if isinstance(tokens, dict) else tokens
        return queries if indices is None else queries.take(indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the decoder's width to the components; zero at the start."""
        zeros = nn.initializers.zeros
        return (LinearWeights(self.components, zeros, name=self.quantity)(width),)

    def __call__(self, decoded: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, H W, C]` -> pixels, float32 `[B, H, W, C]`; at indices `[B, n, C]`."""
        field = decoded.astype(jnp.float32) * self.scale
        if indices is not None:
            return field
        if field.shape[1] != math.prod(self.shape):
            raise ValueError(f"{field.shape[1]} answers are no frame of output.shape={self.shape}")
        return field.reshape(-1, *self.shape, self.components)


class Flow(PixelField):
    """The flow at every pixel: its displacement to the right and down."""

    quantity, components = "flow", 2
