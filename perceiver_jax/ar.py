"""Perceiver AR: a long sequence, read once into latents that predict its next tokens.

    inputs = embed(ids, places)               [B, M, D], never made as a whole
    z = latents(inputs at the last N places)  [B, N, D]
    z = cross_attend(z, inputs)               each latent reads its own place and all before it
    z = layers(z)                             causal self-attention among the latents
    logits = output(norm(z))                  of the token behind each latent's place

A sequence has `length` ids and then padding. Latents are at the last N places of what is there, so
they slide with the length. Where a sequence is shorter than N, the first latents have negative
places: nobody sees them, and their outputs mean nothing.

References: Perceiver AR (Hawthorne et al. 2022), and its released code.
"""

import functools
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax import mesh
from perceiver_jax.attention import attend_causal
from perceiver_jax.attention.cost import dense_forced
from perceiver_jax.attention.folding import Linear, Norm
from perceiver_jax.attention.self_attention import layer_norm
from perceiver_jax.attention.softmax import Places, attend, attention_weights
from perceiver_jax.config_types import (
    Channels,
    ConfigError,
    Fraction,
    Layers,
    Positive,
    Rate,
    Size,
    Widening,
)
from perceiver_jax.dropout import SPLIT, Dropout, bernoulli
from perceiver_jax.layers import MLP, Attention, LinearWeights, NormWeights, linear, squared_relu
from perceiver_jax.perceiver import REMAT_POLICIES
from perceiver_jax.position import rotate, sinusoids

KeysValues = dict[str, jax.Array]  # `key` [B, M, H, K] and `value` [B, M, H, V]


class EmbeddingWeights(NamedTuple):
    """A vector for each id `[V, D]`, and for each index of each axis of learned places `[n, D]`."""

    table: jax.Array
    axes: tuple[jax.Array, ...]


class Embedding(NamedTuple):
    """How ids become vectors: the vector of an id plus that of its place.

    A learned place is a sum over the axes of a grid. The grid counts what is *predicted*: the input
    at place t has the code of point t of the grid, which comes next.

    Attributes:
      positions, shape: of `PerceiverAR`.
      dtype: compute dtype.
    """

    positions: str
    shape: tuple[int, ...]
    dtype: jax.typing.DTypeLike

    def __call__(self, weights: EmbeddingWeights, ids: jax.Array, places: jax.Array) -> jax.Array:
        """`[B, T]` ids at places -> `[B, T, D]`."""
        content = weights.table.astype(self.dtype)[ids.astype(jnp.int32)]
        if self.positions == "sinusoidal":
            content = content + sinusoids(places, content.shape[-1]).astype(self.dtype)
        below = math.prod(self.shape)
        for size, axis in zip(self.shape, weights.axes, strict=False):  # no axes but learned ones
            below //= size
            content = content + axis.astype(self.dtype)[places // below % size]
        return content


class Heads(NamedTuple):
    """How vectors become the heads of an attention.

    Attributes:
      number: H.
      width: channels of all heads together.
      rotated: share of each head's channels that turn with the place; 0 is none.
      max_wavelength: of these rotations.
      dtype: compute dtype.
    """

    number: int
    width: int
    rotated: float
    max_wavelength: float
    dtype: jax.typing.DTypeLike

    def __call__(self, x: jax.Array, weights: Linear, places: jax.Array | None = None) -> jax.Array:
        """Projects `[B, T, C]` to `[B, H, T, K]`; queries and keys have places, values none."""
        x = linear(x, weights, self.dtype)
        x = x.reshape(*x.shape[:2], self.number, -1).swapaxes(1, 2)
        return x if places is None else rotate(x, places, self.rotated, self.max_wavelength)


class CausalLayer(nn.Module):
    """A pre-norm transformer layer that looks back only: what both attentions share."""

    heads: Heads
    widening: int
    dropout_rate: float

    def setup(self):
        dtype = self.heads.dtype
        self.attention = Attention(self.heads.number, dtype=dtype)
        self.norm_attention = NormWeights()
        self.norm_mlp = NormWeights()
        self.mlp = MLP(self.widening, self.dropout_rate, dtype, squared_relu)
        self.dropout = Dropout(self.dropout_rate)

    def feed_forward(self, x: jax.Array, attended: jax.Array, train: bool) -> jax.Array:
        """Behind the attention: dropout and residual, then the MLP and its residual."""
        x = x + self.dropout(attended, train=train)
        return x + self.mlp(layer_norm(x, *self.norm_mlp(x.shape[-1])), train=train)


class CausalSelfAttention(CausalLayer):
    """Latents attend to those at their own place and before."""

    def __call__(self, x: jax.Array, places: jax.Array, *, train: bool) -> jax.Array:
        """`[B, N, D]` at places `[B, N]` -> `[B, N, D]`."""
        return self.extend(x, Places(places, places), None, 0, train=train)[0]

    def extend(
        self,
        x: jax.Array,
        places: Places,
        cache: KeysValues | None,
        slot: jax.Array | int,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, KeysValues]:
        """Latents `[B, n, D]`, which also see those in a cache, into which their own go.

        Args:
          x: the latents.
          places: of these latents, and of all slots of the cache.
          cache: keys and values of N slots; None where all latents are in `x`.
          slot: the first slot of `x`.
          train: whether layers drop.

        Returns:
          `[B, n, D]`, and the cache with their keys and values.
        """
        weights = self.attention.weights(x.shape[-1], x.shape[-1])
        normed = layer_norm(x, *self.norm_attention(x.shape[-1]))
        query, key = (self.heads(normed, w, places.query) for w in (weights.query, weights.key))
        own = pack(key, self.heads(normed, weights.value))
        if cache is not None:
            put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
            own = jax.tree.map(put, cache, own)
        result = _attend(query, unpack, (), own, places)
        return self.feed_forward(x, self.attention.output(result, weights.out, None), train), own


class CausalCrossAttention(CausalLayer):
    """Latents attend to the inputs at their own place and before; inputs are made block by block.

    Attributes:
      embedding: makes the inputs.
      channels: of the latents.
    """

    embedding: Embedding
    channels: int

    def setup(self):
        super().setup()
        self.norm_inputs = NormWeights()

    def __call__(
        self,
        x: jax.Array,
        places: Places,
        inputs: tuple[jax.Array, EmbeddingWeights] | KeysValues,
        mask: jax.Array | None,
        *,
        train: bool,
    ) -> jax.Array:
        """Latents `[B, N, D]` -> `[B, N, D]`.

        Args:
          x: the latents.
          places: of latents and inputs.
          inputs: ids `[B, M]` with the weights of their embedding, or `keys_values` of them.
          mask: bool `[B, M]`, False for inputs that nobody sees.
          train: whether layers drop.
        """
        normed = layer_norm(x, *self.norm_attention(self.channels))
        weights = self.attention.weights(self.channels, self.heads.width)
        query = self.heads(normed, weights.query, places.query)
        read, params, data = unpack, (), inputs
        if not isinstance(inputs, Mapping):
            read, params, data = self.reader(*inputs, places.key)
        if self.attention.wants_weights():
            seen = attention_weights(query, [read(params, data)[0]], [mask], [places])
            self.sow("intermediates", "weights", seen)
        result = _attend(query, read, params, data, places, mask)
        return self.feed_forward(x, self.attention.output(result, weights.out, None), train)

    def reader(self, ids: jax.Array, embedding: EmbeddingWeights, places: jax.Array) -> tuple:
        """What makes keys and values of a block; its parameters; the data of all inputs."""
        weights = self.attention.weights(self.channels, self.heads.width)
        params = embedding, self.norm_inputs(self.heads.width), weights.key, weights.value
        data = {"ids": ids, "place": jnp.broadcast_to(places, ids.shape)}
        return functools.partial(read_inputs, self.embedding, self.heads), params, data

    def keys_values(self, ids: jax.Array, embedding: EmbeddingWeights, places) -> KeysValues:
        """Keys and values of all inputs `[B, M]`."""
        read, params, data = self.reader(ids, embedding, places)
        return pack(*read(params, data))


def read_inputs(
    embedding: Embedding,
    heads: Heads,
    params: tuple[EmbeddingWeights, Norm, Linear, Linear],
    x: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Keys and values `[B, H, m, ..]` of a block of ids."""
    weights, norm, key, value = params
    normed = layer_norm(embedding(weights, x["ids"], x["place"]), *norm)
    return heads(normed, key, x["place"]), heads(normed, value)


def pack(key: jax.Array, value: jax.Array) -> KeysValues:
    """`[B, H, M, ..]` as data by token."""
    return {"key": key.swapaxes(1, 2), "value": value.swapaxes(1, 2)}


def unpack(params: tuple, x: KeysValues) -> tuple[jax.Array, jax.Array]:
    """What `pack` packs, of a block."""
    del params
    return x["key"].swapaxes(1, 2), x["value"].swapaxes(1, 2)


def _attend(query, read, params, data, places: Places, mask=None) -> jax.Array:
    if dense_forced():
        return attend(query, *read(params, data), places=places, mask=mask)
    return attend_causal(query, read, params, data, places, mask=mask)


class PerceiverAR(nn.Module):
    """The model. Its config is a section `model` with `module` "ar.PerceiverAR".

    Attributes (defaults: the released copy model of 131,072 tokens):
      num_ids: size of the vocabulary; bytes have 259.
      max_length: M, the longest input.
      num_latents: N.
      num_layers: of causal self-attention.
      channels: D, of the latents.
      input_channels: of the inputs, and of all heads of the cross-attend together; None is D.
      positions: absolute codes added to the embedding, 'sinusoidal' or 'learned'; or 'rotary'.
      position_shape: the grid of learned positions, such as (64, 64, 3): one table for each axis.
      rotated: share of each head's channels that rotary positions turn.
      embedding_init_scale: parameter of the truncated normal of ids and learned positions.
      dropout_rate: behind each attention and each MLP.
      input_dropout_rate: share of the inputs that no latent sees, drawn for each example.
      remat: one of `perceiver.REMAT_POLICIES`: what the backward pass of the layers keeps.
      dtype: compute dtype. Parameters, softmax and layer norms are float32.
    """

    num_ids: Size = 259
    max_length: Size = 131_072
    num_latents: Size = 1024
    num_layers: Layers = 6
    channels: Channels = 1024
    input_channels: Channels | None = None
    num_cross_attend_heads: Channels = 16
    num_self_attend_heads: Channels = 16
    widening: Widening = 4
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    position_shape: tuple[Size, ...] = ()
    rotated: Fraction = 0.5
    embedding_init_scale: Positive = 1.0
    dropout_rate: Rate = 0.0
    input_dropout_rate: Rate = 0.0
    remat: Literal["none", "dots", "full"] = "dots"
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        check_sizes(self)
        width = self.input_channels or self.channels
        shape = self.position_shape or (self.max_length,)
        self.embed = Embedding(self.positions, shape, self.dtype)
        init = nn.initializers.truncated_normal(self.embedding_init_scale)
        self.table = self.param("table", init, (self.num_ids, width))
        self.axes = [
            self.param(f"positions_{i}", init, (size, width))
            for i, size in enumerate(shape if self.positions == "learned" else ())
        ]
        self.latents = LinearWeights(self.channels)
        rotated = self.rotated if self.positions == "rotary" else 0.0
        rotation = rotated, float(self.max_length), self.dtype
        layer = self.widening, self.dropout_rate
        self.cross_attend = CausalCrossAttention(
            Heads(self.num_cross_attend_heads, width, *rotation), *layer, self.embed, self.channels
        )
        heads = Heads(self.num_self_attend_heads, self.channels, *rotation)
        self.layers = CausalSelfAttention(heads, *layer)
        self.norm_output = NormWeights()
        self.output = LinearWeights(self.num_ids, nn.initializers.zeros)

    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """`ids` `[B, M]` and `length` `[B]` -> the `logits` of N latents."""
        return self.logits(batch["ids"], batch["length"], train=train)

    def logits(
        self,
        ids: jax.Array,
        length: jax.Array,
        *,
        num_latents: int | None = None,
        keys_values: KeysValues | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Logits of the tokens behind the last places of each sequence.

        Args:
          ids: int `[B, M]`; what is behind `length` is not read. M may be less than `max_length`.
          length: int `[B]`.
          num_latents: N; None is the model's.
          keys_values: `keys_values` of the same ids, so that they are not made again.
          train: whether layers and inputs drop.

        Returns:
          float32 `[B, N, num_ids]`; entry i is of place `length - N + i + 1`, and means nothing
          where its own place is negative (`latent_places`).
        """
        if ids.shape[1] > self.max_length:
            raise ValueError(f"{ids.shape[1]} ids are more than max_length={self.max_length}")
        places = Places(
            latent_places(length, num_latents or self.num_latents),
            jnp.arange(ids.shape[1], dtype=jnp.int32)[None],
        )
        mask = None
        if train and self.input_dropout_rate:
            keep = 1 - self.input_dropout_rate
            mask = bernoulli(self, keep, ids.shape)
        own = jnp.take_along_axis(ids, jnp.maximum(places.query, 0), axis=1)
        inputs = ids if keys_values is None else keys_values
        return self.finish(self.read(own, places, inputs, mask, train), places.query, train)

    def read(
        self,
        ids: jax.Array,
        places: Places,
        inputs: jax.Array | KeysValues,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Latents `[B, N, D]` that have read the inputs.

        What a latent has read depends on its place alone, not on the other latents.

        Args:
          ids: int `[B, N]`, of the latents.
          places: of latents and inputs.
          inputs: ids `[B, M]`, or `keys_values` of them.
          mask: bool `[B, M]`, False for inputs that nobody sees.
          train: whether layers drop.
        """
        weights = self.embedding_weights()
        z = self.embed(weights, ids, jnp.maximum(places.query, 0))
        z = linear(z, self.latents(z.shape[-1]), self.dtype)
        inputs = inputs if isinstance(inputs, Mapping) else (inputs, weights)
        return self.cross_attend(z, places, inputs, mask, train=train)

    def finish(self, z: jax.Array, places: jax.Array, train: bool = False) -> jax.Array:
        """Latents `[B, N, D]` that have read the inputs, at places `[B, N]` -> their logits."""
        return self.to_logits(self.apply_layers(z, places, train))

    def extend(
        self, z: jax.Array, places: Places, cache: KeysValues, slot: jax.Array | int
    ) -> tuple[jax.Array, KeysValues]:
        """`finish` of new latents, behind those whose keys and values are in a cache of each layer.

        Args:
          z: `[B, n, D]`.
          places: of the new latents, and of the slots of the cache.
          cache: `key` and `value` `[layers, B, N, H, K]`.
          slot: where the new latents go.

        Returns:
          Logits `[B, n, num_ids]`, and the cache with the new latents.
        """
        scan = nn.scan(
            lambda layer, z, cache: layer.extend(z, places, cache, slot),
            variable_axes={"params": 0},
            split_rngs=SPLIT | {"params": True},
            length=self.num_layers,
        )
        z, cache = scan(self.layers, z, cache)
        return self.to_logits(z), cache

    def to_logits(self, z: jax.Array) -> jax.Array:
        """`[B, N, D]` behind all layers -> float32 `[B, N, num_ids]`."""
        z = layer_norm(z, *self.norm_output(self.channels)).astype(self.dtype)
        return linear(z, self.output(self.channels), self.dtype).astype(jnp.float32)

    def keys_values(self, ids: jax.Array, start: jax.Array | int = 0) -> KeysValues:
        """Keys and values `[B, M, H, K]` of the cross-attend for ids `[B, M]` at places from start.

        `start` is one for all, or `[B, 1]`. They depend on no other token, so those of a longer
        sequence begin with these.
        """
        places = start + jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
        return self.cross_attend.keys_values(ids, self.embedding_weights(), places)

    def embedding_weights(self) -> EmbeddingWeights:
        """The parameters of the inputs."""
        return EmbeddingWeights(self.table, tuple(self.axes))

    def apply_layers(self, z: jax.Array, places: jax.Array, train: bool) -> jax.Array:
        """The self-attention layers, of which one is traced; weights are stacked."""

        def apply_layer(layer, z):
            return layer(mesh.constrain_batch(z), places, train=train)

        if self.remat != "none":
            policy = REMAT_POLICIES[self.remat]
            apply_layer = nn.remat(apply_layer, policy=policy, prevent_cse=False)
        scan = nn.scan(
            lambda layer, z, _: (apply_layer(layer, z), None),
            variable_axes={"params": 0},
            split_rngs=SPLIT | {"params": True},
            length=self.num_layers,
        )
        return scan(self.layers, z, None)[0]


def latent_places(length: jax.Array, num_latents: int) -> jax.Array:
    """Places of the last N tokens of each sequence, int32 `[B, N]`; negative before its start."""
    return length[:, None].astype(jnp.int32) - num_latents + jnp.arange(num_latents)[None]


def check_sizes(model: PerceiverAR) -> None:
    """Raises ConfigError where two sizes of a model do not fit each other."""
    name = "config.model"
    if model.num_latents > model.max_length:
        raise ConfigError(
            f"{name}.num_latents={model.num_latents} is above {name}.max_length="
            f"{model.max_length}: latents are the last of the inputs, so write at most as many"
        )
    inputs = "input_channels" if model.input_channels else "channels"
    for field, heads in (
        (inputs, "num_cross_attend_heads"),
        ("channels", "num_self_attend_heads"),
    ):
        width, number = getattr(model, field), getattr(model, heads)
        if width % number:
            raise ConfigError(f"{name}.{field}={width} must divide by {heads}={number}")
    width = getattr(model, inputs)
    if model.positions == "sinusoidal" and width % 2:
        raise ConfigError(f"{name}.{inputs}={width} must be even: half of them are sines")
    shape = model.position_shape or (model.max_length,)
    if model.positions == "learned" and math.prod(shape) < model.max_length:
        raise ConfigError(
            f"{name}.position_shape={shape} has {math.prod(shape)} positions, fewer than "
            f"max_length={model.max_length}"
        )
