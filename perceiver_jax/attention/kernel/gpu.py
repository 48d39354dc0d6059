"""The sums of the package's docstring on NVIDIA GPUs, in Triton; forward and backward.

A program has a block of queries, of columns of the grid, and goes through rows: `GpuTiling`. What
belongs to a query and a column then stays in registers: `inner`, and the sums by place. A row adds
one number a query. Only the products with content take tensor cores.

Programs know nothing of each other, so each has a max of its own, and XLA joins what they found.
Gradients of tokens, where they are asked for, have programs of their own: these have a block of
columns and some rows, and go through queries.
"""

import contextlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from perceiver_jax import mesh
from perceiver_jax.attention.kernel.blocks import LOG2E, truncated
from perceiver_jax.attention.kernel.tiling import ABSENT, GpuTiling, pad, split_parts
from perceiver_jax.attention.softmax import MASKED

WARPS, STAGES = 4, 2  # of a program; how many rows are loaded ahead


def forward(
    tiling: GpuTiling,
    a: jax.Array,
    rows: jax.Array,
    inner: jax.Array,
    content: jax.Array,
    r: jax.Array,
    mask: jax.Array | None,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The sums of `sums.grid_sums`, and the max with base 2, `[B, N filled up]`."""
    t = tiling
    inputs = _tokens(t, content, r, mask) | _queries(t, a * LOG2E, rows * LOG2E, inner * LOG2E)
    shapes = {name: "query" for name in ("max", "denominator")}
    shapes |= {"content": "content", "rows": "rows", "then": "rows", "inner": "inner"}
    found = _call(t, _forward_program, inputs, shapes)
    most = jnp.max(found["max"], axis=(1, 2))  # [B, N]
    decay = jnp.exp2(found["max"] - most[:, None, None])  # [B, S, Y, N]
    places = found["inner"].reshape(*found["inner"].shape[:3], t.columns, t.width)
    places = jnp.einsum("bsnyw,bsyn->bnyw", places, decay, precision="highest")
    by_row = found["rows"] * jnp.exp2(found["then"] - most[:, None, None])
    result = (
        most[:, : t.count] / LOG2E,
        jnp.sum(found["denominator"] * decay, axis=(1, 2))[:, : t.count],
        jnp.sum(found["content"] * decay[..., None], axis=(1, 2))[:, : t.count, : t.channels],
        jnp.sum(by_row, axis=1).swapaxes(1, 2)[:, : t.count, : t.shape[0]],
        places.reshape(*places.shape[:2], -1)[:, : t.count, : t.shape[1]],
    )
    return result, most


def backward(
    tiling: GpuTiling, values: Sequence, maximum: jax.Array, cotangents: Sequence, of_tokens: bool
) -> list[jax.Array]:
    """As `tpu.backward`."""
    t = tiling
    a, rows, inner, content, r, mask = values
    _, ddenominator, dcontent, drows, dinner = cotangents
    few = _queries(t, dcontent, drows, dinner)
    inputs = _tokens(t, content, r, mask) | _queries(t, a * LOG2E, rows * LOG2E, inner * LOG2E)
    inputs |= {f"d{name}": x for name, x in few.items()}
    inputs |= {"max": maximum, "ddenominator": pad(ddenominator, 1, t.padded_count)}
    shapes = {"content": "content", "rows": "rows", "inner": "inner"}
    found = _call(t, _backward_program, inputs, shapes)
    gradients = [
        jnp.sum(found["content"], axis=(1, 2))[:, : t.count, : t.channels],
        jnp.sum(found["rows"], axis=1).swapaxes(1, 2)[:, : t.count, : t.shape[0]],
        jnp.sum(found["inner"], axis=1)[:, : t.count, : t.shape[1]],
    ]
    if of_tokens:
        found = _call(t, _token_program, inputs, {"tokens": "tokens", "r": "r"}, of_tokens=True)
        parts = found["tokens"][:, : t.copies * t.channels, : t.shape[0], : t.shape[1]]
        parts = parts.reshape(len(parts), t.copies, t.channels, content.shape[1])
        gradients.append(jnp.sum(parts, axis=1).swapaxes(1, 2))
        gradients.append(found["r"][:, : t.shape[0], : t.shape[1]].reshape(len(parts), -1))
    return gradients


def _forward_program(t: GpuTiling, x: dict, out: dict) -> None:
    left, inner = x["content"][...], x["inner"][...]

    def body(row, carry):
        most, denominator, content, places = carry
        tokens, scale = x["tokens"][:, row], x["r"][row][None]
        logits = (_dot(left, tokens) + x["rows"][row][:, None] + inner) * scale
        logits = jnp.where(scale > 0, logits, ABSENT)
        new = jnp.maximum(most, jnp.max(logits, axis=1))
        weights, decay = jnp.exp2(logits - new[:, None]), jnp.exp2(most - new)
        scaled = weights * scale
        out["rows"][row], out["then"][row] = jnp.sum(scaled, axis=1), new
        content = _weighted_sum(t, scaled, tokens, content * decay[:, None])
        denominator = denominator * decay + jnp.sum(weights, axis=1)
        return new, denominator, content, places * decay[:, None] + scaled

    zeros = jnp.zeros(t.queries, jnp.float32)
    sums = zeros, jnp.zeros(left.shape, jnp.float32), jnp.zeros(inner.shape, jnp.float32)
    found = jax.lax.fori_loop(0, t.rows, body, (zeros + MASKED, *sums))
    for name, value in zip(("max", "denominator", "content", "inner"), found, strict=True):
        out[name][...] = value


def _backward_program(t: GpuTiling, x: dict, out: dict) -> None:
    few = {name: x[name][...] for name in ("content", "inner", "dcontent", "dinner")}
    few |= {name: x[name][...] for name in ("max", "ddenominator")}

    def body(row, carry):
        content, places = carry
        tokens = x["tokens"][:, row]
        by_row = x["rows"][row], x["drows"][row]
        dlogits = _gradients(few, by_row, tokens, x["r"][row][None])[0]
        dscaled = dlogits * x["r"][row][None]
        out["rows"][row] = jnp.sum(dscaled, axis=1)
        return _weighted_sum(t, dscaled, tokens, content), places + dscaled

    sums = (jnp.zeros(few[name].shape, jnp.float32) for name in ("content", "inner"))
    out["content"][...], out["inner"][...] = jax.lax.fori_loop(0, t.rows, body, tuple(sums))


def _token_program(t: GpuTiling, x: dict, out: dict) -> None:
    def of_row(row, carry):
        tokens, scale = x["tokens"][:, row], x["r"][row][None]

        def of_queries(i, carry):
            dtokens, dr = carry
            at = pl.ds(i * t.queries, t.queries)
            few = {name: x[name][at] for name in ("content", "inner", "dcontent", "dinner")}
            few |= {name: x[name][at] for name in ("max", "ddenominator")}
            by_row = x["rows"][row, at], x["drows"][row, at]
            dlogits, weights, product, dproduct = _gradients(few, by_row, tokens, scale)
            dr += jnp.sum(dlogits * product / LOG2E + weights * dproduct, axis=0)
            for left, right in ((few["content"], dlogits / LOG2E), (few["dcontent"], weights)):
                dtokens += _dot(left.T, (right * scale).astype(left.dtype))
            return dtokens, dr

        zeros = jnp.zeros(tokens.shape, jnp.float32), jnp.zeros(t.width, jnp.float32)
        found = jax.lax.fori_loop(0, t.padded_count // t.queries, of_queries, zeros)
        out["tokens"][:, row], out["r"][row] = found
        return carry

    jax.lax.fori_loop(0, t.rows, of_row, 0)


def _gradients(few: dict, by_row: tuple, tokens: jax.Array, scale: jax.Array) -> tuple:
    """Of the logits; the weights; logits and gradients of scaled weights before `scale`."""
    rows, drows = by_row
    product = _dot(few["content"], tokens) + rows[:, None] + few["inner"]
    dproduct = _dot(few["dcontent"], tokens) + drows[:, None] + few["dinner"]
    weights = jnp.exp2(product * scale - few["max"][:, None])
    weights = jnp.where(scale > 0, weights, 0.0)
    return weights * (dproduct * scale + few["ddenominator"][:, None]), weights, product, dproduct


def _weighted_sum(t: GpuTiling, weights: jax.Array, tokens: jax.Array, start: jax.Array):
    """`start [n, C]` plus weights `[n, w]` times the transpose of tokens `[C, w]`."""
    if t.copies == 1:
        return start + _dot(weights.astype(tokens.dtype), tokens.T)
    high = truncated(weights)
    for part in (high, weights - high):
        start += _dot(part.astype(tokens.dtype), tokens.T)
    return start


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    precision = "highest" if x.dtype == jnp.float32 else "default"
    return jnp.dot(x, y, precision=precision, preferred_element_type=jnp.float32)


def _queries(t: GpuTiling, a: jax.Array, rows: jax.Array, inner: jax.Array) -> dict:
    """What belongs to queries, N filled up: content `[b, N, C]`, rows `[b, O, N]`, inner."""
    parts = jnp.concatenate(split_parts(a, t.copies, t.dtype), axis=-1)
    arrays = {
        "content": pad(parts, -1, t.depth),
        "rows": pad(rows, -1, t.splits * t.rows),
        "inner": pad(inner, -1, t.columns * t.width),
    }
    arrays = {name: pad(x, 1, t.padded_count) for name, x in arrays.items()}
    return arrays | {"rows": arrays["rows"].swapaxes(1, 2)}


def _tokens(t: GpuTiling, content: jax.Array, r: jax.Array, mask: jax.Array | None) -> dict:
    """Tokens `[b, C, O, X]` and r `[b, O, X]`, filled up; of absent tokens r is negative."""
    if mask is not None:
        r = jnp.where(mask, r, -1.0)

    def fold(x, fill):
        x = x.reshape(*x.shape[:-1], *t.shape)
        return pad(pad(x, -2, t.splits * t.rows, fill), -1, t.columns * t.width, fill)

    channels = jnp.concatenate([content.swapaxes(1, 2).astype(t.dtype)] * t.copies, axis=1)
    return {"tokens": fold(pad(channels, 1, t.depth), 0), "r": fold(r, -1.0)}


def _call(
    t: GpuTiling,
    program: Callable,
    inputs: dict[str, jax.Array],
    outputs: dict[str, str],
    *,
    of_tokens: bool = False,
) -> dict[str, jax.Array]:
    """Runs `program(t, inputs, outputs)` for every block.

    Args:
      inputs: by name; those with a leading d are cotangents.
      outputs: by name, the kind of the result.
      of_tokens: whether a program goes through all queries.
    """
    batch = max(len(x) for x in inputs.values())
    blocks = 1 if of_tokens else t.padded_count // t.queries
    n = t.padded_count // blocks
    total, wide = t.padded_count, t.columns * t.width
    sizes = {  # of a block, and of the whole array
        "query": ((None, None, None, n), (batch, t.splits, t.columns, total)),
        "content": ((None, None, None, n, t.depth), (batch, t.splits, t.columns, total, t.depth)),
        "rows": ((None, None, t.rows, n), (batch, t.columns, t.splits * t.rows, total)),
        "inner": ((None, None, n, t.width), (batch, t.splits, total, wide)),
        "tokens": ((None, t.depth, t.rows, t.width), (batch, t.depth, t.splits * t.rows, wide)),
        "r": ((None, t.rows, t.width), (batch, t.splits * t.rows, wide)),
    }
    places = {  # of a block, for example, block of queries, of columns, and split of rows
        "query": lambda b, i, y, s: (b, s, y, i),
        "content": lambda b, i, y, s: (b, s, y, i, 0),
        "rows": lambda b, i, y, s: (b, y, s, i),
        "inner": lambda b, i, y, s: (b, s, i, y),
        "tokens": lambda b, i, y, s: (b, 0, s, y),
        "r": lambda b, i, y, s: (b, s, y),
    }

    def given(name, x):
        kind = {"max": "query", "ddenominator": "query"}.get(name, name.removeprefix("d"))
        drop = {"query": (1, 2), "content": (1, 2), "rows": (1,), "inner": (1,)}.get(kind, ())
        block = [size for axis, size in enumerate(sizes[kind][0]) if axis not in drop]

        def place(b, i, y, s):
            found = [p for axis, p in enumerate(places[kind](b, i, y, s)) if axis not in drop]
            return (b if len(x) > 1 else 0, *found[1:])

        return pl.BlockSpec(tuple(block), place)

    def run(*references):
        references = iter(references)
        x, out = ({name: next(references) for name in names} for names in (inputs, outputs))
        program(t, x, out)

    kernel = pl.pallas_call(
        run,
        grid=(batch, blocks, t.columns, t.splits),
        in_specs=[given(name, x) for name, x in inputs.items()],
        out_specs=[pl.BlockSpec(sizes[kind][0], places[kind]) for kind in outputs.values()],
        out_shape=[jax.ShapeDtypeStruct(sizes[k][1], jnp.float32) for k in outputs.values()],
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=mesh.platform() != "gpu",
        name=program.__name__.removeprefix("_"),
    )
    with _for_its_device():
        found = kernel(*inputs.values())
    return dict(zip(outputs, found, strict=True))


def _for_its_device() -> contextlib.AbstractContextManager:
    """Tells Pallas which GPU it compiles for, where this machine has none (`experiments.plan`)."""
    layout = mesh.current_layout()
    if layout is None or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(layout.mesh.abstract_mesh)
