"""The architecture: an encoder, a decoder and their composition. Reads top to bottom.

    tokens = input(batch)                      adapters know the modality
    latents = encoder(tokens)                  cross-attends to the tokens, then self-attends
    outputs = decoder(queries, latents, head)  queries and head are those of `output`
    prediction = output(outputs)

The whole model is in one file, so that it can be read from start to end.

References: Perceiver (Jaegle et al. 2021) section 3; Perceiver IO (Jaegle et al. 2022) section 3.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax import mesh, stack
from perceiver_jax.attention import platforms
from perceiver_jax.attention.cost import dense_forced
from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Layers, Positive, Rate, Size, Widening
from perceiver_jax.dropout import SPLIT
from perceiver_jax.layers import CrossAttention, SelfAttention, apply_head
from perceiver_jax.tokens import Tokens, token_sets

# What the backward pass of a latent layer keeps; it computes the rest again. "dots" keeps the
# results of matrix products and of attention; `stack` has policies of its own for it.
REMAT_POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names("attended"),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class LatentTransformer(nn.Module):
    """`num_layers` self-attention layers with their own weights, applied `num_repeats` times over.

    One layer is traced and compiled: the weights are stacked `[num_layers, ...]` under `layers`.
    Where `platforms.is_one_loop`, `stack` applies them, unless something is dropped or the caller
    collects attention weights.
    """

    layers: SelfAttention
    num_layers: int
    num_repeats: int = 1
    remat: str = "none"

    def __call__(self, latents: jax.Array, *, train: bool) -> jax.Array:
        """`[B, N, D]` -> `[B, N, D]`."""
        if self.is_by_stack(train):
            return stack.apply_layers(
                self.layers.variables["params"],
                latents,
                num_heads=self.layers.num_heads,
                num_repeats=self.num_repeats,
                dtype=self.layers.dtype,
                remat=self.remat,
                train=train,
            )

        def apply_layer(layer, z):
            return layer(mesh.constrain_batch(z), train=train)

        if self.remat != "none":
            policy = REMAT_POLICIES[self.remat]
            apply_layer = nn.remat(apply_layer, policy=policy, prevent_cse=False)

        def apply_block(layer, z, _):
            scan = nn.scan(
                lambda layer, z, _: (apply_layer(layer, z), None),
                variable_axes={"params": 0},
                split_rngs=SPLIT | {"params": True},
                length=self.num_layers,
            )
            return scan(layer, z, None)

        if self.num_repeats > 1:
            apply_block = nn.scan(
                apply_block,
                variable_broadcast="params",
                split_rngs=SPLIT | {"params": False},
                length=self.num_repeats,
            )
        return apply_block(self.layers, latents, None)[0]

    def is_by_stack(self, train: bool) -> bool:
        """Whether `stack` applies the layers: it makes no parameters, drops and sows nothing."""
        drops = train and (self.layers.dropout_rate or self.layers.attention_dropout_rate)
        aside = drops or dense_forced() or self.is_mutable_collection("intermediates")
        return platforms.is_one_loop() and not aside and not self.is_initializing()


class Encoder(nn.Module):
    """Encodes tokens into latents. Perceiver IO: one cross-attend. Perceiver (2021): several.

    The latents pass through `num_blocks` blocks of `num_self_attends_per_block` layers. The
    `num_cross_attends` cross-attends are spread evenly (2021, Table 6 "interleaved"): each is
    followed by `num_blocks / num_cross_attends` blocks.

    With `share_weights` all blocks share their weights, and so do all cross-attends but the first:
    sharing that one too made training unstable (2021, section 4.1). Otherwise nothing is shared.

    Attributes (defaults: the released ImageNet models):
      *_qk_channels, *_v_channels: None means the key/value input's width, and `qk_channels`; in
        the self-attends both mean `latent_channels`.
      latent_init_scale: parameter of the truncated normal at 2 sigma, not variance-corrected.
      remat: one of `REMAT_POLICIES`: what the backward pass of the latent layers keeps.
      dtype: compute dtype. Parameters, softmax and layer norms are float32.
    """

    num_latents: Size = 512
    latent_channels: Channels = 1024
    num_cross_attends: Layers = 1
    num_blocks: Layers = 8
    num_self_attends_per_block: Layers = 6
    share_weights: bool = True
    num_cross_attend_heads: Channels = 1
    num_self_attend_heads: Channels = 8
    cross_attend_qk_channels: Channels | None = None
    cross_attend_v_channels: Channels | None = None
    cross_attend_widening: Widening = 1
    self_attend_qk_channels: Channels | None = None
    self_attend_v_channels: Channels | None = None
    self_attend_widening: Widening = 1
    dropout_rate: Rate = 0.0
    attention_dropout_rate: Rate = 0.0
    latent_init_scale: Positive = 0.02
    remat: Literal["none", "dots", "full"] = "dots"
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> jax.Array:
        """`Tokens`, or a tree of them -> `[B, num_latents, latent_channels]`."""
        if self.num_blocks % self.num_cross_attends:
            raise ValueError(
                f"num_blocks={self.num_blocks} must divide by "
                f"num_cross_attends={self.num_cross_attends}"
            )
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat={self.remat!r} is not one of {sorted(REMAT_POLICIES)}")
        latents = self.param(
            "latents",
            nn.initializers.truncated_normal(self.latent_init_scale),
            (self.num_latents, self.latent_channels),
        )
        z = latents[None].astype(self.dtype)  # [1, N, D] until the first cross-attend
        for cross_attend, self_attends in zip(*self._layers(), strict=True):
            z = cross_attend(Tokens(content=z), inputs, train=train)
            z = self_attends(z, train=train)
        return z

    def _layers(self) -> tuple[list[CrossAttention], list[LatentTransformer]]:
        """The cross-attends and the self-attends behind each; the lists repeat shared modules."""
        more = range(1, self.num_cross_attends)
        cross_attends = [self._cross_attend("cross_attend")]
        self_attends = [self._self_attends("blocks")]
        if not self.share_weights:
            cross_attends += [self._cross_attend(f"cross_attend_{i}") for i in more]
            self_attends += [self._self_attends(f"blocks_{i}") for i in more]
        elif more:
            cross_attends += [self._cross_attend("cross_attend_1")] * len(more)
            self_attends *= self.num_cross_attends
        return cross_attends, self_attends

    def _cross_attend(self, name: str) -> CrossAttention:
        return CrossAttention(
            num_heads=self.num_cross_attend_heads,
            qk_channels=self.cross_attend_qk_channels,
            v_channels=self.cross_attend_v_channels,
            widening=self.cross_attend_widening,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            dtype=self.dtype,
            name=name,
        )

    def _self_attends(self, name: str) -> LatentTransformer:
        num_layers = self.num_self_attends_per_block
        num_repeats = self.num_blocks // self.num_cross_attends
        if not self.share_weights:
            num_layers, num_repeats = num_layers * num_repeats, 1
        layers = SelfAttention(
            num_heads=self.num_self_attend_heads,
            qk_channels=self.self_attend_qk_channels,
            v_channels=self.self_attend_v_channels or self.latent_channels,
            widening=self.self_attend_widening,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            dtype=self.dtype,
            parent=None,  # belongs to the stack below
        )
        return LatentTransformer(layers, num_layers, num_repeats, self.remat, name=name)


class Decoder(nn.Module):
    """Decodes queries from the latents with one cross-attention (Perceiver IO, section 3.2).

    Attributes:
      qk_channels, v_channels: None means the latents' width, and `qk_channels`.
      query_residual: add the query to the attention's output. On for ImageNet with Fourier or conv
        inputs; off for learned positions, language, flow and autoencoding.
    """

    num_heads: Channels = 1
    qk_channels: Channels | None = None
    v_channels: Channels | None = None
    widening: Widening = 1
    query_residual: bool = True
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, queries: Any, latents: jax.Array, *, head: Any, train: bool) -> Any:
        """Decodes queries.

        Args:
          queries: `Tokens`, or a dict of them by name.
          latents: `[B, N, D]`.
          head: linear layers from the queries' width to F, applied to every output; for a dict of
            queries a dict of them.

        Returns:
          `[B, M, F]`, or a dict of such arrays.
        """
        cross_attend = CrossAttention(
            num_heads=self.num_heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            widening=self.widening,
            query_residual=self.query_residual,
            dtype=self.dtype,
            name="cross_attend",
        )
        latents = Tokens(content=latents)
        if isinstance(queries, Tokens):
            return cross_attend(queries, latents, train=train, head=head)
        return {
            name: cross_attend(part, latents, train=train, head=head[name])
            for name, part in queries.items()
        }


class MeanPool(nn.Module):
    """The readout of the 2021 Perceiver in a decoder's place: the mean latent, queries unused."""

    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, queries: None, latents: jax.Array, *, head: Head, train: bool) -> jax.Array:
        """Returns `[B, 1, F]`."""
        mean = jnp.mean(latents, axis=1, keepdims=True, dtype=jnp.float32)
        return apply_head(head, mean.astype(self.dtype), self.dtype)


class Perceiver(nn.Module):
    """`input` -> `encoder` -> `decoder` -> `output`; only `input` and `output` know the modality.

    `input` and `output` may hold the same module, whose weights they then share (tied embedding).
    """

    input: nn.Module
    encoder: Encoder
    decoder: Decoder | MeanPool
    output: nn.Module

    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool, indices: Any = None) -> Any:
        """A prepared batch -> what `output` predicts (float32).

        `indices`: see `decode`; by default those that the batch itself holds, if any.
        """
        indices = batch.get("indices") if indices is None else indices
        tokens, latents = self.encode(batch, train=train)
        return self.decode(tokens, latents, train=train, indices=indices)

    def encode(self, batch: Mapping[str, jax.Array], *, train: bool) -> tuple[Any, jax.Array]:
        """A prepared batch -> its tokens and its latents."""
        tokens = self.input(batch, train=train)
        return tokens, self.encoder(tokens, train=train)

    def decode(self, tokens: Any, latents: jax.Array, *, train: bool, indices: Any = None) -> Any:
        """Predicts from `encode`'s result: all outputs, or those at `indices`.

        Args:
          indices: flat indices `[n]` of the outputs wanted (`[B, n]`: each example has its own), or
            a dict of them by modality. Queries do not see each other, so chunks of indices give the
            same predictions as all indices together.

        An output module with `takes_mask = True` also gets `mask=`, that of its queries.
        """
        chosen = {} if indices is None else {"indices": indices}
        queries = self.output.queries(tokens, **chosen)
        outputs = self.decoder(queries, latents, head=self.head(queries), train=train)
        if getattr(self.output, "takes_mask", False):
            chosen["mask"] = queries.mask
        return self.output(outputs, **chosen)

    def head(self, queries: Any) -> Any:
        """The linear layers behind the decoder, for `queries`; None stands for the mean latent."""
        width = self.encoder.latent_channels
        return self.output.head(width if queries is None else token_sets(queries)[0].width)
