"""Images in, four ways: raw or projected pixels, learned positions, convolutional stem.

A batch holds `image`: float `[B, H, W, C]`, normalised. Positions are coordinates
in the crop that the network sees: with coordinates in the source image it overfits (Perceiver 2021,
section 4.1).

References: Perceiver IO (Jaegle et al. 2022) section 4.4 and app. A; the released ImageNet models.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from perceiver_jax import mesh
from perceiver_jax.config_types import Bands, Channels, Positive, Resolution, Whole
from perceiver_jax.modalities.shared import grid_tokens, plain_init
from perceiver_jax.position import Table
from perceiver_jax.tokens import Tokens


def pixel_permutation(num_pixels: int, seed: int) -> np.ndarray:
    """The one fixed permutation of all pixels of every image, `[num_pixels]`."""
    return np.random.default_rng(seed).permutation(num_pixels)


def permuted(tokens: Tokens, seed: int | None) -> Tokens:
    """The tokens in the fixed order of a seed, each with its position; None leaves them."""
    if seed is None:
        return tokens
    return tokens.take(jnp.asarray(pixel_permutation(tokens.num_tokens, seed)))


class Pixels(nn.Module):
    """Every pixel is a token: its channels and the Fourier features of its place.

    Attributes:
      num_bands, max_resolution: see `Fourier`; 64 bands and the image's own size in the papers.
      permutation_seed: if not None, pixels take one fixed random order *after* their positions are
        built, the permuted-image experiment (Perceiver 2021, Table 2).
    """

    num_bands: Bands = 64
    max_resolution: Resolution = ()
    permutation_seed: Whole | None = None
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`image [B, H, W, C]` -> H W tokens of C channels + positions."""
        image = batch["image"].astype(self.dtype)
        chex.assert_rank(image, 4)
        tokens = grid_tokens(image, self.num_bands, self.max_resolution)
        return permuted(tokens, self.permutation_seed)


class ProjectedPixels(nn.Module):
    """As `Pixels`, with the channels through a 1x1 convolution first (Perceiver IO, app. A.2).

    Attributes:
      channels: of the convolution, the width of the content.
      num_bands, max_resolution: see `Fourier`.
    """

    channels: Channels = 256
    num_bands: Bands = 64
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`image [B, H, W, C]` -> H W tokens of `channels` + positions."""
        image = batch["image"]
        chex.assert_rank(image, 4)
        plain = {"kernel_init": plain_init, "dtype": self.dtype}
        content = nn.Conv(self.channels, (1, 1), **plain, name="conv")(image)
        return grid_tokens(content, self.num_bands, self.max_resolution)


class LearnedPositions(nn.Module):
    """Pixels through a 1x1 convolution, beside a learned and projected position table.

    The table ties the model to one image size.

    Attributes:
      channels: width of the content.
      position_channels: width of the positions.
      position_init_scale: parameter of their truncated normal.
      permutation_seed: as in `Pixels`.
    """

    channels: Channels = 256
    position_channels: Channels = 256
    position_init_scale: Positive = 0.02
    permutation_seed: Whole | None = None
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`image [B, H, W, C]` -> H W tokens of `channels` + `position_channels`."""
        image = batch["image"]
        chex.assert_rank(image, 4)
        plain = {"kernel_init": plain_init, "dtype": self.dtype}
        content = nn.Conv(self.channels, (1, 1), **plain, name="conv")(image)
        content = content.reshape(image.shape[0], -1, self.channels)  # [B, H W, channels]
        init = nn.initializers.truncated_normal(self.position_init_scale)
        table = self.param("positions", init, (content.shape[1], self.position_channels))
        table = nn.Dense(self.position_channels, **plain, name="project_positions")(table)
        return permuted(Tokens(content=content, position=Table(table)), self.permutation_seed)


class ConvStem(nn.Module):
    """7x7/2 convolution, batch norm, ReLU, 3x3/2 max-pool: 16 times fewer tokens than pixels.

    Attributes:
      channels: of the convolution.
      num_bands, max_resolution: see `Fourier`, of the stem's output; () is its own size.
      permutation_seed: if not None, pixels are permuted before the stem. Positions belong to the
        stem's output, so here the permutation destroys the convolution's neighbourhoods.
    """

    channels: Channels = 64
    num_bands: Bands = 64
    max_resolution: Resolution = ()
    permutation_seed: Whole | None = None
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`image [B, H, W, C]` -> ceil(H/4) ceil(W/4) tokens of `channels` + positions."""
        x = batch["image"]
        chex.assert_rank(x, 4)
        if self.permutation_seed is not None:
            size = math.prod(x.shape[1:3])
            order = jnp.asarray(pixel_permutation(size, self.permutation_seed))
            x = x.reshape(x.shape[0], size, -1)[:, order].reshape(x.shape)
        x = nn.Conv(
            self.channels,
            (7, 7),
            strides=2,
            padding="SAME",
            use_bias=False,
            kernel_init=plain_init,
            dtype=self.dtype,
            name="conv",
        )(x)  # [B, ceil(H/2), ceil(W/2), channels]
        x = nn.BatchNorm(
            momentum=0.9,
            epsilon=1e-5,
            axis_name=mesh.batch_axis(),
            dtype=self.dtype,
            name="norm",
        )(x, use_running_average=not train)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding="SAME")
        return grid_tokens(x, self.num_bands, self.max_resolution)
