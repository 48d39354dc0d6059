"""Causal attention of few queries to many keys, a block at a time: exact, in constant memory.

A query sees the keys at its own place in the sequence and before it (`softmax.Places`). Places are
compared inside a block of n queries and m keys, so no array of all queries and all keys exists.
Blocks wholly in the future, or wholly masked, are skipped. Keys and values are made block by block
too, from what the caller has of each token (for example its id): the only arrays as long as the
sequence are those. The backward pass makes a block's keys, values and weights again.

One file, because the forward and the backward pass must agree on the blocks.

Shapes as in `softmax`: B examples, H heads, N queries, M keys.

Reference: Perceiver AR (Hawthorne et al. 2022) section 3.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from perceiver_jax import mesh
from perceiver_jax.attention.blockwise import chunk_bytes, divisor
from perceiver_jax.attention.folding import dot
from perceiver_jax.attention.softmax import (
    MASKED,
    Places,
    SoftmaxState,
    attention_logits,
    merge,
    normalize,
    scale,
    softmax_state,
    visible,
)

LATE, EARLY = 2**30, -(2**30)  # places of keys and queries that fill up a block

# Blocks are not made smaller, unless the budget is: products with fewer rows are slow. Where those
# of all examples do not fit into the budget, groups of examples take turns.
MIN_KEYS, MIN_QUERIES = 256, 128

KeysValues = Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, jax.Array]]


class Block(NamedTuple):
    """Queries and keys of a block."""

    queries: int
    keys: int


def choose_block(batch: int, heads: int, queries: int, keys: int) -> tuple[int, Block]:
    """How many groups of examples take turns, and the block whose weights then fill the budget.

    It is of all keys and queries where they fit.

    Args:
      batch: examples of a device.
      heads, queries, keys: of each.
    """
    budget = chunk_bytes() // 4
    side = math.isqrt(budget)
    least_keys, least_queries = min(keys, MIN_KEYS, side), min(queries, MIN_QUERIES, side)
    groups = divisor(batch, batch * heads * least_keys * least_queries / budget)
    budget //= batch // groups * heads
    m = min(keys, max(budget // queries, least_keys))
    n = min(queries, max(budget // m, least_queries))
    return groups, Block(_even(queries, n), _even(keys, m))


def _even(total: int, most: int) -> int:
    """The size of the fewest equal parts of at most `most`."""
    return -(-total // -(-total // most))


def attend_causal(
    query: jax.Array,
    keys_values: KeysValues,
    params: Any,
    data: dict[str, jax.Array],
    places: Places,
    *,
    mask: jax.Array | None = None,
    block: Block | None = None,
) -> jax.Array:
    """softmax(q k / sqrt(K)) v over the keys that each query may see.

    Args:
      query: `[B, H, N, K]`.
      keys_values: `(params, data of a block)` gives key `[B, H, m, K]` and value `[B, H, m, V]`.
        It closes over no array that has a gradient.
      params: arrays that all blocks share.
      data: arrays `[B or 1, M, ...]` by name. Those of integers have no gradient.
      places: of queries and keys.
      mask: bool `[B or 1, M]`, False for keys that nobody sees.
      block: None chooses.

    Returns:
      `[B, H, N, V]` float32, zeros for queries that see no key.
    """
    batch, heads, count, _ = query.shape
    local = mesh.local_batch_size(batch), heads, count, places.key.shape[1]
    groups, block = (1, block) if block else choose_block(*local)
    data = {"data": data, "place": places.key} | ({} if mask is None else {"mask": mask})
    # Equal leading axes, so that examples can be spread over devices.
    place, data = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), (places.query, data)
    )
    run = functools.partial(_attend_in_turns, keys_values, groups, block)
    axes = _spread_axes(batch)
    if not axes:
        return run(query, params, data, place)
    layout, rows = mesh.current_layout(), PartitionSpec(axes)

    def local(query, params, data, place):
        with mesh.use_layout(layout._replace(local=True)):
            return run(query, params, data, place)

    # Each device sums the gradient of `params` over its blocks; the compiler would sum over devices
    # once a block.
    return jax.shard_map(
        local,
        mesh=layout.mesh,
        in_specs=(rows, PartitionSpec(), rows, rows),
        out_specs=rows,
        check_vma=False,
    )(query, params, data, place)


def _spread_axes(batch: int) -> tuple[str, ...]:
    """The axes of the mesh over which examples are spread, as `mesh.constrain_batch` does."""
    layout = mesh.current_layout()
    if layout is None or layout.local or jax.sharding.get_abstract_mesh().manual_axes:
        return ()
    axes = (mesh.DATA,) if layout.latents == "width" else (mesh.DATA, mesh.MODEL)
    while axes and batch % math.prod(layout.mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes if math.prod(layout.mesh.shape[axis] for axis in axes) > 1 else ()


def _attend_in_turns(keys_values: KeysValues, groups: int, block: Block, *arrays) -> jax.Array:
    """`attend_causal` of a device's examples, one group after another."""
    if groups == 1:
        return _attend(keys_values, block, *arrays)
    query, params, data, place = arrays

    def split(x):
        return x.reshape(groups, x.shape[0] // groups, *x.shape[1:])

    out = jax.lax.map(
        lambda x: _attend(keys_values, block, x[0], params, *x[1:]),
        jax.tree.map(split, (query, data, place)),
    )
    return out.reshape(-1, *out.shape[2:])


def _attend(keys_values: KeysValues, block: Block, query, params, data, place) -> jax.Array:
    """`attend_causal` of a group of examples."""
    count, total = query.shape[2], data["place"].shape[1]
    if block.queries >= count and block.keys >= total:
        key, value = keys_values(params, data["data"])
        places = Places(place, data["place"])
        return normalize(softmax_state(query, key, value, mask=data.get("mask"), places=places))
    rows = -(-count // block.queries)
    queries = _cut(query, rows, block.queries, axis=2)
    place = _cut(place, rows, block.queries, axis=1, fill=EARLY)
    data = _fill(data, -(-total // block.keys) * block.keys)
    floats, rest = _split_floats(data)

    @jax.custom_vjp
    def run(queries, params, floats, place, rest):
        return _forward(keys_values, block, queries, place, params, _join(floats, rest))[0]

    def run_forward(queries, params, floats, place, rest):
        out, state = _forward(keys_values, block, queries, place, params, _join(floats, rest))
        return out, (queries, params, floats, out, state.max, state.denominator, place, rest)

    run.defvjp(run_forward, functools.partial(_backward, keys_values, block))
    out = run(queries, params, floats, place, rest)  # [blocks, B, H, n, V]
    out = jnp.moveaxis(out, 0, 2)
    return out.reshape(*out.shape[:2], -1, out.shape[-1])[:, :, :count]


def _cut(x: jax.Array, parts: int, size: int, *, axis: int, fill: int = 0) -> jax.Array:
    """`[.., T, ..]` filled up and cut into `[parts, .., size, ..]`."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, parts * size - x.shape[axis])
    x = jnp.pad(x, pads, constant_values=fill)
    x = x.reshape(*x.shape[:axis], parts, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _fill(data: dict, length: int) -> dict:
    """All data of keys filled up to `length`; keys that fill are in the future of all queries."""

    def fill(x, value=0):
        pads = [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
        return jnp.pad(x, pads, constant_values=value)

    return jax.tree.map(fill, data) | {"place": fill(data["place"], LATE)}


def _split_floats(data: Any) -> tuple[list, list]:
    """The leaves of `data` that have a gradient, and the others; None in place of the rest."""
    leaves = jax.tree.leaves(data)
    is_float = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]
    treedef = jax.tree.structure(data)
    floats = [x if f else None for x, f in zip(leaves, is_float, strict=True)]
    rest = [None if f else x for x, f in zip(leaves, is_float, strict=True)]
    return treedef.unflatten(floats), treedef.unflatten(rest)


def _join(floats: Any, rest: Any) -> Any:
    """What `_split_floats` splits."""
    none = {"is_leaf": lambda x: x is None}
    return jax.tree.map(lambda a, b: b if a is None else a, floats, rest, **none)


def _blocks_seen(data: dict, place: jax.Array, size: int) -> jax.Array:
    """bool `[blocks of queries, blocks of keys]`: whether a query may see a key of the block."""
    first = data["place"]
    if "mask" in data:
        first = jnp.where(data["mask"], first, LATE)
    first = jnp.min(first.reshape(first.shape[0], -1, size), axis=2)  # [B, blocks of keys]
    last = jnp.max(place, axis=2)  # [blocks of queries, B]
    return jnp.any(first[None] <= last[:, :, None], axis=1)


def _take(data: Any, j: Any, size: int) -> Any:
    """The data of block j."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, j * size, size, 1), data)


def _forward(keys_values, block, queries, place, params, data) -> tuple[jax.Array, SoftmaxState]:
    """The result `[blocks, B, H, n, V]` and the softmax state of all blocks of queries."""
    seen = _blocks_seen(data, place, block.keys)

    def make(j):
        x = _take(data, j, block.keys)
        return x, *keys_values(params, x["data"])

    def of_keys(states, j):
        def run(states):
            x, key, value = make(j)

            def of_queries(_, row):
                state, query, place, needed = row

                def attend(state):
                    places = Places(place, x["place"])
                    new = softmax_state(query, key, value, mask=x.get("mask"), places=places)
                    return merge(state, new)

                return None, jax.lax.cond(needed, attend, lambda state: state, state)

            return jax.lax.scan(of_queries, None, (states, queries, place, seen[:, j]))[1]

        return jax.lax.cond(jnp.any(seen[:, j]), run, lambda states: states, states), None

    value = jax.eval_shape(lambda: make(0)[2])
    rows = queries.shape[:-1]
    start = SoftmaxState(
        jnp.full(rows, MASKED, jnp.float32),
        jnp.zeros(rows, jnp.float32),
        jnp.zeros((*rows, value.shape[-1]), jnp.float32),
    )
    state, _ = jax.lax.scan(of_keys, start, jnp.arange(seen.shape[1]))
    return normalize(state), state


def _backward(keys_values, block, residuals, dy):
    queries, params, floats, out, maximum, denominator, place, rest = residuals
    data = _join(floats, rest)
    seen = _blocks_seen(data, place, block.keys)
    inverse = jnp.where(denominator > 0, 1 / jnp.where(denominator > 0, denominator, 1.0), 0.0)
    along = jnp.einsum("ibhnv,ibhnv->ibhn", dy, out)

    def of_keys(carry, j):
        own = _take(floats, j, block.keys)
        others = _take(rest, j, block.keys)

        def run(carry):
            dqueries, dparams = carry
            x = _join(own, others)

            def make(params, own):
                return keys_values(params, _join(own, others)["data"])

            (key, value), pull = jax.vjp(make, params, own)

            def of_queries(sums, row):
                dquery, query, place, maximum, inverse, dy, along, needed = row

                def attend(sums):
                    places = Places(place, x["place"])
                    logits = attention_logits(query, key, None)
                    weights = jnp.exp(logits - maximum[..., None]) * inverse[..., None]
                    weights = jnp.where(visible(x.get("mask"), places), weights, 0.0)
                    dweights = dot("bhnv,bhmv->bhnm", dy.astype(value.dtype), value)
                    dlogits = (weights * (dweights - along[..., None])).astype(query.dtype)
                    more = dot("bhnm,bhmk->bhnk", dlogits, key) * scale(query)
                    dkey = dot("bhnm,bhnk->bhmk", dlogits, query * scale(query))
                    dvalue = dot(
                        "bhnm,bhnv->bhmv", weights.astype(value.dtype), dy.astype(value.dtype)
                    )
                    return (sums[0] + dkey, sums[1] + dvalue), dquery + more

                return jax.lax.cond(needed, attend, lambda sums: (sums, dquery), sums)

            zeros = jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32)
            rows = dqueries, queries, place, maximum, inverse, dy, along, seen[:, j]
            (dkey, dvalue), dqueries = jax.lax.scan(of_queries, zeros, rows)
            more, down = pull((dkey.astype(key.dtype), dvalue.astype(value.dtype)))
            return (dqueries, jax.tree.map(jnp.add, dparams, more)), down

        def skip(carry):
            return carry, jax.tree.map(jnp.zeros_like, own)

        return jax.lax.cond(jnp.any(seen[:, j]), run, skip, carry)

    start = jnp.zeros(queries.shape, jnp.float32), jax.tree.map(jnp.zeros_like, params)
    (dqueries, dparams), down = jax.lax.scan(of_keys, start, jnp.arange(seen.shape[1]))

    def along_tokens(x):  # [blocks, B, m, ..] -> [B, M, ..]
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])

    return dqueries.astype(queries.dtype), dparams, jax.tree.map(along_tokens, down), None, None
