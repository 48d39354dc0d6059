"""`Tokens`: the output of every input module and the input of every attention."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from perceiver_jax.position import Position


@struct.dataclass
class Tokens:
    """An array of tokens as content + position, kept apart.

    Token j of example b means the concatenation `[content[b, j], position[j], padding]`. Positions
    do not depend on the example. A leading axis of size 1 means "the same for every example", so
    learned queries and latents are never copied over the batch.

    Several modalities are a tree (dict, tuple) of `Tokens` of equal width, never one long array.

    Attributes:
      content: `[B, M, c]`, or None for tokens that are only a place (queries).
      position: describes `[M, p]`, or None for tokens without a place.
      mask: bool `[B, M]`, False where there is no token; None means all True.
      padding: `[p]`, channels that are the same for every token: they bring a modality to the
        width it shares with others.
    """

    content: jax.Array | None = None
    position: Position | None = None
    mask: jax.Array | None = None
    padding: jax.Array | None = None

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
        padding = 0 if self.padding is None else self.padding.shape[-1]
        return content + (0 if self.position is None else self.position.width) + padding

    def dense(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """The textbook array `[B or 1, M, width]` in `dtype`."""
        parts = [] if self.content is None else [self.content]
        if self.position is not None:
            parts.append(self.position.table()[None])
        chex.assert_equal(len({part.shape[1] for part in parts}), 1)
        if self.padding is not None:
            parts.append(self.padding[None, None])
        shape = parts[0].shape[:2]
        parts = [jnp.broadcast_to(x.astype(dtype), (*shape, x.shape[-1])) for x in parts]
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def take(self, indices: jax.Array) -> "Tokens":
        """The tokens at `indices`, in that order: a permutation or a subset.

        Args:
          indices: `[n]` for all examples, or `[B, n]`, each example's own; then positions differ
            between examples, and the result has them in its content.
        """
        if indices.ndim == 2:
            return self._take_each(indices)
        return Tokens(
            content=None if self.content is None else self.content[:, indices],
            position=None if self.position is None else self.position.take(indices),
            mask=None if self.mask is None else self.mask[:, indices],
            padding=self.padding,
        )

    def _take_each(self, indices: jax.Array) -> "Tokens":
        parts, mask = [], self.mask
        if self.content is not None:
            content = jnp.broadcast_to(
                self.content, (indices.shape[0], *self.content.shape[1:])
            )  # [B, M, c]
            parts.append(jnp.take_along_axis(content, indices[..., None], axis=1))
        if self.position is not None:
            rows = self.position.take(indices.reshape(-1)).table()  # [B n, p]
            parts.append(rows.reshape(*indices.shape, -1))
        if mask is not None:
            mask = jnp.take_along_axis(mask, indices, axis=1)
        return Tokens(content=jnp.concatenate(parts, axis=-1), mask=mask, padding=self.padding)


def is_tokens(x: Any) -> bool:
    """Whether `x` is `Tokens`: `jax.tree.map(function, tree, is_leaf=is_tokens)`."""
    return isinstance(x, Tokens)


def token_sets(tokens: Any) -> list[Tokens]:
    """The `Tokens` of a tree of them, in alphabetical order of their names; `[tokens]` for one."""
    return jax.tree.leaves(tokens, is_leaf=is_tokens)
