"""One example's tokens, or queries, spread over the axis 'model'; heads spread for kernels.

`reduce_tokens` and `map_queries` take these arguments:
  params: arrays `[B or 1, ...]`.
  data: arrays of all tokens by name, see `factored.token_data`.
  row_size: tokens of a row; each row is on one device.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from perceiver_jax.attention.blockwise import batch_size, token_axis
from perceiver_jax.attention.softmax import scale_rows
from perceiver_jax.mesh import DATA, MODEL, batch_axes, current_layout, use_layout


def is_sharded(num_rows: int) -> bool:
    """Whether this many rows of tokens are spread over 'model'; fewer rows than devices are not."""
    layout = current_layout()
    return bool(layout and layout.shard_inputs and num_rows >= layout.model)


def reduce_tokens(
    reduce: Callable, params: Any, data: dict, row_size: int, *, by_device: bool
) -> tuple:
    """`reduce(params, data)` over all tokens; merges the results of devices where they are sharded.

    Args:
      reduce: gives the max of the logits `[B, H, N]`, a dict of sums `[B, H, N, ...]` that are
        linear in exp(logit - max), and such sums by row of a grid `[B, H, N, rows]` or None.
      params, data, row_size: see the module.
      by_device: whether `reduce` has a kernel, which the compiler does not spread: each device then
        calls it for its own examples.
    """
    num_rows, layout = data["content"].shape[1] // row_size, current_layout()
    if not is_sharded(num_rows):
        if not by_device or layout is None or layout.local or layout.mesh.size == 1:
            return reduce(params, data)
        return _shard_map(
            lambda _, params, data: reduce(params, data),
            PartitionSpec,
            (),
            params,
            data,
            row_size,
            tokens=False,
        )

    def merged(_, params, data):
        maximum, sums, by_row = reduce(params, data)
        highest = jax.lax.pmax(jax.lax.stop_gradient(maximum), MODEL)
        scale = functools.partial(scale_rows, scale=jnp.exp(maximum - highest))
        sums, by_row = jax.tree.map(scale, (sums, by_row))
        return highest, jax.lax.psum(sums, MODEL), by_row

    def specs(examples):
        by_row = PartitionSpec(examples, None, None, MODEL)
        return PartitionSpec(examples), PartitionSpec(examples), by_row

    maximum, sums, by_row = _shard_map(merged, specs, (), params, data, row_size)
    return maximum, sums, None if by_row is None else by_row[..., :num_rows]


def map_queries(
    function: Callable, shared: Any, params: Any, data: dict, row_size: int
) -> jax.Array:
    """`function(shared, params, data)`, `[B, M, F]`; each device computes its own queries.

    Args:
      function: treats each of M queries by itself.
      shared: arrays that every device has.
      params, data, row_size: see the module.
    """

    def specs(examples):
        return PartitionSpec(examples, MODEL)

    outputs = _shard_map(function, specs, shared, params, data, row_size)
    return outputs[:, : data["content"].shape[1]]


def map_heads(function: Callable, *heads: jax.Array) -> jax.Array:
    """`function(*heads)` of arrays `[B, H, N, ...]`; each device has its own examples, or heads.

    For kernels, which the compiler does not spread. `function` treats each head by itself.
    """
    layout = current_layout()
    if layout is None or layout.local or layout.mesh.size == 1:
        return function(*heads)
    batch, number = heads[0].shape[:2]
    over = MODEL if layout.latents == "width" and number % layout.model == 0 else None
    spec = PartitionSpec(batch_axes(batch) or None, over)

    def local(*heads):
        with use_layout(layout._replace(local=True, shard_inputs=False)):
            return function(*heads)

    mapped = jax.shard_map(
        local, mesh=layout.mesh, in_specs=(spec,) * len(heads), out_specs=spec, check_vma=False
    )
    return mapped(*heads)


def _shard_map(function, specs, shared, params, data, row_size, *, tokens=True):
    """Runs `function(shared, params, data)` on each device's examples, and its `tokens` or all.

    Masked tokens fill up a number of rows that does not divide.
    """
    layout, batch = current_layout(), batch_size(params, data)
    examples = DATA if batch % layout.mesh.shape[DATA] == 0 else None
    if tokens:
        data = _fill(data, row_size, -(data["content"].shape[1] // row_size) % layout.model)

    def by_example(x):
        return PartitionSpec(examples if x.shape[0] == batch else None)

    def by_token(name, x):
        if not tokens:
            return by_example(x) if token_axis(name, row_size)[0] else PartitionSpec()
        axis, _ = token_axis(name, row_size)
        return PartitionSpec(*(by_example(x) if axis else ()), *[None] * (axis - 1), MODEL)

    def local(*arrays):
        with use_layout(layout._replace(local=True, shard_inputs=False)):
            return function(*arrays)

    mapped = jax.shard_map(
        local,
        mesh=layout.mesh,
        in_specs=(
            PartitionSpec(),
            jax.tree.map(by_example, params),
            {name: by_token(name, x) for name, x in data.items()},
        ),
        out_specs=specs(examples),
        check_vma=False,
    )
    return mapped(shared, params, data)


def _fill(data: dict, row_size: int, rows: int) -> dict:
    if not rows:
        return data
    if "mask" not in data:
        data = data | {"mask": jnp.ones((1, data["content"].shape[1]), bool)}

    def fill(name, x):
        axis, entries = token_axis(name, row_size)
        pads = [(0, 0)] * x.ndim
        pads[axis] = 0, rows * entries
        return jnp.pad(x, pads)

    return {name: fill(name, x) for name, x in data.items()}
