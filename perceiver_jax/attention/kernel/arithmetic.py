"""Arithmetic inside the kernels of both platforms."""

import math

import jax
import jax.numpy as jnp

from perceiver_jax.attention.kernel.tiling import Factors

LOG2E = math.log2(math.e)  # logits are times this: the exponential unit has base 2


def dot(x: jax.Array, y: jax.Array, x_axis: int = 1, y_axis: int = 0) -> jax.Array:
    """Matrix product over these axes, with float32 sums; of float32 numbers at full precision."""
    precision = "highest" if x.dtype == jnp.float32 else "default"
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def split_weights(layout: Factors, weights: jax.Array) -> list[jax.Array]:
    """Numbers of the factors' dtype whose sum is the float32 weights; see `copies` of a layout."""
    if layout.copies == 1:
        return [weights.astype(layout.dtype)]
    bits = jax.lax.bitcast_convert_type(weights, jnp.int32) & -(2**16)  # what bfloat16 has of them
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return [high.astype(layout.dtype), (weights - high).astype(layout.dtype)]
