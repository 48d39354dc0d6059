"""The sums of the package's docstring, as a function with a gradient by hand."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from perceiver_jax.attention.kernel import gpu, tpu
from perceiver_jax.attention.kernel.tiling import GpuTiling, Tiling


class GridSums(NamedTuple):
    """Sums over all tokens of a grid, with weights exp(logit - max); float32."""

    max: jax.Array  # [B, N]; no gradient flows through it
    denominator: jax.Array  # [B, N]
    content: jax.Array  # [B, N, c], of r content
    rows: jax.Array  # [B, N, O], of r
    inner: jax.Array  # [B, N, X], of r


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def grid_sums(
    tiling: Tiling | GpuTiling,
    a: jax.Array,
    rows: jax.Array,
    inner: jax.Array,
    content: jax.Array,
    r: jax.Array,
    mask: jax.Array | None,
) -> GridSums:
    """The sums of the package's docstring.

    Args:
      tiling: for these shapes.
      a: `[b, N, c]` float32; b is 1 or B, here and below.
      rows: `[b, N, O]` float32.
      inner: `[b, N, X]` float32.
      content: `[b, M, c]`.
      r: `[b, M]` float32, positive.
      mask: bool `[b, M]`, False for absent tokens.
    """
    return GridSums(*_kernel(tiling).forward(tiling, (a, rows, inner, content, r, mask))[0])


def _kernel(tiling):
    return gpu if isinstance(tiling, GpuTiling) else tpu


def _forward_rule(tiling, *arguments):
    values = [None if x is None else x.value for x in arguments]
    result, maximum = _kernel(tiling).forward(tiling, values)
    content, r = arguments[3:5]
    tokens = () if content.perturbed or r.perturbed else None  # what a tree has is not traced
    return GridSums(*result), (values, maximum, tokens)


def _backward_rule(tiling, residuals, cotangents):
    values, maximum, tokens = residuals
    cotangents = [
        jnp.zeros(x.shape, x.dtype) if isinstance(x, SymbolicZero) else x for x in cotangents
    ]
    found = _kernel(tiling).backward(tiling, values, maximum, cotangents, tokens is not None)
    missing = [None] * (len(values) - len(found))
    return *map(_fit, found, values[: len(found)]), *missing


grid_sums.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)


def _fit(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """The gradient of x: what all examples share has their sum."""
    if len(x) < len(gradient):
        gradient = jnp.sum(gradient, axis=0, keepdims=True)
    return jnp.broadcast_to(gradient.astype(x.dtype), x.shape)
