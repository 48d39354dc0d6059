"""What the kernels compute of one block of tokens, for one slice of queries after another.

Both functions take references to blocks in vector memory, by name: x of the inputs, out of the
outputs, which stay there from block to block (`tpu` says which). `forward_block` has memory of its
own for the logits of a slice. Logits have base 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from perceiver_jax.attention.kernel.arithmetic import LOG2E, dot, split_weights
from perceiver_jax.attention.kernel.tiling import LANES, Tiling
from perceiver_jax.attention.softmax import MASKED


def forward_block(tiling: Tiling, x: dict, out: dict, kept: jax.Array) -> None:
    """Adds a block to the sums, under a running max.

    A vector of lanes after another: the compiler keeps whole rows of weights in memory several
    times over.
    """
    right, scale = _right(x), x["r"][0]
    group, step = pl.program_id(1), pl.program_id(2)

    @pl.when((group == 0) & (step == 0))
    def _():
        out["max"][...] = jnp.full_like(out["max"], MASKED)
        _clear(out["denominator"], out["inner"])

    pl.when(step == 0)(lambda: _clear(out["sums"]))

    chunks = [slice(i, i + LANES) for i in range(0, tiling.lanes, LANES)]

    def add(at):
        left, most = x["left"][0, 0, at], None
        for c in chunks:
            logits = (dot(left, right[:, c]) + x["inner"][0, at, c]) * scale[:, c]
            kept[:, c] = logits
            most = logits if most is None else jnp.maximum(most, logits)
        old = out["max"][0, at]
        new = jnp.maximum(old, jnp.max(most, axis=1, keepdims=True))
        decay = jnp.exp2(old - new)
        out["max"][0, at] = out["then"][0, 0, at] = new
        denominator = out["denominator"][0, at] * decay
        sums = out["sums"][0, 0, at] * decay[:, :1]
        for c in chunks:
            weights = jnp.exp2(kept[:, c] - new)
            scaled = weights * scale[:, c]
            denominator += weights
            out["inner"][0, at, c] = out["inner"][0, at, c] * decay + scaled
            for part in split_weights(tiling, scaled):
                sums += dot(part, right[:, c], 1, 1)
        out["denominator"][0, at], out["sums"][0, 0, at] = denominator, sums

    _for_queries(tiling, add)


def backward_block(tiling: Tiling, x: dict, out: dict) -> None:
    """Adds a block to the gradients of queries; gives those of its tokens."""
    right, scale = _right(x), x["r"][0]
    group, step = pl.program_id(1), pl.program_id(2)
    pl.when((group == 0) & (step == 0))(lambda: _clear(out["inner"]))
    pl.when(step == 0)(lambda: _clear(out["sums"]))
    if "dr" in out:
        _clear(out["dcontent"], out["dr"])

    def add(at):
        left, dleft = x["left"][0, 0, at], x["dleft"][0, 0, at]
        both = dot(jnp.concatenate([left, dleft], axis=0), right)  # right is loaded once
        product = both[: tiling.queries] + x["inner"][0, at]
        dproduct = both[tiling.queries :] + x["dinner"][0, at]
        weights = jnp.exp2(product * scale - x["max"][0, at, :1])
        dlogits = weights * (dproduct * scale + x["ddenominator"][0, at, :1])
        dscaled = dlogits * scale
        out["inner"][0, at] += dscaled
        dscaled = dscaled.astype(right.dtype)
        out["sums"][0, 0, at] += dot(dscaled, right, 1, 1)
        if "dr" in out:
            by_logit = jnp.sum(dlogits * product, axis=0, keepdims=True)
            out["dr"][0] += by_logit / LOG2E + jnp.sum(weights * dproduct, axis=0, keepdims=True)
            scaled = (weights * scale).astype(right.dtype)
            found = dot(left, dscaled, 0, 0) / LOG2E + dot(dleft, scaled, 0, 0)
            out["dcontent"][0] += found[: tiling.content_depth]

    _for_queries(tiling, add)


def _right(x: dict) -> jax.Array:
    return jnp.concatenate([x["content"][0], x["indicator"][0]], axis=0)  # [K, W]


def _clear(*references) -> None:
    for reference in references:
        reference[...] = jnp.zeros_like(reference)


def _for_queries(t: Tiling, function: Callable) -> None:
    """`function(at)` for one slice of the N rows of weights after another."""

    def body(i, carry):
        function(pl.ds(pl.multiple_of(i * t.queries, t.queries), t.queries))
        return carry

    jax.lax.fori_loop(0, t.padded_count // t.queries, body, 0)
