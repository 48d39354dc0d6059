"""Layers: linear, norm, MLP, attention, cross-attention and self-attention modules.

Initialisers and norms are those of the released code: lecun-normal projections with zero biases,
pre-norm with epsilon 1e-5, tanh GELU. The file is long because the modules below build on each
other.

Reference: Perceiver IO (Jaegle et al. 2022) app. E.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from perceiver_jax import attention, mesh
from perceiver_jax.attention import sharded
from perceiver_jax.attention.cost import dense_forced, is_head_fused
from perceiver_jax.attention.folding import (
    AttentionWeights,
    FusedHead,
    Head,
    Linear,
    Norm,
    dot,
    fold_norm,
    fuse_head,
)
from perceiver_jax.attention.self_attention import layer_norm, product
from perceiver_jax.attention.softmax import (
    attention_weights,
    merge,
    normalize,
    scale,
    softmax_state,
)
from perceiver_jax.dropout import SPLIT, Dropout, bernoulli
from perceiver_jax.tokens import Tokens, token_sets


class NormWeights(nn.Module):
    """The parameters of a layer norm over channels."""

    @nn.compact
    def __call__(self, channels: int) -> Norm:
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        return Norm(self.param("scale", ones, (channels,)), self.param("bias", zeros, (channels,)))


class LinearWeights(nn.Module):
    """The parameters of a projection to `features` channels."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, channels: int) -> Linear:
        kernel = self.param("kernel", self.kernel_init, (channels, self.features))
        return Linear(kernel, self.param("bias", nn.initializers.zeros, (self.features,)))


class Attention(nn.Module):
    """Multi-head attention with projections.

    Attributes:
      num_heads: H; must divide the query/key and the value channels.
      qk_channels: width of all query (and key) heads together; None: the key/value input's width.
      v_channels: width of all value heads together; None: `qk_channels`.
      dropout_rate: probability of dropping an attention weight in training.
      dtype: compute dtype; parameters are float32, the softmax is float32.
    """

    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def weights(self, query_width: int, input_width: int) -> AttentionWeights:
        """The parameters of the four projections, for inputs of these widths."""
        qk_channels = self.qk_channels or input_width
        v_channels = self.v_channels or qk_channels
        for field, channels in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if channels % self.num_heads:
                raise ValueError(f"{field}={channels} must divide by num_heads={self.num_heads}")
        return AttentionWeights(
            query=LinearWeights(qk_channels, name="query")(query_width),
            key=LinearWeights(qk_channels, name="key")(input_width),
            value=LinearWeights(v_channels, name="value")(input_width),
            out=LinearWeights(query_width, name="out")(v_channels),
        )

    def __call__(self, inputs_q, inputs_kv, *, mask=None, query_mask=None, train: bool):
        """The textbook formula over one array of tokens, or several disjoint ones in one softmax.

        Args:
          inputs_q: `[B or 1, N, Cq]`.
          inputs_kv: `[B or 1, M, C]`, or a list of such arrays that differ in M.
          mask: bool `[B, M]` or None; a list of them where `inputs_kv` is a list.
          query_mask: bool `[B or 1, N]`; a masked query attends to nothing, its result is zero.

        Returns:
          `[B, N, Cq]`.
        """
        is_self = inputs_kv is inputs_q and mask is None
        if not isinstance(inputs_kv, list):
            inputs_kv, mask = [inputs_kv], [mask]
        weights = self.weights(inputs_q.shape[-1], inputs_kv[0].shape[-1])
        query = self.heads(inputs_q, weights.query)
        keys = [self.heads(x, weights.key) for x in inputs_kv]
        values = [self.heads(x, weights.value) for x in inputs_kv]
        if self.wants_weights():
            self.sow("intermediates", "weights", attention_weights(query, keys, mask))
        drop = train and self.dropout_rate > 0
        if is_self and not drop and not dense_forced():
            result = attention.self_attend(query, keys[0], values[0])
            return self.output(result, weights.out, query_mask)
        states = []
        for key, value, present in zip(keys, values, mask, strict=True):
            dropout_mask = self.dropout_mask(query, key) if drop else None
            states.append(softmax_state(query, key, value, mask=present, dropout_mask=dropout_mask))
        return self.output(normalize(functools.reduce(merge, states)), weights.out, query_mask)

    def dropout_mask(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """`[B, H, N, M]`: 0, or 1 / keep probability."""
        batch = max(query.shape[0], key.shape[0])
        shape = (batch, self.num_heads, query.shape[2], key.shape[2])
        keep = 1 - self.dropout_rate
        return bernoulli(self, keep, shape) / keep

    def heads(self, x: jax.Array, weights: Linear) -> jax.Array:
        """Projects `[B, T, C]` to `[B, H, T, channels / H]`."""
        x = linear(x, weights, self.dtype)
        return x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)

    def output(self, result: jax.Array, weights: Linear, query_mask) -> jax.Array:
        """`[B, H, N, V]` -> `[B, N, Cq]`."""
        result = checkpoint_name(result.astype(self.dtype), "attended").swapaxes(1, 2)
        result = result.reshape(*result.shape[:2], -1)  # [B, N, H V]
        if query_mask is not None:
            result = jnp.where(query_mask[..., None], result, 0)
        return linear(result, weights, self.dtype)

    def wants_weights(self) -> bool:
        """Whether the caller collects the attention weights (`mutable=["intermediates"]`)."""
        return self.is_mutable_collection("intermediates") and not self.is_initializing()


def linear(x: jax.Array, weights: Linear, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`[B, T, C]` -> `[B, T, F]` in `dtype`."""
    result = product(x.astype(dtype), weights.kernel.astype(dtype))
    return result + weights.bias.astype(dtype)[None, None]


def apply_head(head: Head, x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`[B, T, C]` -> `[B, T, F]`, one layer after the other; `x` itself where there is none."""
    return functools.reduce(lambda x, weights: linear(x, weights, dtype), head, x)


def squared_relu(x: jax.Array) -> jax.Array:
    """max(x, 0)^2 (So et al. 2021), the activation of Perceiver AR."""
    return jnp.square(nn.relu(x))


class MLP(nn.Module):
    """Dense(widening x C), activation (by default tanh GELU), Dense(C), dropout."""

    widening: int = 1
    dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    activation: Callable[[jax.Array], jax.Array] = nn.gelu

    def setup(self):
        self.dropout = Dropout(self.dropout_rate)

    @nn.compact
    def weights(self, channels: int) -> tuple[Linear, Linear]:
        """The parameters of the two layers."""
        width = self.widening * channels
        hidden = LinearWeights(width, name="hidden")(channels)
        return hidden, LinearWeights(channels, name="out")(width)

    def hidden(self, x: jax.Array) -> jax.Array:
        """The input of the second layer."""
        return self.activation(linear(x, self.weights(x.shape[-1])[0], self.dtype))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, T, C]` -> `[B, T, C]`."""
        x = linear(self.hidden(x), self.weights(x.shape[-1])[1], self.dtype)
        return self.dropout(x, train=train)


class _Layer(nn.Module):
    """The submodules of both layers below: an attention, and an MLP behind a norm.

    Attributes: as `Attention` and `MLP`, and
      dropout_rate: on the attention's output and the MLP's, in training.
      attention_dropout_rate: on the attention weights, in training.
    """

    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening: int = 1
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        self.attention = Attention(
            self.num_heads,
            self.qk_channels,
            self.v_channels,
            self.attention_dropout_rate,
            self.dtype,
        )
        self.norm_mlp = NormWeights()
        self.mlp = MLP(self.widening, self.dropout_rate, self.dtype)


class CrossAttention(_Layer):
    """Queries attend to inputs: pre-norm attention, optional residual, then a residual MLP.

    Attributes: as above, and
      query_residual: add the queries to the attention's output.
    """

    query_residual: bool = True

    def setup(self):
        super().setup()
        self.dropout = Dropout(self.dropout_rate)
        self.norm_queries = NormWeights()
        self.norm_inputs = NormWeights()

    def __call__(self, queries: Tokens, inputs: Any, *, train: bool, head: Head = ()) -> jax.Array:
        """`queries` attend to `inputs`, `Tokens` or a tree of them, in one softmax.

        Returns:
          `[B, N, queries.width]`, or the output of `head`. With a head, no array as wide as the
          queries exists for more than a chunk of them.
        """
        inputs = token_sets(inputs)
        if len({tokens.width for tokens in inputs}) > 1:
            widths = [tokens.width for tokens in inputs]
            raise ValueError(f"tokens read together need one width, got {widths}: pad them")
        dropped = train and self.attention_dropout_rate > 0
        if dropped or self.attention.wants_weights() or dense_forced():
            return self.dense(queries, inputs, train, head)
        if len(inputs) == 1 and is_plain(inputs[0]) and queries.num_tokens > inputs[0].num_tokens:
            return self.decode(queries, inputs[0].content, train, head)
        return self.encode(queries, inputs, train, head)

    def dense(self, queries: Tokens, inputs: list[Tokens], train: bool, head: Head):
        """The textbook formula: for dropped attention weights, and to collect the weights."""
        q, norm_inputs = queries.dense(self.dtype), self.norm_inputs(inputs[0].width)
        x = self.attention(
            layer_norm(q, *self.norm_queries(queries.width)),
            [layer_norm(tokens.dense(self.dtype), *norm_inputs) for tokens in inputs],
            mask=[tokens.mask for tokens in inputs],
            query_mask=queries.mask,
            train=train,
        )
        return self.feed_forward(x, q, train, head)

    def encode(self, queries: Tokens, inputs: list[Tokens], train: bool, head: Head):
        """Many tokens into few queries, in chunks of tokens."""
        weights = self.attention.weights(queries.width, inputs[0].width)
        norm_inputs = self.norm_inputs(inputs[0].width)
        q = queries.dense(self.dtype)
        query = self.attention.heads(
            layer_norm(q, *self.norm_queries(queries.width)), weights.query
        )
        result = attention.encode(
            query * scale(query),
            inputs,
            fold_norm(norm_inputs, weights.key, self.num_heads),
            fold_norm(norm_inputs, weights.value, self.num_heads),
            self.dtype,
        )
        x = self.attention.output(result, weights.out, queries.mask)
        return self.feed_forward(x, q, train, head)

    def decode(self, queries: Tokens, latents: jax.Array, train: bool, head: Head):
        """Many queries from few latents `[B, N, D]`, in chunks of queries."""
        weights = self.attention.weights(queries.width, latents.shape[-1])
        normed = layer_norm(latents, *self.norm_inputs(latents.shape[-1]))
        keys = self.attention.heads(normed, weights.key)
        decoding = attention.decode(
            queries,
            fold_norm(self.norm_queries(queries.width), weights.query, self.num_heads),
            keys * scale(keys),
            self.attention.heads(normed, weights.value),
            weights.out,
            self.dtype,
            with_queries=self.query_residual,
        )
        hidden, out = self.mlp.weights(queries.width)
        rows = mesh.local_batch_size(decoding.batch) * queries.num_tokens
        widths = [queries.width, *(linear.kernel.shape[-1] for linear in head)]
        drops = train and self.dropout_rate > 0  # between the MLP's last layer and the head
        if head and not drops and is_head_fused(rows, hidden.kernel.shape[-1], widths):
            head = fuse_head(out, head)
        if not sharded.is_sharded(queries.num_tokens // decoding.row_size):
            return self.decode_chunks(
                decoding, (decoding.out, head), decoding.params, decoding.data, train
            )
        block, variables = self.unbind()
        keys = {name: self.make_rng(name) for name in SPLIT if self.has_rng(name)}

        def decode_local(shared, params, data):
            variables, layers, keys = shared
            keys = {n: mesh.local_key(k, (mesh.DATA, mesh.MODEL)) for n, k in keys.items()}
            arguments = decoding, layers, params, data, train
            return block.apply(variables, *arguments, rngs=keys, method="decode_chunks")

        return sharded.map_queries(
            decode_local,
            (variables, (decoding.out, head), keys),
            decoding.params,
            decoding.data,
            decoding.row_size,
        )

    def decode_chunks(self, decoding: attention.Decoding, layers, params, data, train: bool):
        """Decodes the queries in `data`; `layers` are the output projection and the head."""
        out, head = layers

        def decode_chunk(block, chunk):
            return block.feed_forward(*decoding.attend(params, out, chunk), train, head)

        results = []
        for count, chunks in decoding.chunks(params, data):
            if count == 1:
                first = jax.tree.map(lambda x: x[0], chunks)
                results.append(decode_chunk(self, first))
                continue
            scan = nn.scan(
                lambda block, _, chunk: (
                    None,
                    nn.remat(decode_chunk, prevent_cse=False)(block, chunk),
                ),
                variable_broadcast="params",
                split_rngs=SPLIT | {"params": False},
                length=count,
            )
            _, outputs = scan(self, None, chunks)  # [n, B, m, F]
            outputs = outputs.swapaxes(0, 1)
            results.append(outputs.reshape(outputs.shape[0], -1, outputs.shape[-1]))
        return jnp.concatenate(results, axis=1) if len(results) > 1 else results[0]

    def feed_forward(
        self, x: jax.Array, q: jax.Array | None, train: bool, head: Head | FusedHead = ()
    ) -> jax.Array:
        """Behind the attention: dropout, the residual, the MLP, the head."""
        x = self.dropout(x, train=train)
        if self.query_residual:
            x = x + q
        normed = layer_norm(x, *self.norm_mlp(x.shape[-1]))
        if isinstance(head, FusedHead):  # rounded once, after the sum
            pairs = (x, head.residual), (self.mlp.hidden(normed), head.hidden)
            products = [dot("btc,cf->btf", a, w.kernel.astype(self.dtype)) for a, w in pairs]
            bias = head.residual.bias + head.hidden.bias
            return (sum(products) + bias[None, None]).astype(self.dtype)
        return apply_head(head, x + self.mlp(normed, train=train), self.dtype)


def is_plain(tokens: Tokens) -> bool:
    """Whether tokens are content alone, all present, as latents are."""
    return tokens.position is None and tokens.mask is None and tokens.padding is None


class SelfAttention(_Layer):
    """A pre-norm transformer layer over `[B, N, C]`. Attributes: as above."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        normed = layer_norm(x, *NormWeights(name="norm_attention")(x.shape[-1]))
        attended = self.attention(normed, normed, train=train)
        x = x + Dropout(self.dropout_rate)(attended, train=train)
        return x + self.mlp(layer_norm(x, *self.norm_mlp(x.shape[-1])), train=train)
