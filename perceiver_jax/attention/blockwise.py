"""Many tokens, a chunk at a time: how they are cut, and sums over them in constant memory.

`strategies` says what is computed of a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver_jax.attention.softmax import MASKED, scale_rows

ALL = slice(None)  # columns of a row
LEAST = 128  # columns of a row that are read together: what stays by row is worth its cost


def token_axis(name: str, unit: int) -> tuple[int, int]:
    """The axis of an array along which the tokens are, and how many of its entries are a unit.

    Other names are of what is by row of a grid.
    """
    axes = {"mask": 1, "content": 1, "queries": 1, "table": 0}
    return (axes[name], unit) if name in axes else (2, 1)


class Chunks(NamedTuple):
    """`count` chunks of `size` units; a unit is a token, or a row of `unit` tokens of a grid.

    Of a single row a chunk may have no more than some `columns`.
    """

    start: int
    count: int
    size: int
    unit: int
    columns: slice

    def cut(self, data: dict[str, jax.Array], i: Any) -> dict[str, jax.Array]:
        """The data of chunk i."""

        def take(name, x):
            axis, unit = token_axis(name, self.unit)
            before, length = self._tokens(unit)
            start = (self.start + i * self.size) * unit + before
            return jax.lax.dynamic_slice_in_dim(x, start, length, axis)

        return {name: take(name, x) for name, x in data.items()}

    def stack(self, data: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The data of all chunks of whole units, `[count, ...]`."""

        def take(name, x):
            axis, unit = token_axis(name, self.unit)
            stop = self.start + self.count * self.size
            x = jax.lax.slice_in_dim(x, self.start * unit, stop * unit, axis=axis)
            shape = *x.shape[:axis], self.count, self.size * unit, *x.shape[axis + 1 :]
            return jnp.moveaxis(x.reshape(shape), axis, 0)

        return {name: take(name, x) for name, x in data.items()}

    def gradient(self, data: dict[str, jax.Array], stacked: dict[str, jax.Array]) -> dict:
        """What `stack` stacked, put back into zeros of the data's shapes."""

        def put(name, x):
            axis, unit = token_axis(name, self.unit)
            values = jnp.moveaxis(stacked[name], 0, axis)  # [.., count, length, ..]
            before, length = self._tokens(unit)
            pads = [(0, 0)] * values.ndim
            pads[axis + 1] = before, self.size * unit - length - before
            count = self.count * self.size * unit
            values = jnp.pad(values, pads).reshape(*x.shape[:axis], count, *x.shape[axis + 1 :])
            before = self.start * unit
            pads = [(0, 0)] * x.ndim
            pads[axis] = before, x.shape[axis] - before - count
            return jnp.pad(values, pads)

        return {name: put(name, x) for name, x in data.items()}

    def _tokens(self, unit: int) -> tuple[int, int]:
        """Where in its units a chunk begins, and its entries of an array, `unit` to one of them."""
        if unit < self.unit:  # by row
            return 0, self.size
        start, stop, _ = self.columns.indices(unit)
        return start, (self.size - 1) * unit + stop - start


def cut(data: dict[str, jax.Array], unit: int, tokens: int, columns: slice = ALL) -> list[Chunks]:
    """Cuts tokens into equal chunks of at most so many `tokens`, if not of one unit, and a rest."""
    units = data["content"].shape[1] // unit
    size = min(max(tokens // unit, 1), units)
    size = next((n for n in range(size, size // 2, -1) if units % n == 0), size)
    rest = units % size
    result = [Chunks(0, units // size, size, unit, columns)]
    return result + ([Chunks(units - rest, 1, rest, unit, columns)] if rest else [])


def cut_row(unit: int, tokens: int) -> list[slice]:
    """Cuts the columns of a row into even parts of at most so many `tokens`, if not of `LEAST`."""
    parts = -(-unit // max(tokens, LEAST))
    size = -(-unit // parts)
    return [slice(start, min(start + size, unit)) for start in range(0, unit, size)]


def join(a: tuple, b: tuple, *, following: str) -> tuple:
    """`merge` of (maximum, sums) of two sets of tokens; sums of that name are not of the same.

    Args:
      following: 'rows' where a's rows are before b's, 'inner' where its columns are.
    """
    maximum = jnp.maximum(a[0], b[0])
    x, y = (
        jax.tree.map(functools.partial(scale_rows, scale=jnp.exp(found[0] - maximum)), found[1])
        for found in (a, b)
    )
    joined = {name: x[name] + y[name] for name in x if name != following}
    if following in x:
        joined[following] = jnp.concatenate([x[following], y[following]], axis=-1)
    return maximum, joined


def stream(
    prepare: Callable,
    logits: Callable,
    weighted: Callable,
    part: Chunks,
    params: Any,
    data: dict[str, jax.Array],
) -> tuple:
    """Sums over tokens that are linear in exp(logit - maximum), with one chunk in memory at a time.

    The gradient computes a chunk's weights again, from the maximum that the forward pass found.

    Args:
      prepare: (params, chunk) -> the chunk with what both of the next need of it.
      logits: (params, chunk) -> `[B, H, N, m]`.
      weighted: (params, chunk, logits, maximum) -> (what adds up over chunks, what stays by row).

    Returns:
      (maximum `[B, H, N]`, through which no gradient flows; the sums; by row, `[B, H, N, rows]`).
    """
    if part.count == 1:
        x = prepare(params, part.cut(data, 0))
        found = logits(params, x)
        maximum = jax.lax.stop_gradient(jnp.max(found, axis=-1))
        return maximum, *weighted(params, x, found, maximum)

    mask = {name: data[name] for name in data if name == "mask"}
    data = {name: data[name] for name in data if name != "mask"}

    def forward(params, data, mask):
        def body(carry, i):
            maximum, totals = carry
            x = prepare(params, part.cut(data | mask, i))
            found = logits(params, x)
            highest = jnp.maximum(maximum, jnp.max(found, axis=-1))
            more, by_row = weighted(params, x, found, highest)
            old = jnp.exp(maximum - highest)
            totals = jax.tree.map(lambda a, b: scale_rows(a, old) + b, totals, more)
            return (highest, totals), (by_row, highest)

        def first():
            x = prepare(params, part.cut(data | mask, 0))
            found = logits(params, x)
            return found[..., 0], weighted(params, x, found, found[..., 0])[0]

        shapes = jax.eval_shape(first)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = (jnp.full_like(start[0], MASKED), start[1])
        (maximum, totals), (by_row, then) = jax.lax.scan(body, start, jnp.arange(part.count))
        if by_row is not None:  # [n, B, H, N, rows] -> [B, H, N, n rows]
            by_row = jax.vmap(scale_rows)(by_row, jnp.exp(then - maximum[None]))
            by_row = jnp.moveaxis(by_row, 0, 3)
            by_row = by_row.reshape(*by_row.shape[:3], -1)
        return maximum, totals, by_row

    @jax.custom_vjp
    def run(params, data, mask):
        return forward(params, data, mask)

    def run_forward(params, data, mask):
        result = forward(params, data, mask)
        return result, (params, data, mask, result[0])

    def run_backward(residuals, cotangents):
        params, data, mask, maximum = residuals
        _, totals, by_row = cotangents

        def body(carry, i):
            x = part.cut(data | mask, i)
            masks = {name: x[name] for name in mask}
            rows = None
            if by_row is not None:
                rows = jax.lax.dynamic_slice_in_dim(by_row, i * part.size, part.size, axis=-1)

            def again(params, x):
                x = prepare(params, x | masks)
                return weighted(params, x, logits(params, x), maximum)

            _, pull = jax.vjp(again, params, {name: x[name] for name in data})
            dparams, dx = pull((totals, rows))
            return jax.tree.map(jnp.add, carry, dparams), dx

        zeros = jax.tree.map(jnp.zeros_like, params)
        dparams, dx = jax.lax.scan(body, zeros, jnp.arange(part.count))
        return dparams, part.gradient(data, dx), None

    run.defvjp(run_forward, run_backward)
    return run(params, data, mask)
