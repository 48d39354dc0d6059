"""Where a model looks: attention weights by cross-attend and modality, shaped like the input."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from perceiver_jax.ar import PerceiverAR
from perceiver_jax.perceiver import Perceiver
from perceiver_jax.tokens import Tokens, is_tokens

CROSS_ATTEND = "cross_attend"  # the name of the first cross-attend


def attention_maps(
    model: Perceiver | PerceiverAR, variables: Any, batch: Mapping[str, jax.Array]
) -> dict[str, dict[str, jax.Array]]:
    """Computes the attention weights of every cross-attend of the encoder.

    The weights are those of the dense formula, `softmax(q k / sqrt(K))` over the tokens of all
    modalities together, so the maps of one latent sum to 1 over modalities and places.

    Args:
      model: any `Perceiver`; or a `PerceiverAR`, whose latents are the last N places of a sequence
        and whose tokens are its ids.
      variables: its parameters and other collections.
      batch: a prepared batch of B examples.

    Returns:
      Maps by cross-attend and modality, `maps["cross_attend"]["video"]`. Cross-attends are named in
      order of use: `cross_attend`, `cross_attend_1`, ..., whether or not they share weights. Input
      modules that give one set of tokens have the one modality `input`. A map is float32
      `[B, heads, latents, *grid]`, where `grid` is `(height, width)` for pixels, the numbers of
      patches for patches, and so on. Permuted tokens are put back in their places, and places
      without a token are 0. Tokens without a grid (learned positions, labels) keep their order:
      `[B, heads, latents, M]`.

    Reference: Perceiver (Jaegle et al. 2021) section 4.1, Figure 3.
    """
    if isinstance(model, PerceiverAR):
        _, seen = model.apply(variables, batch, train=False, mutable=["intermediates"])
        (weights,) = seen["intermediates"][CROSS_ATTEND]["weights"]
        return {CROSS_ATTEND: {"input": weights}}
    (tokens, _), seen = model.apply(
        variables, batch, train=False, method="encode", mutable=["intermediates"]
    )
    sown = seen["intermediates"]["encoder"]
    uses = [
        weights
        for name in sorted(sown, key=_order)
        for weights in sown[name]["attention"]["weights"]
    ]
    names = [CROSS_ATTEND, *(f"{CROSS_ATTEND}_{i}" for i in range(1, len(uses)))]
    return {name: split_by_modality(w, tokens) for name, w in zip(names, uses, strict=True)}


def attention_of_queries(
    model: Perceiver, variables: Any, batch: Mapping[str, jax.Array]
) -> jax.Array:
    """What each output attends to in the input, through the latents.

    The product of the decoder's weights and those of the encoder's last cross-attend, each the mean
    over heads. It leaves out what the self-attends between them move from latent to latent.

    Args:
      model, variables, batch: as of `attention_maps`; the model has a `Decoder`, one set of tokens
        and one of queries.

    Returns:
      float32 `[B, queries, M]`, which sums to 1 over the tokens.
    """
    _, seen = model.apply(variables, batch, train=False, mutable=["intermediates"])
    sown = seen["intermediates"]
    encoder = sown["encoder"][max(sown["encoder"], key=_order)]
    (decoded,) = sown["decoder"]["cross_attend"]["attention"]["weights"]
    encoded = encoder["attention"]["weights"][-1]
    return jnp.mean(decoded, axis=1) @ jnp.mean(encoded, axis=1)


def split_by_modality(weights: jax.Array, tokens: Any) -> dict[str, jax.Array]:
    """Cuts weights `[B, H, N, M]` over the `Tokens` of a tree into maps `[B, H, N, *grid]`."""
    maps, start = {}, 0
    for path, part in jax.tree_util.tree_leaves_with_path(tokens, is_leaf=is_tokens):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "input"
        maps[name] = on_grid(weights[..., start : start + part.num_tokens], part)
        start += part.num_tokens
    return maps


def on_grid(weights: jax.Array, tokens: Tokens) -> jax.Array:
    """Puts weights `[..., M]` of tokens in their places `[..., *grid]`, if they have a grid."""
    grid = getattr(tokens.position, "shape", None)
    if grid is None:
        return weights
    if (indices := tokens.position.indices) is not None:
        size = tokens.position.replace(indices=None).num_tokens
        empty = jnp.zeros((*weights.shape[:-1], size), weights.dtype)
        weights = empty.at[..., indices].add(weights)
    return weights.reshape(*weights.shape[:-1], *grid)


def _order(name: str) -> int:
    """The number behind an encoder's name of a cross-attend, 0 for the first."""
    return int(name.removeprefix(CROSS_ATTEND).removeprefix("_") or 0)
