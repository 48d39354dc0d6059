"""Stereo: two views of one scene in, the disparity of every pixel of the left one out.

A batch holds `frames`: float `[B, 2, H, W, 3]` in [-1, 1], left and right. A pixel x of the left
view and x - disparity of the right one show the same point.

Nobody has published a Perceiver on rectified pairs; the choices are those of Perceiver IO's optical
flow (Jaegle et al. 2022, section 4.2, Table 3), where stacking two frames in channels is better on
real scenes than giving them as tokens of their own.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.factored import Head
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.flow import stacked_patches
from perceiver_jax.modalities.image import plain_init
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens

# Which views are read. The last two are controls that cannot know a disparity.
EYES = {"both": (0, 1), "left": (0,), "left_twice": (0, 0)}


def views(batch, eyes: str) -> jax.Array:
    """The views `[B, 1 or 2, H, W, 3]` that `eyes` names."""
    frames = batch["frames"]
    if eyes not in EYES:
        raise ValueError(f"eyes={eyes!r} is not one of {sorted(EYES)}")
    if frames.ndim != 5 or frames.shape[1] != 2:
        raise ValueError(f"frames must be [B, 2, H, W, C], got {frames.shape}")
    return frames[:, jnp.array(EYES[eyes])]


class StackedEyes(nn.Module):
    """Every pixel is a token: the patches there in each view, projected, and its place.

    With one eye this is the model of a single image: two eyes widen the projection and change
    nothing else.

    Attributes:
      channels: width of the projection.
      patch: (height, width) of the patches, odd. Where they are as wide as the disparities, a token
        holds both partners of a match.
      num_bands, max_resolution: see `Fourier`; () is the views' own size.
      eyes: "both", or a control: "left", "left_twice".
    """

    channels: int = 64
    patch: tuple[int, int] = (3, 3)
    num_bands: int = 64
    max_resolution: tuple[int, ...] = ()
    eyes: str = "both"
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`frames [B, 2, H, W, 3]` -> H W tokens of `channels` + positions."""
        frames = views(batch, self.eyes).astype(self.dtype)
        height, width = frames.shape[2:4]
        project = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")
        content = project(stacked_patches(frames, self.patch))
        return Tokens(
            content=content.reshape(-1, height * width, self.channels),
            position=Fourier((height, width), self.num_bands, self.max_resolution),
        )


class SeparateEyes(nn.Module):
    """Every pixel of every view is a token: its patch, its place and its eye's learned code.

    Attributes:
      eye_channels: width of the code.
      The others: as in `StackedEyes`.
    """

    channels: int = 64
    patch: tuple[int, int] = (3, 3)
    num_bands: int = 64
    max_resolution: tuple[int, ...] = ()
    eye_channels: int = 8
    eyes: str = "both"
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> dict[str, Tokens]:
        """`frames [B, 2, H, W, 3]` -> `left` and, unless eyes is "left", `right`: H W tokens."""
        frames = views(batch, self.eyes).astype(self.dtype)
        height, width = frames.shape[2:4]
        project = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")
        result = {}
        for i, name in zip(range(frames.shape[1]), ("left", "right"), strict=False):
            content = project(stacked_patches(frames[:, i : i + 1], self.patch))
            code = self.param(f"eye_{name}", nn.initializers.normal(1.0), (self.eye_channels,))
            result[name] = Tokens(
                content=content.reshape(-1, height * width, self.channels),
                position=Fourier((height, width), self.num_bands, self.max_resolution),
                padding=code,
            )
        return result


class Disparity(nn.Module):
    """The disparity at every pixel of the left view.

    Attributes:
      shape: (H, W) of the views.
      scale: pixels per unit of the last layer, by default as in `flow.Flow`.
      num_bands, max_resolution: of Fourier queries, see `Fourier`; with 0 bands the queries are the
        left view's tokens.
    """

    shape: tuple[int, int]
    scale: float = 20 / 100
    num_bands: int = 0
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens, indices: jax.Array | None = None) -> Tokens:
        """One query per pixel, or per index in `indices`, `[n]` or `[B, n]`."""
        if self.num_bands:
            queries = Tokens(position=Fourier(self.shape, self.num_bands, self.max_resolution))
        else:
            queries = tokens["left"] if isinstance(tokens, dict) else tokens
        return queries if indices is None else queries.take(indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the answers' width to the disparity."""
        return (LinearWeights(1, nn.initializers.zeros, name="disparity")(width),)

    def __call__(self, answers: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, H W, 1]` -> pixels, signed: float32 `[B, H, W, 1]`; at indices `[B, n, 1]`."""
        disparity = answers.astype(jnp.float32) * self.scale
        if indices is not None:
            return disparity
        if disparity.shape[1] != math.prod(self.shape):
            raise ValueError(
                f"{disparity.shape[1]} answers are no view of output.shape={self.shape}"
            )
        return disparity.reshape(-1, *self.shape, 1)
