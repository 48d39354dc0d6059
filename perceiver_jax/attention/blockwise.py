"""Many tokens, a chunk at a time: the memory budget, how tokens are cut, and an online softmax.

A chunk is made of whole rows: of a grid, or blocks of a long axis, or else single tokens. `cross`
has what is computed of a chunk. One file, because the budget, the cuts and the gradient of a cut
must agree.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver_jax.attention import platforms
from perceiver_jax.attention.softmax import MASKED, scale_rows

MIN_COLUMNS = 128  # the narrowest part of a row whose per-row sums pay off

ALL = slice(None)  # columns of a row

_forced_bytes = contextvars.ContextVar("forced_bytes", default=None)


@contextlib.contextmanager
def forced_chunk_bytes(size: int | None) -> Iterator[None]:
    """Functions traced inside use `size` in place of the platform's, unless it is None."""
    token = _forced_bytes.set(size)
    try:
        yield
    finally:
        _forced_bytes.reset(token)


def chunk_bytes() -> int:
    """Bytes of attention weights that may exist at a time, on the devices that are traced for."""
    return _forced_bytes.get() or platforms.chunk_bytes()


def tokens_at_once(weights: int) -> int:
    """How many tokens a chunk may have where each has so many weights."""
    return chunk_bytes() // (4 * weights)


def divisor(number: int, least: float) -> int:
    """The smallest divisor of `number` that is no less than `least`; if none is, `number`."""
    return next(n for n in range(1, number + 1) if number % n == 0 and (n >= least or n == number))


def token_axis(name: str, row_size: int) -> tuple[int, int]:
    """The token axis of an array of `token_data`, and how many of its entries are one row.

    Names that are not listed have one entry for each row of a grid.
    """
    axes = {"mask": 1, "content": 1, "queries": 1, "table": 0}
    return (axes[name], row_size) if name in axes else (2, 1)


def batch_size(params: Any, data: dict[str, jax.Array]) -> int:
    """B, the largest leading axis of all arrays but the table, which has none for examples."""
    by_example = {name: x for name, x in data.items() if name != "table"}
    return max(x.shape[0] for x in jax.tree.leaves((params, by_example)))


class Chunks(NamedTuple):
    """`count` chunks of `size` rows each, from row `start` on; of each row only `columns`."""

    start: int
    count: int
    size: int
    row_size: int
    columns: slice

    def take(self, data: dict[str, jax.Array], i: Any) -> dict[str, jax.Array]:
        """The data of chunk i."""

        def take(name, x):
            axis, entries = token_axis(name, self.row_size)
            before, length = self._span(entries)
            start = (self.start + i * self.size) * entries + before
            return jax.lax.dynamic_slice_in_dim(x, start, length, axis)

        return {name: take(name, x) for name, x in data.items()}

    def stack(self, data: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The data of all chunks, `[count, ...]`; for whole rows only."""

        def take(name, x):
            axis, entries = token_axis(name, self.row_size)
            stop = self.start + self.count * self.size
            x = jax.lax.slice_in_dim(x, self.start * entries, stop * entries, axis=axis)
            shape = *x.shape[:axis], self.count, self.size * entries, *x.shape[axis + 1 :]
            return jnp.moveaxis(x.reshape(shape), axis, 0)

        return {name: take(name, x) for name, x in data.items()}

    def unstack_gradient(self, data: dict[str, jax.Array], stacked: dict[str, jax.Array]) -> dict:
        """Gradients of `take`, stacked over chunks, as gradients of `data`: zeros elsewhere."""

        def put(name, x):
            axis, entries = token_axis(name, self.row_size)
            values = jnp.moveaxis(stacked[name], 0, axis)  # [.., count, length, ..]
            before, length = self._span(entries)
            pads = [(0, 0)] * values.ndim
            pads[axis + 1] = before, self.size * entries - length - before
            count = self.count * self.size * entries
            values = jnp.pad(values, pads).reshape(*x.shape[:axis], count, *x.shape[axis + 1 :])
            before = self.start * entries
            pads = [(0, 0)] * x.ndim
            pads[axis] = before, x.shape[axis] - before - count
            return jnp.pad(values, pads)

        return {name: put(name, x) for name, x in data.items()}

    def _span(self, entries: int) -> tuple[int, int]:
        """First entry and number of entries of a chunk, in an array with so many for a row."""
        if entries < self.row_size:  # one entry for each row, whatever the columns
            return 0, self.size
        start, stop, _ = self.columns.indices(entries)
        return start, (self.size - 1) * entries + stop - start


def split_tokens(
    data: dict[str, jax.Array], row_size: int, tokens: int, columns: slice = ALL
) -> list[Chunks]:
    """Splits all rows into equal chunks of at most `tokens`, or of one row, and a rest."""
    rows = data["content"].shape[1] // row_size
    size = min(max(tokens // row_size, 1), rows)
    size = next((n for n in range(size, size // 2, -1) if rows % n == 0), size)
    rest = rows % size
    result = [Chunks(0, rows // size, size, row_size, columns)]
    return result + ([Chunks(rows - rest, 1, rest, row_size, columns)] if rest else [])


def split_columns(row_size: int, tokens: int) -> list[slice]:
    """Splits a row into even parts of at most `tokens`, or `MIN_COLUMNS` if that is more."""
    parts = -(-row_size // max(tokens, MIN_COLUMNS))
    size = -(-row_size // parts)
    return [slice(start, min(start + size, row_size)) for start in range(0, row_size, size)]


def merge_sums(a: tuple, b: tuple, *, concatenate: str) -> tuple:
    """Joins (max, sums) of two sets of tokens, as `softmax.merge` does.

    Args:
      a, b: of each set the max `[B, H, N]` and a dict of sums `[B, H, N, ...]`.
      concatenate: the one sum whose entries stay apart: 'rows' if a's rows come before b's, 'inner'
        if a's columns do.
    """
    maximum = jnp.maximum(a[0], b[0])
    x, y = (
        jax.tree.map(functools.partial(scale_rows, scale=jnp.exp(found[0] - maximum)), found[1])
        for found in (a, b)
    )
    merged = {name: x[name] + y[name] for name in x if name != concatenate}
    if concatenate in x:
        merged[concatenate] = jnp.concatenate([x[concatenate], y[concatenate]], axis=-1)
    return maximum, merged


class ChunkSteps(NamedTuple):
    """What `online_sums` computes of a chunk.

    Custom gradients differentiate arguments only, so these functions close over no array that has
    a gradient.

    Attributes:
      prepare: (params, chunk) -> the chunk with what both of the others need.
      logits: (params, chunk) -> `[B, H, N, m]`.
      sums: (params, chunk, logits, max) -> (sums over the chunk, sums by row of a grid or None),
        linear in exp(logit - max).
    """

    prepare: Callable
    logits: Callable
    sums: Callable


def online_sums(
    steps: ChunkSteps, chunks: Chunks, params: Any, data: dict[str, jax.Array]
) -> tuple:
    """Sums over tokens, linear in exp(logit - max), with the weights of one chunk in memory.

    The backward pass computes a chunk's weights again, from the max that the forward pass found.

    Returns:
      (max `[B, H, N]`, through which no gradient flows; the sums; sums by row `[B, H, N, rows]`).
    """
    if chunks.count == 1:
        x = steps.prepare(params, chunks.take(data, 0))
        logits = steps.logits(params, x)
        maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
        return maximum, *steps.sums(params, x, logits, maximum)

    @jax.custom_vjp
    def run(params, data, mask):
        return _forward(steps, chunks, params, data, mask)

    def run_forward(params, data, mask):
        result = _forward(steps, chunks, params, data, mask)
        return result, (params, data, mask, result[0])

    run.defvjp(run_forward, functools.partial(_backward, steps, chunks))
    mask = {name: data[name] for name in data if name == "mask"}
    return run(params, {name: data[name] for name in data if name not in mask}, mask)


def _forward(steps: ChunkSteps, chunks: Chunks, params, data, mask):
    def body(carry, i):
        maximum, totals = carry
        x = steps.prepare(params, chunks.take(data | mask, i))
        logits = steps.logits(params, x)
        highest = jnp.maximum(maximum, jnp.max(logits, axis=-1))
        more, by_row = steps.sums(params, x, logits, highest)
        old = jnp.exp(maximum - highest)
        totals = jax.tree.map(lambda a, b: scale_rows(a, old) + b, totals, more)
        return (highest, totals), (by_row, highest)

    def first():
        x = steps.prepare(params, chunks.take(data | mask, 0))
        logits = steps.logits(params, x)
        return logits[..., 0], steps.sums(params, x, logits, logits[..., 0])[0]

    shapes = jax.eval_shape(first)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    start = (jnp.full_like(start[0], MASKED), start[1])
    (maximum, totals), (by_row, then) = jax.lax.scan(body, start, jnp.arange(chunks.count))
    if by_row is not None:  # [n, B, H, N, rows] -> [B, H, N, n rows]
        by_row = jax.vmap(scale_rows)(by_row, jnp.exp(then - maximum[None]))
        by_row = jnp.moveaxis(by_row, 0, 3)
        by_row = by_row.reshape(*by_row.shape[:3], -1)
    return maximum, totals, by_row


def _backward(steps: ChunkSteps, chunks: Chunks, residuals, cotangents):
    params, data, mask, maximum = residuals
    _, totals, by_row = cotangents

    def body(carry, i):
        x = chunks.take(data | mask, i)
        masks = {name: x[name] for name in mask}
        rows = None
        if by_row is not None:
            rows = jax.lax.dynamic_slice_in_dim(by_row, i * chunks.size, chunks.size, axis=-1)

        def again(params, x):
            x = steps.prepare(params, x | masks)
            return steps.sums(params, x, steps.logits(params, x), maximum)

        _, pull = jax.vjp(again, params, {name: x[name] for name in data})
        dparams, dx = pull((totals, rows))
        return jax.tree.map(jnp.add, carry, dparams), dx

    zeros = jax.tree.map(jnp.zeros_like, params)
    dparams, dx = jax.lax.scan(body, zeros, jnp.arange(chunks.count))
    return dparams, chunks.unstack_gradient(data, dx), None
