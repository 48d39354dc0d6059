"""Stereo: two views of one scene in, the disparity of every pixel of the left one out.

A batch holds `frames`: float `[B, 2, H, W, 3]` in [-1, 1], left and right. A pixel x of the left
view and x - disparity of the right one show the same point.

No Perceiver on rectified pairs has been published. The design is that of Perceiver IO's optical
flow (Jaegle et al. 2022, section 4.2, Table 3), where stacking two frames in channels is better on
real scenes than separate tokens for each frame.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.config_types import Bands, Channels, Odd, Resolution
from perceiver_jax.modalities.flow import FramePair, PixelField, select_views, stack_patches
from perceiver_jax.modalities.shared import grid_tokens, plain_init
from perceiver_jax.tokens import Tokens

StackedEyes = FramePair  # with `eyes="left"` a model of a single image


class SeparateEyes(nn.Module):
    """Every pixel of every view is a token: its patch, its place and its eye's learned code.

    Attributes:
      eye_channels: width of the code.
      The others: as in `flow.FramePair`.
    """

    channels: Channels = 64
    patch: tuple[Odd, Odd] = (3, 3)
    num_bands: Bands = 64
    max_resolution: Resolution = ()
    eye_channels: Channels = 8
    eyes: Literal["both", "left", "left_twice"] = "both"
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> dict[str, Tokens]:
        """`frames [B, 2, H, W, 3]` -> `left` and, unless eyes is "left", `right`: H W tokens."""
        frames = select_views(batch, self.eyes).astype(self.dtype)
        project = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")
        result = {}
        for i, name in enumerate(("left", "right")[: frames.shape[1]]):
            content = project(stack_patches(frames[:, i : i + 1], self.patch))
            code = self.param(f"eye_{name}", nn.initializers.normal(1.0), (self.eye_channels,))
            tokens = grid_tokens(content, self.num_bands, self.max_resolution)
            result[name] = tokens.replace(padding=code)
        return result


class Disparity(PixelField):
    """The disparity at every pixel of the left view, signed."""

    quantity, components = "disparity", 1
