"""The stack of latent layers on TPUs and GPUs: one loop, and weights that are prepared before it.

It is the function that `SelfAttention` is when it is applied by loops, with the same parameters, up
to rounding. What differs is what the compiler makes of it:

- Repeats and layers are one loop. Of loops of loops, each stacks what the backward pass needs, and
  the copies take as long as the products.
- Weights are cast once, not in every repeat. Their gradients are summed once, in float32.
- Projections may give heads before latents at once, as attention wants them. One product for query,
  key and value would have to be cut and copied, which takes longer by the compiler's count.
- What the backward pass keeps is named behind the bias, so that nothing is added twice.
- The gradient of a bias is a product with ones: sums over latents are slow.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from perceiver_jax import mesh
from perceiver_jax.attention import platforms, self_attend
from perceiver_jax.attention.folding import AttentionWeights, Linear, Norm
from perceiver_jax.attention.library import KEPT, keeps_named
from perceiver_jax.attention.self_attention import EPSILON

ONES = 8  # rows of ones: a product with one row would be a sum

# What the backward pass computes again: all but what is named, or all.
POLICIES = {"dots": keeps_named, "full": jax.checkpoint_policies.nothing_saveable}


class LayerWeights(NamedTuple):
    """The parameters of one latent layer, or of many: then stacked `[L, ...]`."""

    norm_attention: Norm
    attention: AttentionWeights
    norm_mlp: Norm
    hidden: Linear
    out: Linear


def apply_layers(
    params: Mapping[str, Any],
    z: jax.Array,
    *,
    num_heads: int,
    num_repeats: int,
    dtype: jax.typing.DTypeLike,
    remat: str,
    train: bool,
) -> jax.Array:
    """Applies all layers, `num_repeats` times over; no dropout.

    Args:
      params: those of `SelfAttention`, stacked `[L, ...]`.
      z: `[B, N, D]`.
      num_heads: H.
      num_repeats: R.
      dtype: of products.
      remat: 'none', 'dots' or 'full', as for `perceiver.Encoder`.
      train: whether a backward pass is to come; else the weights are not copied R times.

    Returns:
      `[B, N, D]`.
    """
    loops, copies = (1, num_repeats) if train else (num_repeats, 1)
    weights = prepare(params, dtype, copies)
    layer = functools.partial(apply_layer, num_heads)
    if remat != "none":
        layer = jax.checkpoint(layer, policy=POLICIES[remat], prevent_cse=False)

    def block(z, _):
        return jax.lax.scan(lambda z, one: (layer(one, z), None), z, weights)[0], None

    return block(z, None)[0] if loops == 1 else jax.lax.scan(block, z, None, length=loops)[0]


def apply_layer(num_heads: int, weights: LayerWeights, z: jax.Array) -> jax.Array:
    """One pre-norm layer: `[B, N, D]` -> `[B, N, D]`."""
    query, key, value, out = weights.attention
    dtype = out.kernel.dtype

    def project(x, linear):
        return add(jnp.dot(x, linear.kernel), linear.bias[None, None])

    def heads(x, linear):
        width = linear.bias.size // num_heads
        if not platforms.projects_to_heads(width):
            kept = checkpoint_name(project(x, linear), KEPT)
            return kept.reshape(*kept.shape[:2], num_heads, width).swapaxes(1, 2)
        kernel = linear.kernel.reshape(-1, num_heads, width)
        bias = linear.bias.reshape(1, num_heads, 1, width)
        return checkpoint_name(add(jnp.einsum("bnc,chk->bhnk", x, kernel), bias), KEPT)

    def join(x, linear):
        width = x.shape[-1]
        if not platforms.projects_to_heads(width):
            return project(x.swapaxes(1, 2).reshape(*z.shape[:2], -1), linear)
        kernel = linear.kernel.reshape(num_heads, width, -1)
        return add(jnp.einsum("bhnv,hvc->bnc", x, kernel), linear.bias[None, None])

    z = mesh.constrain_batch(z)
    normed = layer_norm(z, weights.norm_attention).astype(dtype)
    attended = self_attend(*(heads(normed, linear) for linear in (query, key, value)))
    z = z + checkpoint_name(join(attended.astype(dtype), out), KEPT)
    normed = layer_norm(z, weights.norm_mlp).astype(dtype)
    hidden = checkpoint_name(project(normed, weights.hidden), KEPT)
    return z + project(jax.nn.gelu(hidden, approximate=True), weights.out)


def layer_norm(x: jax.Array, weights: Norm) -> jax.Array:
    """Over the last axis, two-pass variance, float32: `[B, N, C]` -> `[B, N, C]`."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    scale, offset = (vector[None, None] for vector in weights)
    return centred * jax.lax.rsqrt(variance + EPSILON) * scale + offset


@jax.custom_vjp
def add(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias: `[B, N, C]` and `[1, 1, C]`, or `[B, H, N, K]` and `[1, H, 1, K]`."""
    return x + bias


def _add_backward(bias, dy):
    rows = 0, dy.ndim - 2  # B and N
    ones = jnp.ones((ONES, *(dy.shape[axis] for axis in rows)), dy.dtype)
    sums = jax.lax.dot_general(
        ones, dy, (((1, 2), rows), ((), ())), preferred_element_type=jnp.float32
    )
    return dy, sums[0].reshape(bias.shape).astype(bias.dtype)


add.defvjp(lambda x, bias: (x + bias, bias), _add_backward)


def prepare(params: Mapping[str, Any], dtype: jax.typing.DTypeLike, copies: int) -> LayerWeights:
    """Casts `SelfAttention`'s parameters `[L, ...]`, and repeats them: `[copies L, ...]`."""

    def linear(part):
        return Linear(*(spread(part[name], dtype, copies) for name in ("kernel", "bias")))

    def norm(part):
        return Norm(*(spread(part[name], jnp.float32, copies) for name in ("scale", "bias")))

    attention, mlp = params["attention"], params["mlp"]
    return LayerWeights(
        norm(params["norm_attention"]),
        AttentionWeights(*(linear(attention[name]) for name in AttentionWeights._fields)),
        norm(params["norm_mlp"]),
        linear(mlp["hidden"]),
        linear(mlp["out"]),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def spread(x: jax.Array, dtype: jax.typing.DTypeLike, copies: int) -> jax.Array:
    """`[L, ...]` -> `[copies L, ...]` in `dtype`; gradients are summed in x's dtype, float32."""
    x = x.astype(dtype)
    if copies == 1:
        return x
    return jnp.broadcast_to(x[None], (copies, *x.shape)).reshape(-1, *x.shape[1:])


def _spread_backward(dtype, copies, like, dy):
    dy = dy.reshape(copies, -1, *dy.shape[1:])
    return (jnp.sum(dy, axis=0, dtype=like.dtype),)


def _spread_forward(x, dtype, copies):
    return spread(x, dtype, copies), jnp.zeros((), x.dtype)


spread.defvjp(_spread_forward, _spread_backward)
