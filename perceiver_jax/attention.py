"""Attention: the definition, partial results that merge, and the blocks built from them.

`attend` is the dense formula that every cheaper strategy is tested against. It is written as
`finish(partial(...))`, because a softmax over tokens is a monoid: results over disjoint sets of
tokens (chunks of a huge input, modalities, devices) `merge` into the result over their union.

Shapes: B examples, H heads, N queries, M tokens, K channels of a query or key head, V of a value
head. Heads come before tokens, which is the layout that matrix libraries are fastest on.

References: Perceiver IO (Jaegle et al. 2022) app. E; initialisers and norms as in the released
code: lecun-normal projections with zero biases, pre-norm with epsilon 1e-5, tanh GELU.
"""

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from perceiver_jax.gradients import LayerNorm, attend_itself, product
from perceiver_jax.tokens import Tokens, token_sets

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
        scale_a[..., None] * a.weighted + scale_b[..., None] * b.weighted,
    )


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
    return nn.softmax(jnp.concatenate(logits, axis=-1))


def dense(channels: int, dtype, name: str) -> nn.Dense:
    """A projection with a bias: float32 parameters, products in `dtype`."""
    return nn.Dense(channels, dtype=dtype, dot_general=product, name=name)


class Attention(nn.Module):
    """Multi-head attention between two arrays, with projections.

    Attributes:
      num_heads: H; must divide the query/key and the value channels.
      qk_channels: width of all query (and key) heads together; None: the key/value input's width.
      v_channels: width of all value heads together; None: `qk_channels`.
      out_channels: width of the output; None: `v_channels`.
      dropout_rate: probability of dropping an attention weight in training.
      dtype: compute dtype; parameters are float32, the softmax is float32.
    """

    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    out_channels: int | None = None
    dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs_q, inputs_kv, *, mask=None, query_mask=None, train: bool):
        """Reads one set of tokens, or several disjoint sets in one softmax.

        Args:
          inputs_q: `[B or 1, N, Cq]`.
          inputs_kv: `[B or 1, M, C]`, or a list of such arrays that differ in M.
          mask: bool `[B, M]` or None; a list of them where `inputs_kv` is a list.
          query_mask: bool `[B or 1, N]`; what a masked query reads is zero.

        Returns:
          `[B, N, out_channels]`.
        """
        itself = inputs_kv is inputs_q and mask is None
        if not isinstance(inputs_kv, list):
            inputs_kv, mask = [inputs_kv], [mask]
        qk_channels = self.qk_channels or inputs_kv[0].shape[-1]
        v_channels = self.v_channels or qk_channels
        for field, channels in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if channels % self.num_heads:
                raise ValueError(f"{field}={channels} must divide by num_heads={self.num_heads}")

        def heads(xs, channels, name):  # [B, T, C] -> [B, H, T, channels / H], each
            project = dense(channels, self.dtype, name)
            split = (self.num_heads, channels // self.num_heads)
            return [project(x).reshape(*x.shape[:2], *split).swapaxes(1, 2) for x in xs]

        (query,) = heads([inputs_q], qk_channels, "query")
        keys = heads(inputs_kv, qk_channels, "key")
        values = heads(inputs_kv, v_channels, "value")
        if self.is_mutable_collection("intermediates") and not self.is_initializing():
            self.sow("intermediates", "weights", attention_weights(query, keys, mask))
        drop = train and self.dropout_rate > 0
        if itself and not drop:
            result = attend_itself(query, keys[0], values[0])
        else:
            results = []
            for key, value, present in zip(keys, values, mask, strict=True):
                keep = None
                if drop:
                    batch = max(query.shape[0], key.shape[0])
                    shape = (batch, self.num_heads, query.shape[2], key.shape[2])
                    kept = 1 - self.dropout_rate
                    keep = jax.random.bernoulli(self.make_rng("dropout"), kept, shape) / kept
                results.append(partial(query, key, value, mask=present, keep=keep))
            result = finish(functools.reduce(merge, results)).astype(self.dtype)
        result = checkpoint_name(result, "read")
        result = result.swapaxes(1, 2).reshape(result.shape[0], -1, v_channels)  # [B, N, H V]
        if query_mask is not None:
            result = jnp.where(query_mask[..., None], result, 0)
        return dense(self.out_channels or v_channels, self.dtype, "out")(result)


class MLP(nn.Module):
    """Dense(widening x C), tanh GELU, Dense(C), dropout."""

    widening: int = 1
    dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool):
        channels = x.shape[-1]
        x = dense(self.widening * channels, self.dtype, "hidden")(x)
        x = dense(channels, self.dtype, "out")(nn.gelu(x, approximate=True))
        return nn.Dropout(self.dropout_rate)(x, deterministic=not train)


class CrossAttention(nn.Module):
    """Queries read inputs: pre-norm attention, optional residual, then a residual MLP.

    Attributes: as `Attention` and `MLP`, and
      query_residual: add the queries to what they read.
      dropout_rate: on the attention's output and the MLP's, in training.
      attention_dropout_rate: on the attention weights, in training.
    """

    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening: int = 1
    query_residual: bool = True
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, queries: Tokens, inputs: Any, *, train: bool) -> jax.Array:
        """Reads `inputs`, `Tokens` or a tree of them. Returns `[B, N, queries.width]`."""
        inputs = token_sets(inputs)
        if len({tokens.width for tokens in inputs}) > 1:
            widths = [tokens.width for tokens in inputs]
            raise ValueError(f"tokens read together need one width, got {widths}: pad them")
        q = queries.dense(self.dtype)
        norm_inputs = LayerNorm(name="norm_inputs")
        x = Attention(
            num_heads=self.num_heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            out_channels=queries.width,
            dropout_rate=self.attention_dropout_rate,
            dtype=self.dtype,
            name="attention",
        )(
            LayerNorm(name="norm_queries")(q),
            [norm_inputs(tokens.dense(self.dtype)) for tokens in inputs],
            mask=[tokens.mask for tokens in inputs],
            query_mask=queries.mask,
            train=train,
        )
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        if self.query_residual:
            x = x + q
        mlp = MLP(self.widening, self.dropout_rate, self.dtype, name="mlp")
        return x + mlp(LayerNorm(name="norm_mlp")(x), train=train)


class SelfAttention(nn.Module):
    """A pre-norm transformer layer over `[B, N, C]`; `qk_channels`, `v_channels` None mean C."""

    num_heads: int = 8
    qk_channels: int | None = None
    v_channels: int | None = None
    widening: int = 1
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        normed = LayerNorm(name="norm_attention")(x)
        attention = Attention(
            num_heads=self.num_heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels or x.shape[-1],
            out_channels=x.shape[-1],
            dropout_rate=self.attention_dropout_rate,
            dtype=self.dtype,
            name="attention",
        )
        read = attention(normed, normed, train=train)
        x = x + nn.Dropout(self.dropout_rate)(read, deterministic=not train)
        mlp = MLP(self.widening, self.dropout_rate, self.dtype, name="mlp")
        return x + mlp(LayerNorm(name="norm_mlp")(x), train=train)
