"""`Resampler`: latents that read a sequence of any length, a layer for models of other kinds.

    seen = pj.Resampler(num_latents=64)(features, mask=mask, train=train)  # [B, 64, C]

It is the block that vision-language models took from the Perceiver to hand a fixed number of visual
tokens to a language model. docs/resampler.md has an example in a Flax model that is not ours.

References: Perceiver (Jaegle et al. 2021) section 3; Flamingo (Alayrac et al. 2022) section 2.1.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.self_attention import layer_norm
from perceiver_jax.config_types import Channels, Layers, Positive, Rate, Size, Whole, Widening
from perceiver_jax.layers import (
    CrossAttention,
    LinearWeights,
    NormWeights,
    SelfAttention,
    apply_head,
)
from perceiver_jax.perceiver import LatentTransformer
from perceiver_jax.tokens import Tokens


class Resampler(nn.Module):
    """Learned latents that attend to the input `num_reads` times, each time with other weights.

    A read is z = z + attention(norm(z), norm(keys)), then z = z + MLP(norm(z)). With
    `latents_as_keys` the keys are the input and the latents themselves in one softmax, so that
    latents also see each other, as in Flamingo, where the two have a norm each; here they share it.
    Without it, `num_self_attends` lets them see each other, as in the Perceiver.

    Attributes:
      num_latents: N, the length of the result.
      latent_channels: D, its width; None is the input's.
      num_reads: cross-attentions, each followed by `num_self_attends` self-attentions.
      latents_as_keys: an input of another width is then projected to D first.
      num_heads: must divide D.
      widening: hidden width of the MLPs, in D.
      dropout_rate: behind each attention and MLP, in training; needs the stream 'dropout'.
      latent_init_scale: parameter of the truncated normal.
      dtype: compute dtype; parameters are float32.
    """

    num_latents: Size = 64
    latent_channels: Channels | None = None
    num_reads: Layers = 6
    num_self_attends: Whole = 0
    latents_as_keys: bool = True
    num_heads: Channels = 8
    widening: Widening = 4
    dropout_rate: Rate = 0.0
    latent_init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Tokens, *, mask: jax.Array | None = None, train: bool
    ) -> jax.Array:
        """Reads the input.

        Args:
          inputs: `[B, M, C]`, or `Tokens`, whose positions then stay apart from their content.
          mask: bool `[B, M]`, False where there is nothing; `Tokens` have their own.
          train: whether to drop.

        Returns:
          `[B, num_latents, latent_channels]`, normed, in `dtype`.

        Raises:
          ValueError: `num_heads` does not divide the width, or both `Tokens` and a mask are given.
        """
        if isinstance(inputs, Tokens) and mask is not None:
            raise ValueError("Resampler: Tokens have a mask of their own; give it there")
        if not isinstance(inputs, Tokens):
            inputs = Tokens(content=inputs, mask=mask)
        width = self.latent_channels or inputs.width
        if width % self.num_heads:
            raise ValueError(f"Resampler: num_heads={self.num_heads} must divide the width {width}")
        if self.latents_as_keys and inputs.width != width:
            weights = LinearWeights(width, name="project")(inputs.width)
            dense = apply_head((weights,), inputs.dense(self.dtype), self.dtype)
            inputs = Tokens(content=dense, mask=inputs.mask)
        init = nn.initializers.truncated_normal(self.latent_init_scale)
        latents = self.param("latents", init, (self.num_latents, width))
        z = latents[None].astype(self.dtype)  # [1, N, D] until the first read
        for i in range(self.num_reads):
            keys = {"inputs": inputs, "latents": Tokens(content=z)}
            keys = keys if self.latents_as_keys else inputs
            z = self._read(width, i)(Tokens(content=z), keys, train=train)
            if self.num_self_attends:
                z = self._self_attends(width, i)(z, train=train)
        return layer_norm(z, *NormWeights(name="norm")(width))

    def _read(self, width: int, number: int) -> CrossAttention:
        return CrossAttention(
            num_heads=self.num_heads,
            qk_channels=width,
            v_channels=width,
            widening=self.widening,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            name=f"read_{number}",
        )

    def _self_attends(self, width: int, number: int) -> LatentTransformer:
        layers = SelfAttention(
            num_heads=self.num_heads,
            v_channels=width,
            widening=self.widening,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            parent=None,  # belongs to the stack below
        )
        return LatentTransformer(layers, self.num_self_attends, name=f"self_attends_{number}")
