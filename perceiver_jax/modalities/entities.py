"""Sets of entities: features of each and no position; one prediction for each, or for the set.

A batch holds `entities`: float `[B, M, C]`, and, if sets differ in size, `entities_mask`: bool
`[B, M]`, False on unused slots. `label.Classification` and `label.PooledClassification` predict for
the whole set.

Reference: Perceiver IO (Jaegle et al. 2022) app. B, which replaces AlphaStar's entity encoder.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Size
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import plain_init
from perceiver_jax.tokens import Tokens


class Entities(nn.Module):
    """Each entity is a token: its features, projected.

    Attributes:
      channels: of the projection; 128 of 256 features in the paper (Table 6).
    """

    channels: Channels = 128
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`entities [B, M, C]` -> M tokens of `channels`."""
        entities = batch["entities"]
        chex.assert_rank(entities, 3)
        project = nn.Dense(self.channels, kernel_init=plain_init, dtype=self.dtype, name="project")
        return Tokens(content=project(entities), mask=batch.get("entities_mask"))


class PerEntity(nn.Module):
    """`num_outputs` values for each entity, whose token is the query.

    Attributes:
      num_outputs: logits of classes, or channels of an embedding (256 in the paper).
    """

    num_outputs: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        self.outputs = LinearWeights(self.num_outputs, plain_init)

    def queries(self, tokens: Tokens) -> Tokens:
        """The tokens of the input."""
        return tokens

    def head(self, width: int) -> Head:
        """From the decoder's width to the outputs."""
        return (self.outputs(width),)

    def __call__(self, decoded: jax.Array) -> jax.Array:
        """`[B, M, num_outputs]` -> float32; what is at unused slots means nothing."""
        return decoded.astype(jnp.float32)
