"""Parameters as plain records, a layer norm folded into a projection, a head fused with the MLP.

A layer norm and the projection behind it are one scaled product,

    norm(x_j) W + b = r_j x_j W' + b',    W' = scale W less the mean of each column,

where r_j = 1 / sqrt(variance of x_j + epsilon) and b' = offset W + b.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Products with float32 sums; `exact` also multiplies at full precision on every platform.
dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
exact = functools.partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)


class Linear(NamedTuple):
    """Parameters of a projection: `kernel [C, F]`, `bias [F]`."""

    kernel: jax.Array
    bias: jax.Array


Head = tuple[Linear, ...]  # projections applied to every decoded output, one after the other


class Norm(NamedTuple):
    """Parameters of a layer norm: `scale [C]`, `offset [C]`."""

    scale: jax.Array
    offset: jax.Array


class AttentionWeights(NamedTuple):
    """The four projections of an attention."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear


class FoldedNorm(NamedTuple):
    """A layer norm folded into a projection: `kernel [C, H, K]`, `bias [H, K]`, float32."""

    kernel: jax.Array
    bias: jax.Array


class FusedHead(NamedTuple):
    """An MLP's last layer, its residual and a head in one: x A + hidden B + both biases."""

    residual: Linear
    hidden: Linear


def fold_norm(norm: Norm, linear: Linear, num_heads: int) -> FoldedNorm:
    """Folds the layer norm's scale, mean and offset into the projection behind it."""
    kernel = norm.scale[:, None] * linear.kernel
    kernel = kernel - jnp.mean(kernel, axis=0, keepdims=True)
    bias = exact("c,cf->f", norm.offset, linear.kernel) + linear.bias
    return FoldedNorm(kernel.reshape(kernel.shape[0], num_heads, -1), bias.reshape(num_heads, -1))


def fuse_head(out: Linear, head: Head) -> FusedHead:
    """Multiplies a head into `out`, the last layer of the residual MLP before it; float32."""
    kernel, bias = head[0]
    for after in head[1:]:
        kernel = exact("cd,df->cf", kernel, after.kernel)
        bias = exact("d,df->f", bias, after.kernel) + after.bias
    hidden = exact("hc,cf->hf", out.kernel, kernel), exact("c,cf->f", out.bias, kernel)
    return FusedHead(Linear(kernel, bias), Linear(*hidden))
