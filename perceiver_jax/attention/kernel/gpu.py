"""The sums of the package's docstring on NVIDIA GPUs, in Triton; forward and backward.

A program has a block of queries, of columns of the grid, and goes through rows: `GpuTiling`. What
belongs to a query and a column then stays in registers: `inner`, and the sums by place. A row adds
one number a query. Only the products with content take tensor cores.

Programs know nothing of each other, so each has a max of its own, and XLA joins what they found.
Gradients of tokens, where they are asked for, have programs of their own: these have a block of a
row, and go through queries.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from perceiver_jax import mesh
from perceiver_jax.attention.kernel.arithmetic import LOG2E, dot, split_weights
from perceiver_jax.attention.kernel.tiling import ABSENT, GpuTiling, pad, split_parts
from perceiver_jax.attention.softmax import MASKED

WARPS, STAGES = 4, 2  # of a program; how many rows are loaded ahead

# Arrays whose blocks are cut alike. Of results, the axes of programs that would write one place.
KINDS = {"max": "query", "denominator": "query", "ddenominator": "query", "then": "rows"}
KINDS |= {"dcontent": "content", "drows": "rows", "dinner": "inner"}
SHARED = {"query": ("splits", "columns"), "content": ("splits", "columns")}
SHARED |= {"rows": ("columns",), "inner": ("splits",)}

# What a program for tokens takes of each block of queries.
FEW = ("content", "inner", "dcontent", "dinner", "max", "ddenominator")


def forward(t: GpuTiling, values: Sequence) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """As `tpu.forward`; the max is `[B, N filled up]`."""
    a, rows, inner, content, r, mask = values
    inputs = _tokens(t, content, r, mask) | _queries(t, a * LOG2E, rows * LOG2E, inner * LOG2E)
    outputs = "max", "denominator", "content", "rows", "then", "inner"
    found = _call(t, _forward_program, inputs, outputs)
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
    t: GpuTiling, values: Sequence, maximum: jax.Array, cotangents: Sequence, of_tokens: bool
) -> list[jax.Array]:
    """As `tpu.backward`."""
    a, rows, inner, content, r, mask = values
    _, ddenominator, dcontent, drows, dinner = cotangents
    few = _queries(t, dcontent, drows, dinner)
    inputs = _tokens(t, content, r, mask) | _queries(t, a * LOG2E, rows * LOG2E, inner * LOG2E)
    inputs |= {f"d{name}": x for name, x in few.items()}
    inputs |= {"max": maximum, "ddenominator": pad(ddenominator, 1, t.padded_count)}
    found = _call(t, _backward_program, inputs, ("content", "rows", "inner"))
    gradients = [
        jnp.sum(found["content"], axis=(1, 2))[:, : t.count, : t.channels],
        jnp.sum(found["rows"], axis=1).swapaxes(1, 2)[:, : t.count, : t.shape[0]],
        jnp.sum(found["inner"], axis=1)[:, : t.count, : t.shape[1]],
    ]
    if of_tokens:
        by_row = dataclasses.replace(t, splits=t.shape[0])  # a program for each row
        found = _call(by_row, _token_program, inputs, ("tokens", "r"), all_queries=True)
        parts = found["tokens"][:, : t.copies * t.channels, :, : t.shape[1]]
        parts = parts.reshape(len(parts), t.copies, t.channels, content.shape[1])
        gradients.append(jnp.sum(parts, axis=1).swapaxes(1, 2))
        gradients.append(found["r"][:, :, : t.shape[1]].reshape(len(parts), -1))
    return gradients


def _forward_program(t: GpuTiling, x: dict, out: dict) -> None:
    left, inner = x["content"][...], x["inner"][...]

    def body(row, carry):
        most, denominator, content, places = carry
        tokens, scale = x["tokens"][:, row], x["r"][row][None]
        logits = (dot(left, tokens) + x["rows"][row][:, None] + inner) * scale
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
    few = {name: x[name][...] for name in FEW}

    def body(row, carry):
        content, places = carry
        tokens, scale = x["tokens"][:, row], x["r"][row][None]
        dlogits = _gradients(few, x["rows"][row], x["drows"][row], tokens, scale)[0]
        dscaled = dlogits * scale
        out["rows"][row] = jnp.sum(dscaled, axis=1)
        return _weighted_sum(t, dscaled, tokens, content), places + dscaled

    sums = (jnp.zeros(few[name].shape, jnp.float32) for name in ("content", "inner"))
    out["content"][...], out["inner"][...] = jax.lax.fori_loop(0, t.rows, body, tuple(sums))


def _token_program(t: GpuTiling, x: dict, out: dict) -> None:
    tokens, scale = x["tokens"][:, 0], x["r"][0][None]

    def body(i, carry):
        dtokens, dr = carry
        at = pl.ds(i * t.queries, t.queries)
        few = {name: x[name][at] for name in FEW}
        found = _gradients(few, x["rows"][0, at], x["drows"][0, at], tokens, scale)
        dlogits, weights, product, dproduct = found
        dr += jnp.sum(dlogits * product / LOG2E + weights * dproduct, axis=0)
        for left, right in ((few["content"], dlogits / LOG2E), (few["dcontent"], weights)):
            dtokens += dot(left.T, (right * scale).astype(left.dtype))
        return dtokens, dr

    zeros = jnp.zeros(tokens.shape, jnp.float32), jnp.zeros(t.width, jnp.float32)
    found = jax.lax.fori_loop(0, t.padded_count // t.queries, body, zeros)
    out["tokens"][:, 0], out["r"][0] = found


def _gradients(few: dict, rows, drows, tokens: jax.Array, scale: jax.Array) -> tuple:
    """Of the logits; the weights; logits and gradients of scaled weights before `scale`."""
    product = dot(few["content"], tokens) + rows[:, None] + few["inner"]
    dproduct = dot(few["dcontent"], tokens) + drows[:, None] + few["dinner"]
    weights = jnp.exp2(product * scale - few["max"][:, None])
    weights = jnp.where(scale > 0, weights, 0.0)
    return weights * (dproduct * scale + few["ddenominator"][:, None]), weights, product, dproduct


def _weighted_sum(t: GpuTiling, weights: jax.Array, tokens: jax.Array, start: jax.Array):
    """`start [n, C]` plus weights `[n, w]` times the transpose of tokens `[C, w]`."""
    return sum((dot(part, tokens.T) for part in split_weights(t, weights)), start)


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
    outputs: Sequence[str],
    *,
    all_queries: bool = False,
) -> dict[str, jax.Array]:
    """Runs `program(t, inputs, outputs)` for every example and block.

    Args:
      inputs: by name, `[B or 1, ...]`; of cotangents with a leading d.
      outputs: names. Where programs share a place, each writes its own: see `SHARED`.
      all_queries: whether a program has all of them, instead of a block.
    """
    batch = max(len(x) for x in inputs.values())
    count, n = t.padded_count, t.padded_count if all_queries else t.queries
    rows, columns = t.splits * t.rows, t.columns * t.width
    kinds = {  # the array of an example, and a block of it
        "query": ((count,), (n,)),
        "content": ((count, t.depth), (n, t.depth)),
        "rows": ((rows, count), (t.rows, n)),
        "inner": ((count, columns), (n, t.width)),
        "tokens": ((t.depth, rows, columns), (t.depth, t.rows, t.width)),
        "r": ((rows, columns), (t.rows, t.width)),
    }

    def place(kind, i, y, s):
        """The number of a program's block, along each axis."""
        places = {"query": (i,), "content": (i, 0), "rows": (s, i), "inner": (i, y)}
        return (places | {"tokens": (0, s, y), "r": (s, y)})[kind]

    def given(name, x):
        kind = KINDS.get(name, name)

        def at(b, i, y, s):
            return b if len(x) > 1 else 0, *place(kind, i, y, s)

        return pl.BlockSpec((None, *kinds[kind][1]), at)

    def found(name):
        kind = KINDS.get(name, name)
        whole, block = kinds[kind]
        shared = SHARED.get(kind, ())

        def at(b, i, y, s):
            own = {"splits": s, "columns": y}
            return b, *(own[axis] for axis in shared), *place(kind, i, y, s)

        shape = batch, *(getattr(t, axis) for axis in shared), *whole
        spec = pl.BlockSpec((None, *[None] * len(shared), *block), at)
        return spec, jax.ShapeDtypeStruct(shape, jnp.float32)

    def run(*references):
        references = iter(references)
        x, out = ({name: next(references) for name in names} for names in (inputs, outputs))
        program(t, x, out)

    out_specs, out_shape = zip(*map(found, outputs), strict=True)
    kernel = pl.pallas_call(
        run,
        grid=(batch, count // n, t.columns, t.splits),
        in_specs=[given(name, x) for name, x in inputs.items()],
        out_specs=out_specs,
        out_shape=out_shape,
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=mesh.platform() != "gpu",
        name=program.__name__.removeprefix("_"),
    )
    with _for_its_device():
        return dict(zip(outputs, kernel(*inputs.values()), strict=True))


def _for_its_device() -> contextlib.AbstractContextManager:
    """Tells Pallas which GPU it compiles for, where this machine has none (`experiments.plan`)."""
    layout = mesh.current_layout()
    if layout is None or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(layout.mesh.abstract_mesh)
