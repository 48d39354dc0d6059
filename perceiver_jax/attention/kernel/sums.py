"""The sums of the package's docstring, as a function with a gradient by hand."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from perceiver_jax import mesh
from perceiver_jax.attention.kernel import blocks
from perceiver_jax.attention.kernel.blocks import LOG2E
from perceiver_jax.attention.kernel.tiling import LANES, Tiling


class GridSums(NamedTuple):
    """Sums over all tokens of a grid, with weights exp(logit - max); float32."""

    max: jax.Array  # [B, N]; no gradient flows through it
    denominator: jax.Array  # [B, N]
    content: jax.Array  # [B, N, c], of r content
    rows: jax.Array  # [B, N, O], of r
    inner: jax.Array  # [B, N, X], of r


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def grid_sums(
    tiling: Tiling,
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
    return _forward(tiling, a, rows, inner, content, r, mask)[0]


def _forward(tiling, a, rows, inner, content, r, mask):
    """The sums, and the max with base 2, `[B, N filled up, 128]`."""
    t = tiling
    inputs = _tokens(t, content, r, mask) | {
        "left": t.left(a * LOG2E, rows * LOG2E, mask=True),
        "inner": t.fold_places(inner * LOG2E),
    }
    outputs = {"max": LANES, "denominator": LANES, "inner": t.lanes, "sums": t.depth, "then": LANES}
    slice_of_logits = pltpu.VMEM((t.queries, t.lanes), jnp.float32)
    found = _call(t, blocks.forward_block, inputs, outputs, 1 + t.copies, [slice_of_logits])
    decay = jnp.exp2(found["then"][..., :1] - found["max"][:, None, :, :1])
    by_content, by_row = t.split_sums(found["sums"] * decay)
    result = GridSums(
        found["max"][:, : t.count, 0] / LOG2E,
        jnp.sum(found["denominator"], axis=-1)[:, : t.count],
        by_content,
        by_row,
        t.sum_places(found["inner"]),
    )
    return result, found["max"]


def _forward_rule(tiling, *arguments):
    values = [None if x is None else x.value for x in arguments]
    result, maximum = _forward(tiling, *values)
    content, r = arguments[3:5]
    tokens = () if content.perturbed or r.perturbed else None  # what a tree has is not traced
    return result, (values, maximum, tokens)


def _backward_rule(tiling, residuals, cotangents):
    t = tiling
    (a, rows, inner, content, r, mask), maximum, tokens = residuals
    cotangents = (
        jnp.zeros(x.shape, x.dtype) if isinstance(x, SymbolicZero) else x for x in cotangents
    )
    _, ddenominator, dcontent, drows, dinner = cotangents
    inputs = _tokens(t, content, r, mask) | {
        "left": t.left(a * LOG2E, rows * LOG2E, mask=True),
        "inner": t.fold_places(inner * LOG2E),
        "dleft": t.left(dcontent, drows, mask=False),
        "dinner": t.fold_places(dinner),
        "max": maximum,
        "ddenominator": t.fill(jnp.repeat(ddenominator[..., None], LANES, axis=-1), 1),
    }
    outputs = {"inner": t.lanes, "sums": t.depth}
    outputs |= {"dcontent": t.content_depth, "dr": 1} if tokens is not None else {}
    products = 3 if tokens is None else 5
    found = _call(t, blocks.backward_block, inputs, outputs, products)
    few = *t.split_sums(found["sums"]), t.sum_places(found["inner"])
    gradients = [_fit(g, x) for g, x in zip(few, (a, rows, inner), strict=True)]
    if tokens is None:
        return *gradients, None, None, None
    parts = t.unfold_tokens(found["dcontent"])[:, : t.copies * t.channels]
    parts = parts.reshape(len(parts), t.copies, t.channels, content.shape[1])
    gradients.append(_fit(jnp.sum(parts, axis=1).swapaxes(1, 2), content))
    return *gradients, _fit(t.unfold_tokens(found["dr"])[:, 0], r), None


grid_sums.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)


def _tokens(t: Tiling, content, r, mask) -> dict[str, jax.Array]:
    """The inputs that belong to tokens. An absent token has r = 1, so that its logit stays low."""
    if mask is not None:
        r = jnp.where(mask, r, 1.0)
    return {
        "content": t.right(content, mask),
        "indicator": jnp.asarray(t.indicator()),
        "r": t.fold_tokens(r[:, None], 1.0),
    }


def _call(
    tiling: Tiling,
    block: Callable,
    inputs: dict[str, jax.Array],
    outputs: dict[str, int],
    products: int,
    scratch: Sequence = (),
) -> dict[str, jax.Array]:
    """Runs `block(tiling, inputs, outputs, *scratch)` for every example, group and step.

    Args:
      inputs: by name.
      outputs: by name, the size of the axis that belongs to neither tokens nor queries.
      products: how many matrix products a block takes, each K multiplications a weight.
      scratch: memory of the block's own.
    """
    t = tiling
    batch = max(len(x) for name, x in inputs.items() if name != "indicator")
    many = {"content", "r", "dcontent", "dr"}  # [b, .., tokens]
    groups = {"left", "dleft", "sums", "then"}  # [b, G, N, ..]

    def spec(name, shape):
        def example(i):
            return i if shape[0] > 1 else 0

        if name == "indicator":
            return pl.BlockSpec((1, *shape[1:]), lambda i, g, s: (s, 0, 0))
        if name in many:
            size = 1, shape[1], t.lanes
            return pl.BlockSpec(size, lambda i, g, s: (example(i), 0, g * t.steps + s))
        if name in groups:
            return pl.BlockSpec((1, 1, *shape[2:]), lambda i, g, s: (example(i), g, 0, 0))
        return pl.BlockSpec((1, *shape[1:]), lambda i, g, s: (example(i), 0, 0))

    def shape(name, size):
        if name in many:
            return batch, size, t.tokens
        return batch, *((t.groups,) if name in groups else ()), t.padded_count, size

    shapes = {name: shape(name, size) for name, size in outputs.items()}

    def run(*references):
        references = iter(references)
        x, out = ({name: next(references) for name in names} for names in (inputs, outputs))
        block(t, x, out, *references)

    found = pl.pallas_call(
        run,
        grid=(batch, t.groups, t.steps),
        in_specs=[spec(name, x.shape) for name, x in inputs.items()],
        out_specs=[spec(name, x) for name, x in shapes.items()],
        scratch_shapes=scratch,
        out_shape=[jax.ShapeDtypeStruct(x, jnp.float32) for x in shapes.values()],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=t.vmem,
        ),
        interpret=mesh.platform() != "tpu",
        name=block.__name__,
        cost_estimate=_cost(t, products, batch, inputs, shapes),
    )(*inputs.values())
    return dict(zip(outputs, found, strict=True))


def _cost(
    t: Tiling, products: int, batch: int, inputs: dict[str, jax.Array], outputs: dict[str, tuple]
) -> pl.CostEstimate:
    """What a call does, for the compiler and `experiments.plan`.

    FLOPs are those of bfloat16 products: a float32 product at full precision takes six. One
    exponential a weight. An array moves once, but the indicator for every group of an example.
    """
    weights = batch * t.padded_count * t.tokens
    again = {"indicator": batch * t.groups if t.steps > 1 else 1}
    read = sum(again.get(name, 1) * x.nbytes for name, x in inputs.items())
    return pl.CostEstimate(
        flops=2 * products * t.depth * weights * (1 if t.half else 6),
        transcendentals=weights,
        bytes_accessed=read + sum(4 * math.prod(x) for x in outputs.values()),
    )


def _fit(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """The gradient of x: what all examples share has their sum."""
    if len(x) < len(gradient):
        gradient = jnp.sum(gradient, axis=0, keepdims=True)
    return jnp.broadcast_to(gradient.astype(x.dtype), x.shape)
