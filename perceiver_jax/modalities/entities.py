"""Sets of entities: features of each and no position; one prediction for each, or for the set.

A batch holds `entities`: float `[B, M, C]`, and, if sets differ in size, `entities_mask`: bool
`[B, M]`, False on unused slots. Every output here has the tokens of the input as its queries, and
gets their mask (`takes_mask`, see `Perceiver.decode`).

The softmax averages, so a set in which each entity is there twice has the same predictions: of how
many entities there are, a model can only tell shares.

Reference: Perceiver IO (Jaegle et al. 2022) app. B, which replaces AlphaStar's entity encoder.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Size
from perceiver_jax.layers import LinearWeights, linear
from perceiver_jax.modalities.label import NEVER
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


class OfTokens(nn.Module):
    """What the outputs below share: each token of the input is a query."""

    takes_mask = True

    def queries(self, tokens: Tokens) -> Tokens:
        """The tokens of the input."""
        return tokens


class PerEntity(OfTokens):
    """`num_outputs` values for each entity, whose token is the query.

    Attributes:
      num_outputs: logits of classes, or channels of an embedding (256 in the paper).
    """

    num_outputs: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        self.outputs = LinearWeights(self.num_outputs, plain_init)

    def head(self, width: int) -> Head:
        """From the decoder's width to the outputs."""
        return (self.outputs(width),)

    def __call__(self, decoded: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, M, num_outputs]` -> float32; zero at unused slots."""
        decoded = decoded.astype(jnp.float32)
        return decoded if mask is None else jnp.where(mask[..., None], decoded, 0)


class PerSet(PerEntity):
    """`num_outputs` values for the set: the mean over the entities that are there."""

    def __call__(self, decoded: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, M, num_outputs]` -> float32 `[B, num_outputs]`; zero for a set without entities."""
        return mean_of_present(decoded, mask)


class Pointers(OfTokens):
    """Each entity names another one: a softmax over the others for each.

    An entity's output is a question and an offer, and a logit is the product of the question of one
    with the offer of another (pointer networks, Vinyals et al. 2015).

    Attributes:
      channels: of a question.
    """

    channels: Channels = 64
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        self.pointers = LinearWeights(2 * self.channels, plain_init)

    def head(self, width: int) -> Head:
        """From the decoder's width to questions and offers."""
        return (self.pointers(width),)

    def __call__(self, decoded: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, M, 2 channels]` -> float32 logits `[B, M, M]`: row i names j.

        `NEVER` where j is i, or is not there; the rows of unused slots mean nothing.
        """
        question, offer = jnp.split(decoded.astype(jnp.float32), 2, axis=-1)
        logits = jnp.einsum("bic,bjc->bij", question, offer) * self.channels**-0.5
        possible = ~jnp.eye(decoded.shape[1], dtype=bool)[None]
        if mask is not None:
            possible = possible & mask[:, None, :]
        return jnp.where(possible, logits, NEVER)


class Selection(OfTokens):
    """AlphaStar's two outputs, an embedding of each entity and one of the set; and one is chosen.

    As app. B says: the embedding of an entity is a projection of ReLU(output), that of the set
    ReLU(projection of the mean output). The paper's agent reads both with other networks, which are
    not public. Here the set's embedding asks and the entities' offer, as in `Pointers`.

    Attributes:
      channels: of both embeddings.
    """

    channels: Channels = 256
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        self.entity = LinearWeights(self.channels, plain_init)
        self.set = LinearWeights(self.channels, plain_init)

    def head(self, width: int) -> Head:
        """None: the two embeddings have nonlinear layers of their own."""
        return ()

    def __call__(self, decoded: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[B, M, C]` -> float32 logits `[B, M]` over the entities, `NEVER` at unused slots."""
        entities, whole = self.embed(decoded, mask)
        logits = jnp.einsum("bmc,bc->bm", entities, whole) * self.channels**-0.5
        return logits if mask is None else jnp.where(mask, logits, NEVER)

    def embed(
        self, decoded: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """`[B, M, C]` -> float32 embeddings of the entities `[B, M, c]` and of the set `[B, c]`."""
        width = decoded.shape[-1]
        entities = linear(nn.relu(decoded), self.entity(width), self.dtype).astype(jnp.float32)
        mean = mean_of_present(decoded, mask)[:, None]
        whole = nn.relu(linear(mean, self.set(width), self.dtype))[:, 0].astype(jnp.float32)
        return entities, whole


def mean_of_present(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`[B, M, C]` -> float32 `[B, C]`: the mean over the slots in `mask` `[B, M]`, zero of none."""
    x = x.astype(jnp.float32)
    if mask is None:
        return jnp.mean(x, axis=1)
    count = jnp.sum(mask, axis=1, dtype=jnp.float32)[:, None]
    return jnp.sum(jnp.where(mask[..., None], x, 0), axis=1) / jnp.maximum(count, 1)
