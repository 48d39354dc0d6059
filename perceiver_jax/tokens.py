"""`Tokens`: what every adapter makes and every attention reads."""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from perceiver_jax.position import Position


@struct.dataclass
class Tokens:
    """An array of tokens as content + position, kept apart.

    Token j of example b means the concatenation `[content[b, j], position[j]]`. Positions do not
    depend on the example. A leading axis of size 1 means "the same for every example", so learned
    queries and latents are never copied over the batch.

    Attributes:
      content: `[B, M, c]`, or None for tokens that are only a place (queries).
      position: describes `[M, p]`, or None for tokens without a place.
      mask: bool `[B, M]`, False where there is no token; None means all True.
    """

    content: jax.Array | None = None
    position: Position | None = None
    mask: jax.Array | None = None

    def __post_init__(self):
        if self.content is None and self.position is None:
            raise ValueError("Tokens need content, position or both")

    @property
    def num_tokens(self) -> int:
        return self.position.num_tokens if self.content is None else self.content.shape[1]

    @property
    def width(self) -> int:
        """Channels of the concatenation."""
        content = 0 if self.content is None else self.content.shape[-1]
        return content + (0 if self.position is None else self.position.width)

    def dense(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """The textbook array `[B or 1, M, width]` in `dtype`."""
        if self.position is None:
            return self.content.astype(dtype)
        table = self.position.table().astype(dtype)[None]
        if self.content is None:
            return table
        chex.assert_equal(table.shape[1], self.content.shape[1])
        table = jnp.broadcast_to(table, (self.content.shape[0], *table.shape[1:]))
        return jnp.concatenate([self.content.astype(dtype), table], axis=-1)

    def take(self, indices: jax.Array) -> "Tokens":
        """The tokens at `indices` `[n]`, in that order: a permutation or a subset."""
        return Tokens(
            content=None if self.content is None else self.content[:, indices],
            position=None if self.position is None else self.position.take(indices),
            mask=None if self.mask is None else self.mask[:, indices],
        )
