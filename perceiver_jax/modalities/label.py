"""Class labels: one prediction for the whole input, or one token among other modalities.

References: Perceiver IO (Jaegle et al. 2022) section 3.2; Perceiver (2021) section 3.1 (mean-pool).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Positive, Size
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import plain_init
from perceiver_jax.position import Table
from perceiver_jax.tokens import Tokens


class OneHot(nn.Module):
    """The label is one token without a place; a negative label (unknown) is all zeros."""

    num_classes: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`label [B]` integers -> one token of `num_classes` channels."""
        return Tokens(
            content=jax.nn.one_hot(batch["label"], self.num_classes, dtype=self.dtype)[:, None]
        )


class Classification(nn.Module):
    """Logits from one learned query.

    Attributes:
      num_classes: number of logits.
      query_channels: width of the query.
      query_init_scale: parameter of its truncated normal.
    """

    num_classes: Size
    query_channels: Channels = 1024
    query_init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        init = nn.initializers.truncated_normal(self.query_init_scale)
        self.query = self.param("query", init, (1, self.query_channels))
        self.logits = LinearWeights(self.num_classes, plain_init)

    def queries(self, tokens: Tokens) -> Tokens:
        """One query, whatever the input."""
        return Tokens(position=Table(self.query))

    def head(self, width: int) -> Head:
        """From the decoder's width to the classes."""
        return (self.logits(width),)

    def __call__(self, decoded: jax.Array) -> jax.Array:
        """`[B, 1, num_classes]` -> float32 logits `[B, num_classes]`."""
        return decoded[:, 0].astype(jnp.float32)


class PooledClassification(nn.Module):
    """Logits from the mean latent (with `MeanPool`): the 2021 head, its weights start at zero."""

    num_classes: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens) -> None:
        """None: `MeanPool` needs no query."""
        return None

    @nn.compact
    def head(self, width: int) -> Head:
        """From the mean latent to the classes."""
        return (LinearWeights(self.num_classes, nn.initializers.zeros, name="logits")(width),)

    def __call__(self, decoded: jax.Array) -> jax.Array:
        """`[B, 1, num_classes]` -> float32 logits `[B, num_classes]`."""
        return decoded[:, 0].astype(jnp.float32)
