"""Attention: its definition, and softmax states that merge.

`attend` is the dense formula that every cheaper computation is tested against. A softmax over
tokens is a monoid: the states of disjoint sets of tokens (chunks of a huge input, modalities,
devices) `merge` into the state of their union, and `normalize` gives the result.

Shapes: B examples, H heads, N queries, M tokens, K channels of a query or key head, V of a value
head. Heads come before tokens, which is the layout that matrix libraries are fastest on.

Reference: Perceiver IO (Jaegle et al. 2022) app. E.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

MASKED = -1e30  # the logit of a masked token; finite, so that an empty row has no NaN gradient


@struct.dataclass
class SoftmaxState:
    """Attention over some of the tokens, not yet normalized. float32.

    With logits l_j and values v_j, `denominator` = sum_j exp(l_j - max) and `accumulator` =
    sum_j exp(l_j - max) v_j. The result does not depend on `max`, so no gradient flows through it.
    """

    max: jax.Array  # [B, H, N]
    denominator: jax.Array  # [B, H, N]
    accumulator: jax.Array  # [B, H, N, V]


class Places(NamedTuple):
    """Where queries and keys are in a sequence: a query sees keys at its own place and before.

    A negative place is no token's. A key there is seen by the query at the same place alone, so
    that self-attention has no empty row.
    """

    query: jax.Array  # int32 [B or 1, N]
    key: jax.Array  # int32 [B or 1, M]


def visible(mask: jax.Array | None, places: Places | None) -> jax.Array | None:
    """Which keys each query sees, bool `[B or 1, 1, N or 1, M]`; None is all."""
    present = None if mask is None else mask[:, None, None, :]
    if places is None:
        return present
    query, key = places.query[:, None, :, None], places.key[:, None, None, :]
    seen = (key <= query) & ((key >= 0) | (key == query))
    return seen if present is None else seen & present


def attention_logits(
    query: jax.Array, key: jax.Array, mask: jax.Array | None, places: Places | None = None
) -> jax.Array:
    """Scaled and masked logits q.k / sqrt(K), float32 `[B, H, N, M]`. Shapes as in `attend`."""
    chex.assert_rank([query, key], 4)
    query = query * scale(query)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if query.shape[0] == 1:  # every example has the same queries: do not copy them over the batch
        logits = dot("hnk,bhmk->bhnm", query[0], key)
    else:
        logits = dot("bhnk,bhmk->bhnm", query, key)
    seen = visible(mask, places)
    return logits if seen is None else jnp.where(seen, logits, MASKED)


def scale(x: jax.Array) -> jax.Array:
    """1 / sqrt(K) for queries, or else keys, `[..., K]`, in their dtype."""
    return jnp.asarray(1 / math.sqrt(x.shape[-1]), x.dtype)


def softmax_state(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    places: Places | None = None,
    dropout_mask: jax.Array | None = None,
) -> SoftmaxState:
    """The dense formula over one set of tokens. Arguments: `attend`."""
    logits = attention_logits(query, key, mask, places)
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    weights = jnp.exp(logits - maximum[..., None])
    seen = visible(mask, places)
    if seen is not None:  # where every token is masked, exp(MASKED - MASKED) would count them all
        weights = jnp.where(seen, weights, 0.0)
    denominator = jnp.sum(weights, axis=-1)
    if dropout_mask is not None:
        weights = weights * dropout_mask
    accumulator = jnp.einsum(
        "bhnm,bhmv->bhnv", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return SoftmaxState(maximum, denominator, accumulator)


def merge(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """Joins the states of two disjoint sets of tokens; associative and commutative."""
    maximum = jnp.maximum(a.max, b.max)
    scale_a, scale_b = jnp.exp(a.max - maximum), jnp.exp(b.max - maximum)
    return SoftmaxState(
        maximum,
        scale_a * a.denominator + scale_b * b.denominator,
        scale_rows(a.accumulator, scale_a) + scale_rows(b.accumulator, scale_b),
    )


def scale_rows(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x `[B, H, N, ...]` times `scale` `[B, H, N]`."""
    return x * scale.reshape(*scale.shape, *[1] * (x.ndim - scale.ndim))


def normalize(state: SoftmaxState) -> jax.Array:
    """The attention result `[B, H, N, V]`, float32; zeros for queries that saw no token."""
    seen = state.denominator > 0
    denominator = jnp.where(seen, state.denominator, 1.0)[..., None]
    return jnp.where(seen[..., None], state.accumulator / denominator, 0.0)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    places: Places | None = None,
    dropout_mask: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k / sqrt(K)) v, the definition.

    Args:
      query: `[B or 1, H, N, K]`.
      key: `[B, H, M, K]`.
      value: `[B, H, M, V]`.
      mask: bool `[B, M]`, False for absent tokens.
      places: of queries and keys, where attention is causal.
      dropout_mask: `[B, H, N, M]` multiplies the probabilities: 0, or 1 / keep probability.

    Returns:
      `[B, H, N, V]` float32.
    """
    state = softmax_state(query, key, value, mask=mask, places=places, dropout_mask=dropout_mask)
    return normalize(state)


def attention_weights(
    query: jax.Array,
    keys: Sequence[jax.Array],
    masks: Sequence[jax.Array | None],
    places: Sequence[Places | None] | None = None,
) -> jax.Array:
    """The softmax over all sets of tokens together, for plots: `[B, H, N, sum of M]`."""
    places = places or [None] * len(keys)
    logits = [attention_logits(query, *one) for one in zip(keys, masks, places, strict=True)]
    batch = max(x.shape[0] for x in logits)
    logits = [jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in logits]
    return jax.nn.softmax(jnp.concatenate(logits, axis=-1))
