"""The sums of the package's docstring on TPUs, and their gradients: calls of `blocks`."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from perceiver_jax import mesh
from perceiver_jax.attention.kernel import blocks
from perceiver_jax.attention.kernel.arithmetic import LOG2E
from perceiver_jax.attention.kernel.tiling import LANES, Tiling


def forward(t: Tiling, values: Sequence) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The fields of `sums.GridSums`; the max with base 2, `[B, N filled up, 128]`.

    Args:
      t: for these shapes.
      values: the other arguments of `sums.grid_sums`.
    """
    a, rows, inner, content, r, mask = values
    inputs = _tokens(t, content, r, mask) | {
        "left": t.left(a * LOG2E, rows * LOG2E, mask=True),
        "inner": t.fold_places(inner * LOG2E),
    }
    outputs = {"max": LANES, "denominator": LANES, "inner": t.lanes, "sums": t.depth, "then": LANES}
    slice_of_logits = pltpu.VMEM((t.queries, t.lanes), jnp.float32)
    found = _call(t, blocks.forward_block, inputs, outputs, 1 + t.copies, [slice_of_logits])
    decay = jnp.exp2(found["then"][..., :1] - found["max"][:, None, :, :1])
    by_content, by_row = t.split_sums(found["sums"] * decay)
    result = (
        found["max"][:, : t.count, 0] / LOG2E,
        jnp.sum(found["denominator"], axis=-1)[:, : t.count],
        by_content,
        by_row,
        t.sum_places(found["inner"]),
    )
    return result, found["max"]


def backward(
    t: Tiling, values: Sequence, maximum: jax.Array, cotangents: Sequence, of_tokens: bool
) -> list[jax.Array]:
    """Gradients of `a`, `rows` and `inner`; with `of_tokens` also of `content` and `r`.

    Args:
      t: for these shapes.
      values: as for `forward`.
      maximum: the second result of `forward`.
      cotangents: of its first.
      of_tokens: whether gradients of tokens are asked for.
    """
    a, rows, inner, content, r, mask = values
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
    outputs |= {"dcontent": t.content_depth, "dr": 1} if of_tokens else {}
    products = 5 if of_tokens else 3
    found = _call(t, blocks.backward_block, inputs, outputs, products)
    gradients = [*t.split_sums(found["sums"]), t.sum_places(found["inner"])]
    if of_tokens:
        parts = t.unfold_tokens(found["dcontent"])[:, : t.copies * t.channels]
        parts = parts.reshape(len(parts), t.copies, t.channels, content.shape[1])
        gradients.append(jnp.sum(parts, axis=1).swapaxes(1, 2))
        gradients.append(t.unfold_tokens(found["dr"])[:, 0])
    return gradients


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
