"""Two models that Perceivers are compared with: a residual network and a vision transformer.

They are called as a `Perceiver` is, `model.apply(variables, batch, train=)`, with the same batches,
and a config names them: `config.model.module = "baselines.ResNet"`. `output` is the output module
of a pooled Perceiver, such as `label.PooledClassification`.

References: He et al. 2016 (arXiv:1512.03385); Dosovitskiy et al. 2021 (arXiv:2010.11929).
"""

import functools
from collections.abc import Mapping
from typing import Literal

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax import mesh
from perceiver_jax.config_types import Channels, Layers, Odd, Pixels, Positive, Rate, Size
from perceiver_jax.layers import apply_head
from perceiver_jax.modalities.audio import magnitudes


def picture(batch: Mapping[str, jax.Array], dtype: jax.typing.DTypeLike) -> jax.Array:
    """`image [B, H, W, C]`, or the `frames [B, 2, H, W, C]` of a pair stacked: `[B, H, W, 2 C]`."""
    if "frames" not in batch:
        chex.assert_rank(batch["image"], 4)
        return batch["image"].astype(dtype)
    frames = batch["frames"]
    chex.assert_rank(frames, 5)
    return jnp.concatenate([frames[:, 0], frames[:, 1]], axis=-1).astype(dtype)


def readout(output: nn.Module, pooled: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """One vector for each example, `[B, D]` -> what `output` predicts."""
    return output(apply_head(output.head(pooled.shape[-1]), pooled[:, None].astype(dtype), dtype))


class ResNet(nn.Module):
    """Stages of residual blocks with batch norm; each stage but the first halves the resolution.

    The defaults are ResNet-20 of section 4.2, of 6 n + 2 layers with n = 3. ResNet-50 is
    `ResNet(output, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=4, stem=7)`.
    Shortcuts that change the shape are 1x1 convolutions (option B).

    Attributes:
      output: an output module without queries.
      widths: of the stages.
      blocks: in each stage.
      bottleneck: 0: a block has two 3x3 convolutions. Else 1x1, 3x3 (which strides) and a 1x1 to so
        many times the width.
      stem: size of the first convolution's kernel; from 5 on it strides by 2, and a 3x3/2 max-pool
        follows.
    """

    output: nn.Module
    widths: tuple[Channels, ...] = (16, 32, 64)
    blocks: tuple[Layers, ...] = (3, 3, 3)
    bottleneck: Literal[0, 4] = 0
    stem: Odd = 3
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A prepared batch -> what `output` predicts (float32)."""
        pooled = self.trunk(picture(batch, self.dtype), self.widths, train)
        return readout(self.output, pooled, self.dtype)

    def trunk(
        self, x: jax.Array, widths: tuple[int, ...], train: bool, prefix: str = ""
    ) -> jax.Array:
        """`[B, H, W, C]`, or a sequence `[B, T, C]` -> the mean of the last stage, `[B, D]`."""
        axes = x.ndim - 2
        strides = 2 if self.stem > 3 else 1
        x = nn.relu(self.normed(x, widths[0], self.stem, strides, train, name=f"{prefix}stem"))
        if self.stem > 3:
            x = nn.max_pool(x, (3,) * axes, strides=(2,) * axes, padding=((1, 1),) * axes)
        for stage, (width, count) in enumerate(zip(widths, self.blocks, strict=True)):
            for index in range(count):
                strides = 2 if stage and not index else 1
                name = f"{prefix}stage_{stage}_block_{index}"
                x = self.block(x, width, strides, train, name=name)
        return jnp.mean(x, axis=tuple(range(1, 1 + axes)), dtype=jnp.float32)

    def block(self, x: jax.Array, width: int, strides: int, train: bool, *, name: str) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H / strides, W / strides, width or bottleneck x width]`."""
        sizes = [(width, 3, strides), (width, 3, 1)]
        if self.bottleneck:
            sizes = [(width, 1, 1), (width, 3, strides), (self.bottleneck * width, 1, 1)]
        y = x
        for i, size in enumerate(sizes):
            y = self.normed(nn.relu(y) if i else y, *size, train, name=f"{name}_{i}")
        if x.shape != y.shape:
            x = self.normed(x, y.shape[-1], 1, strides, train, name=f"{name}_shortcut")
        return nn.relu(x + y)

    def normed(
        self, x: jax.Array, width: int, size: int, strides: int, train: bool, *, name: str
    ) -> jax.Array:
        """A convolution without bias, and batch norm."""
        x = nn.Conv(
            width,
            (size,) * (x.ndim - 2),
            strides=strides,
            padding=size // 2,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name=f"{name}_conv",
        )(x)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=mesh.batch_axis(),
            dtype=self.dtype,
            name=f"{name}_norm",
        )(x)


class ResNetWithSound(ResNet):
    """A `ResNet` of the image beside one of the sound's spectrogram, along time; both are read.

    Attributes:
      sound_widths: of the stages of the second one.
      window, hop, floor: of the spectrogram, see `audio.Spectrogram`.
    """

    sound_widths: tuple[Channels, ...] = (16, 32, 64)
    window: Size = 256
    hop: Size = 128
    floor: Positive = 1e-3

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A prepared batch with `image` and `audio [B, S]` -> what `output` predicts (float32)."""
        spectrum = magnitudes(batch["audio"], self.window, self.hop)  # [B, T, F]
        sound = jnp.log1p(spectrum / self.floor).astype(self.dtype)
        seen = self.trunk(picture(batch, self.dtype), self.widths, train)
        heard = self.trunk(sound, self.sound_widths, train, prefix="sound_")
        return readout(self.output, jnp.concatenate([seen, heard], axis=-1), self.dtype)


class ViT(nn.Module):
    """Patches with learned positions through pre-norm transformer layers.

    The defaults are ViT-B/16.

    Attributes:
      output: an output module without queries.
      patch: side of a patch; it divides the image's sides.
      width, depth, num_heads, widening: of the layers.
      pool: "token" reads a learned class token, as the paper does; "mean" the mean of all patches.
      dropout_rate: of attention weights and of each branch's output, in training.
    """

    output: nn.Module
    patch: Pixels = 16
    width: Channels = 768
    depth: Layers = 12
    num_heads: Layers = 12
    widening: Layers = 4
    pool: Literal["token", "mean"] = "token"
    dropout_rate: Rate = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A prepared batch -> what `output` predicts (float32).

        Raises:
          ValueError: the patches do not tile the image.
        """
        x = picture(batch, self.dtype)
        if any(side % self.patch for side in x.shape[1:3]):
            raise ValueError(
                f"config.model.patch={self.patch} does not divide the image's {x.shape[1:3]}"
            )
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = functools.partial(
            nn.Dense, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype
        )
        dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, padding="VALID", dtype=self.dtype, name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.width)  # [B, M, width]
        if self.pool == "token":
            token = self.param("token", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.tile(token.astype(x.dtype), (x.shape[0], 1, 1)), x], axis=1)
        init = nn.initializers.normal(0.02)
        x = x + self.param("positions", init, (1, *x.shape[1:])).astype(x.dtype)
        for i in range(self.depth):
            y = norm(name=f"layer_{i}_norm_attention")(x)
            y = nn.MultiHeadAttention(
                self.num_heads,
                kernel_init=nn.initializers.xavier_uniform(),
                dropout_rate=self.dropout_rate,
                deterministic=not train,
                dtype=self.dtype,
                name=f"layer_{i}_attention",
            )(y)
            x = x + dropout(y)
            y = norm(name=f"layer_{i}_norm_mlp")(x)
            y = nn.gelu(dense(self.widening * self.width, name=f"layer_{i}_hidden")(y), False)
            x = x + dropout(dense(self.width, name=f"layer_{i}_out")(y))
        x = norm(name="norm")(x)
        pooled = x[:, 0] if self.pool == "token" else jnp.mean(x, axis=1, dtype=jnp.float32)
        return readout(self.output, pooled, self.dtype)
