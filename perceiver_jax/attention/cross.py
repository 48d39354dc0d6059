"""Cross-attention over tokens whose content and position are kept apart: exact, at less cost.

A layer norm and the projection behind it are one scaled product, r_j x_j W' + b' (see `folding`).
With x_j = [content, position, padding], everything that attention does with tokens is a product x A
or a weighted sum w^T x, taken part by part, so no array as wide as the tokens is made. The order of
the contractions is left to choose:

- *project*: keys k_j = r_j x_j W_k' and values are made of each token, as the textbook does.
- *absorb*: the query absorbs the key projection, q_i . k_j = r_j x_j . (W_k' q_i), and the value
  projection comes after the sum, W_v'^T sum_j w_ij r_j x_j. The offsets b' add a constant to a
  query's logits, which the softmax does not see, and to the result.

Fourier positions on a grid (y, x) separate, x_j . q = content . q + a(y) + b(x), and their weighted
sum needs only the sums of the weights over rows and columns: 258 of 261 channels cost additions.

`encode` takes many tokens in chunks with an online softmax; `decode` takes many queries in chunks.
In both, the weights of one chunk exist at a time. On TPUs and H100s `kernel` encodes grids. `cost`
picks the order, `factored` has the products, and with sharded inputs (`sharded`) each device takes
its own tokens or queries. Both are in one file because they share the mathematics above.

Shapes as in `softmax`; C channels of a token, c of its content, p of its position; R = H N rows of
weights; a grid has O rows (all axes but the last) of X tokens; K and V are one head's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver_jax import mesh
from perceiver_jax.attention import sharded
from perceiver_jax.attention.blockwise import (
    ChunkSteps,
    batch_size,
    divisor,
    merge_sums,
    online_sums,
    split_columns,
    split_tokens,
    tokens_at_once,
)
from perceiver_jax.attention.cost import (
    ContractionOrder,
    decode_order,
    encode_order,
    kernel_tiling,
)
from perceiver_jax.attention.factored import (
    Contraction,
    contract_logits,
    contract_values,
    inverse_deviation,
    padding_row,
    row_size,
    tile,
    token_data,
    with_table,
)
from perceiver_jax.attention.folding import FoldedNorm, Linear, dot, exact
from perceiver_jax.attention.kernel.tiling import GpuTiling, Tiling
from perceiver_jax.attention.softmax import MASKED, SoftmaxState, merge, normalize
from perceiver_jax.tokens import Tokens


def encode(
    query: jax.Array, inputs: Sequence[Tokens], key: FoldedNorm, value: FoldedNorm, dtype: Any
) -> jax.Array:
    """Few queries attend to all tokens of `inputs` together, before the output projection.

    Args:
      query: `[b, H, N, K]`, times 1 / sqrt(K).
      inputs: sets of tokens of one width.
      key, value: the layer norm of the tokens folded into their projections.
      dtype: compute dtype; the softmax and all small products are float32.

    Returns:
      `[B, H, N, V]` float32, zeros for queries that saw no token.
    """
    states = [_encode_set(query, tokens, key, value, dtype) for tokens in inputs]
    state = functools.reduce(merge, states)
    seen = (state.denominator > 0)[..., None]
    return normalize(state) + jnp.where(seen, value.bias[None, :, None], 0.0)


class _Encoding(NamedTuple):
    """Attention to one set of tokens; its functions take `params` and `data` as arguments."""

    tokens: Tokens
    logits: Contraction
    values: Contraction
    order: ContractionOrder
    heads: int
    rows: int  # of weights, H N
    row_size: int
    dtype: Any


def _encode_set(
    query: jax.Array, tokens: Tokens, key: FoldedNorm, value: FoldedNorm, dtype: Any
) -> SoftmaxState:
    """Attention to one set of tokens, without the offsets of keys and values."""
    data, size = token_data(tokens, dtype), row_size(tokens)
    batch = batch_size(query, data)
    order = encode_order(tokens, batch, query.shape, value.kernel.shape[-1])
    logits = contract_logits(query, tokens, key.kernel, order.logits, dtype, tokens_first=False)
    values, project_sums = contract_values(tokens, value.kernel, order.values, dtype)
    rows = ("rows1", logits.rows), ("rows2", values.rows)
    data = data | {name: x for name, x in rows if x is not None}
    heads, count = query.shape[1:3]
    encoding = _Encoding(tokens, logits, values, order, heads, heads * count, size, dtype)
    outer, examples = tokens.num_tokens // size, mesh.local_batch_size(batch)
    tiling = kernel_tiling(tokens, order, heads * count, outer, dtype, examples)
    maximum, totals, by_row = sharded.reduce_tokens(
        functools.partial(_reduce, encoding),
        (logits.params, values.params, padding_row(tokens)),
        data,
        size,
        by_device=tiling is not None,
    )
    return SoftmaxState(maximum, totals["denominator"], project_sums(totals, by_row))


def _reduce(encoding: _Encoding, params: Any, data: dict[str, jax.Array]) -> tuple:
    """Max, sums and sums by row over all tokens of a device.

    If the weights of one row of tokens exceed the budget, groups of examples take turns in float32.
    Other dtypes first cut rows into columns, because each further group accumulates the gradients
    of shared parameters once more.
    """
    outer = data["content"].shape[1] // encoding.row_size
    order, dtype = encoding.order, encoding.dtype
    examples = mesh.local_batch_size(batch_size(params, data))
    if tiling := kernel_tiling(encoding.tokens, order, encoding.rows, outer, dtype, examples):
        return _reduce_in_kernel(encoding, tiling, params, data)
    rows, width = examples * encoding.rows, encoding.row_size
    if encoding.dtype != jnp.float32:
        width = split_columns(width, tokens_at_once(rows))[0].stop
    groups = divisor(examples, rows * width / tokens_at_once(1))
    reduce = functools.partial(_reduce_group, encoding)
    maximum, totals = map_examples(reduce, groups, params, data)
    return maximum, totals, totals.pop("rows", None)


def _reduce_in_kernel(
    encoding: _Encoding, tiling: Tiling | GpuTiling, params: Any, data: dict[str, jax.Array]
) -> tuple:
    """`_reduce` by one kernel."""
    from perceiver_jax.attention.kernel.sums import (
        grid_sums,
    )  # a slow import that few programs need

    split, _, padding = params
    r = inverse_deviation(encoding.tokens, data, padding)
    rows = data["rows1"]
    if split.constant is not None:  # every token is in one row
        rows = rows + split.constant[..., None]
    mask = data.get("mask")
    found = grid_sums(tiling, split.content, rows, split.inner, data["content"], r, mask)

    def by_head(x):  # [B, H N, ..] -> [B, H, N, ..]
        heads = encoding.heads
        return x.reshape(x.shape[0], heads, encoding.rows // heads, *x.shape[2:])

    found = type(found)(*map(by_head, found))
    totals = {name: getattr(found, name) for name in ("denominator", "content", "inner")}
    if padding is not None:
        totals["scale"] = jnp.sum(found.inner, axis=-1, keepdims=True)
    return found.max, totals, found.rows


def _reduce_group(encoding: _Encoding, params: Any, data: dict[str, jax.Array]) -> tuple:
    """(max, sums) over all tokens for one group of examples, column block after column block."""
    examples = mesh.local_batch_size(batch_size(params, data))
    tokens = tokens_at_once(examples * encoding.rows)
    blocks = split_columns(encoding.row_size, tokens)
    parts = [_reduce_columns(encoding, columns, tokens, params, data) for columns in blocks]
    return functools.reduce(functools.partial(merge_sums, concatenate="inner"), parts)


def _reduce_columns(
    encoding: _Encoding, columns: slice, tokens: int, params: Any, data: dict[str, jax.Array]
) -> tuple:
    """(max, sums) over some columns of all rows, in chunks of so many `tokens`."""
    batch, width = batch_size(params, data), columns.stop - columns.start
    steps = ChunkSteps(
        functools.partial(_prepare_chunk, encoding, columns),
        functools.partial(_chunk_logits, encoding),
        functools.partial(_chunk_sums, encoding),
    )
    parts = []
    for chunks in split_tokens(data, encoding.row_size, tokens, columns):
        tiled = tile(params, batch, chunks, encoding.dtype)
        maximum, totals, by_row = online_sums(steps, chunks, tiled, data)
        if by_row is not None:
            inner = totals["inner"].reshape(*by_row.shape[:3], -1, width)
            totals |= {"inner": jnp.sum(inner, axis=3), "rows": by_row}  # see `tile`
        parts.append((maximum, totals))
    return functools.reduce(functools.partial(merge_sums, concatenate="rows"), parts)


def _prepare_chunk(encoding: _Encoding, columns: slice, params, x: dict) -> dict:
    x = with_table(encoding.tokens, x, encoding.dtype, columns)
    return x | {"scale": inverse_deviation(encoding.tokens, x, params[2], columns)}


def _chunk_logits(encoding: _Encoding, params, x: dict) -> jax.Array:
    logits = encoding.logits.apply(params[0], x, x.get("rows1"))
    if "mask" in x:
        logits = jnp.where(x["mask"][:, None, None], logits, MASKED)
    return logits


def _chunk_sums(encoding: _Encoding, params, x: dict, logits, maximum) -> tuple:
    weights = jnp.exp(logits - maximum[..., None])
    if "mask" in x:
        weights = jnp.where(x["mask"][:, None, None], weights, 0.0)
    return encoding.values.apply(params[1], x, x.get("rows2"), weights)


def map_examples(function: Callable, groups: int, params: Any, data: dict[str, jax.Array]) -> Any:
    """`function(params, data)`, arrays `[B, ...]`, for one group of examples after another.

    Group g has the examples g, g + groups, ...: where examples are spread over devices in runs,
    every device then has its part of each group.
    """
    if groups == 1:
        return function(params, data)
    table = {name: data[name] for name in data if name == "table"}
    arrays, tree = jax.tree.flatten((params, {n: data[n] for n in data if n not in table}))
    batch = batch_size(params, data)
    split = [
        x.reshape(batch // groups, groups, *x.shape[1:]).swapaxes(0, 1)
        for x in arrays
        if len(x) == batch
    ]

    def of_group(group):
        group = iter(group)
        params, data = tree.unflatten(next(group) if len(x) == batch else x for x in arrays)
        return function(params, data | table)

    results = jax.lax.map(of_group, split)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch, *x.shape[2:]), results)


class Decoding(NamedTuple):
    """Attention of many queries to few keys, for a layer that takes the queries in chunks.

    The layer computes `attend` and everything behind it chunk by chunk, so that no array as wide as
    the queries exists for all of them.
    """

    queries: Tokens
    logits: Contraction
    order: ContractionOrder
    params: Any  # arrays [B or 1, ...]
    out: Linear
    data: dict[str, jax.Array]  # of all queries
    keys: int  # H N
    dtype: Any

    @property
    def batch(self) -> int:
        """B."""
        return batch_size(self.params, self.data)

    @property
    def row_size(self) -> int:
        """How many queries a row has."""
        return row_size(self.queries)

    def chunks(self, params: Any, data: dict[str, jax.Array]) -> list[tuple[int, dict]]:
        """(n, data `[n, ...]`): equal chunks of a device's `data`, and a rest.

        Chunks are twice as large as those of `encode`, which carry sums from chunk to chunk.
        """
        batch = mesh.local_batch_size(batch_size(params, data))
        weights = max(batch * self.keys // 2, 1)
        parts = split_tokens(data, self.row_size, tokens_at_once(weights))
        return [(part.count, part.stack(data)) for part in parts]

    def attend(self, params: Any, out: Linear, x: dict[str, jax.Array]) -> tuple:
        """Attention of a chunk with its output projection `[B, m, F]`; the queries or None."""
        logits_params, offset, values, padding = params
        x = with_table(self.queries, x, self.dtype)
        x = x | {"scale": inverse_deviation(self.queries, x, padding)}
        logits = self.logits.apply(logits_params, x, x.get("rows1")) + offset[:, :, None]
        logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits).astype(self.dtype)  # [B, H, m, N]
        # The denominator is one more value, which is 1.
        values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
        result = dot("bhmn,bhnv->bhmv", weights, values.astype(self.dtype))
        result = result[..., :-1] / result[..., -1:]
        if self.order.values == "absorb":
            result = jnp.sum(result, axis=1)
        else:
            result = result.astype(self.dtype).swapaxes(1, 2)  # [B, m, H, V]
            result = result.reshape(*result.shape[:2], -1)
            result = dot("bmv,vf->bmf", result, out.kernel.astype(self.dtype))
        if "mask" in x:
            result = jnp.where(x["mask"][..., None], result, 0.0)
        return (result + out.bias[None, None]).astype(self.dtype), x.get("queries")


def decode(
    queries: Tokens,
    query: FoldedNorm,
    keys: jax.Array,
    values: jax.Array,
    out: Linear,
    dtype: Any,
    *,
    with_queries: bool,
) -> Decoding:
    """Many queries attend to few keys, with the output projection; see `Decoding`.

    Args:
      queries: M tokens, position and content apart.
      query: their layer norm folded into the query projection.
      keys: `[B, H, N, K]`, times 1 / sqrt(K).
      values: `[B, H, N, V]`.
      out: the output projection, from H V channels to F.
      dtype: compute dtype.
      with_queries: whether the queries' dense array is wanted too (for a residual).
    """
    heads, count = keys.shape[1:3]
    data = token_data(queries, dtype)
    if with_queries:
        data["queries"] = queries.dense(dtype)
    order = decode_order(queries, keys.shape, values.shape[-1], out.kernel.shape[-1])
    logits = contract_logits(keys, queries, query.kernel, order.logits, dtype, tokens_first=True)
    if logits.rows is not None:
        data["rows1"] = logits.rows
    offset = exact("hk,bhnk->bhn", query.bias, keys)
    if order.values == "absorb":
        kernel = out.kernel.reshape(heads, -1, out.kernel.shape[-1])
        values = exact("bhnv,hvf->bhnf", values, kernel)
    params = logits.params, offset, values, padding_row(queries)
    return Decoding(queries, logits, order, params, out, data, heads * count, dtype)
