"""Attention, the definition, and partial results that merge.

`attend` is the dense formula that every cheaper strategy is tested against. It is written as
`finish(partial(...))`, because a softmax over tokens is a monoid: results over disjoint sets of
tokens (chunks of a huge input, modalities, devices) `merge` into the result over their union.

Shapes: B examples, H heads, N queries, M tokens, K channels of a query or key head, V of a value
head. Heads come before tokens, which is the layout that matrix libraries are fastest on.

Reference: Perceiver IO (Jaegle et al. 2022) app. E.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from flax import struct

MASKED = -1e30  # a logit no real token has; finite, so that an empty row has no NaN gradient


@struct.dataclass
class Partial:
    """Attention over some of the tokens, not yet normalised. float32.

    With logits l_j, values v_j and m = `maximum`: `normalizer` = sum_j exp(l_j - m) and `weighted`
    = sum_j exp(l_j - m) v_j. No gradient flows through m, on which the result does not depend.
    """

    maximum: jax.Array  # [B, H, N]
    normalizer: jax.Array  # [B, H, N]
    weighted: jax.Array  # [B, H, N, V]


def attention_logits(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Scaled and masked logits q.k / sqrt(K), float32 `[B, H, N, M]`. Shapes as in `partial`."""
    chex.assert_rank([query, key], 4)
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if query.shape[0] == 1:  # the same queries for every example: no copies over the batch
        logits = dot("hnk,bhmk->bhnm", query[0], key)
    else:
        logits = dot("bhnk,bhmk->bhnm", query, key)
    return logits if mask is None else jnp.where(mask[:, None, None, :], logits, MASKED)


def partial(query, key, value, *, mask=None, keep=None) -> Partial:
    """The dense formula over one set of tokens.

    Args:
      query: `[B or 1, H, N, K]`.
      key: `[B, H, M, K]`.
      value: `[B, H, M, V]`.
      mask: bool `[B, M]`, False for absent tokens.
      keep: `[B, H, N, M]` multiplies the probabilities (dropout): 0 or 1 / keep probability.
    """
    logits = attention_logits(query, key, mask)
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    weights = jnp.exp(logits - maximum[..., None])
    if mask is not None:  # where every token is absent, MASKED - MASKED would count them all
        weights = jnp.where(mask[:, None, None, :], weights, 0.0)
    normalizer = jnp.sum(weights, axis=-1)
    if keep is not None:
        weights = weights * keep
    weighted = jnp.einsum(
        "bhnm,bhmv->bhnv", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return Partial(maximum, normalizer, weighted)


def merge(a: Partial, b: Partial) -> Partial:
    """Joins attention over two disjoint sets of tokens; associative and commutative."""
    maximum = jnp.maximum(a.maximum, b.maximum)
    scale_a, scale_b = jnp.exp(a.maximum - maximum), jnp.exp(b.maximum - maximum)
    return Partial(
        maximum,
        scale_a * a.normalizer + scale_b * b.normalizer,
        scale_rows(a.weighted, scale_a) + scale_rows(b.weighted, scale_b),
    )


def scale_rows(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x `[B, H, N, ...]` times `scale` `[B, H, N]`."""
    return x * scale.reshape(*scale.shape, *[1] * (x.ndim - scale.ndim))


def finish(result: Partial) -> jax.Array:
    """Normalises to `[B, H, N, V]`, float32. Queries that saw no token at all get zeros."""
    seen = result.normalizer > 0
    normalizer = jnp.where(seen, result.normalizer, 1.0)[..., None]
    return jnp.where(seen[..., None], result.weighted / normalizer, 0.0)


def attend(query, key, value, *, mask=None, keep=None) -> jax.Array:
    """softmax(q k / sqrt(K)) v, the definition: `[B, H, N, V]` float32. Arguments: `partial`."""
    return finish(partial(query, key, value, mask=mask, keep=keep))


def attention_weights(query, keys, masks) -> jax.Array:
    """The softmax over all sets of tokens together, to look at: `[B, H, N, sum of M]`."""
    logits = [attention_logits(query, k, m) for k, m in zip(keys, masks, strict=True)]
    batch = max(x.shape[0] for x in logits)
    logits = [jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in logits]
    return jax.nn.softmax(jnp.concatenate(logits, axis=-1))
