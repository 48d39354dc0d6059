"""Cross-attention over tokens whose content and position are kept apart: exact, at less cost.

A layer norm and the projection behind it are one scaled product,

    norm(x_j) W + b = r_j x_j W' + b',    W' = scale W less the mean of each column,

with r_j the inverse deviation of token j and b' = offset W + b. With x_j = [content, position,
padding] everything that attention does with tokens is a product x A or a weighted sum w^T x, taken
part by part: nothing as wide as a token has to exist. What is left is in which order to multiply.

- *form*: keys k_j = r_j x_j W_k' and values, each token by itself, as the textbook does.
- *move*: the key projection goes to the query, q_i . k_j = r_j x_j . (W_k' q_i), and the value
  projection behind the sum, W_v'^T sum_j w_ij r_j x_j. The offsets b' add a constant to a query's
  logits (which the softmax does not see) and to the result.

Fourier positions on a grid (y, x) separate, x_j . q = content . q + a(y) + b(x), and their weighted
sum needs the row sums and column sums of the weights only: 258 of 261 channels cost additions.

Many tokens are read in chunks (`stream`), many queries answered in chunks (`answer`), so that no
more than a chunk of weights exists at a time. With `mesh` inputs each device goes through the
chunks of its own tokens or queries. The products are in `products`; `ordering` picks their order.

Shapes as in `attention`; C channels of a token, c of its content, p of its position; R = H N rows
of weights; a grid has O rows (all axes but the last) of X tokens; K and V are one head's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver_jax import mesh
from perceiver_jax.attention.blockwise import cut, cut_row, join, stream, token_axis
from perceiver_jax.attention.cost import choose, choose_answer, tokens_at_once
from perceiver_jax.attention.factored import (
    Folded,
    Linear,
    dot,
    exact,
    inverse_deviation,
    padding_row,
    scores,
    sums,
    tile,
    token_data,
    unit_of,
    with_table,
)
from perceiver_jax.attention.self_attention import divisor
from perceiver_jax.attention.softmax import MASKED, Partial, finish, merge
from perceiver_jax.tokens import Tokens


def read_set(query: jax.Array, tokens: Tokens, key: Folded, value: Folded, dtype) -> Partial:
    """Attention of `query` `[b, H, N, K]`, scaled, over one set of tokens.

    Offsets are left out: those of the keys change nothing, those of the values are added at last.
    Where the weights of a row are too many, some examples are read after others, and some columns
    of it: in float32 examples first, else columns.
    """
    data = token_data(tokens, dtype)
    heads, count = query.shape[1:3]
    unit, batch = unit_of(tokens), batch_of(query, data)
    order = choose(tokens, batch, query.shape, value.kernel.shape[-1])
    first = scores(query, tokens, key.kernel, order.first, dtype, tokens_first=False)
    second, finish_value = sums(tokens, value.kernel, order.second, dtype)
    rows = ("rows1", first.rows), ("rows2", second.rows)
    data = data | {name: x for name, x in rows if x is not None}

    def prepare(columns, params, x):
        x = with_table(tokens, x, dtype, columns)
        return x | {"scale": inverse_deviation(tokens, x, params[2], columns)}

    def logits(params, x):
        result = first.apply(params[0], x, x.get("rows1"))
        if "mask" in x:
            result = jnp.where(x["mask"][:, None, None], result, MASKED)
        return result

    def weighted(params, x, logits, maximum):
        weights = jnp.exp(logits - maximum[..., None])
        if "mask" in x:
            weights = jnp.where(x["mask"][:, None, None], weights, 0.0)
        return second.apply(params[1], x, x.get("rows2"), weights)

    def read_columns(columns, params, data, at_once):
        batch, width = batch_of(params, data), columns.stop - columns.start
        parts = []
        for part in cut(data, unit, at_once, columns):
            ready, tiled = functools.partial(prepare, columns), tile(params, batch, part, dtype)
            maximum, totals, by_row = stream(ready, logits, weighted, part, tiled, data)
            if by_row is not None:
                inner = totals["inner"].reshape(*by_row.shape[:3], -1, width)
                totals |= {"inner": jnp.sum(inner, axis=3), "rows": by_row}  # see `tile`
            parts.append((maximum, totals))
        return functools.reduce(functools.partial(join, following="rows"), parts)

    def reduce_group(params, data):
        examples = mesh.local_batch_size(batch_of(params, data))
        at_once = tokens_at_once(examples * heads * count)
        parts = [read_columns(part, params, data, at_once) for part in cut_row(unit, at_once)]
        return functools.reduce(functools.partial(join, following="inner"), parts)

    def reduce(params, data):
        examples = mesh.local_batch_size(batch_of(params, data))
        rows = examples * heads * count
        # A group of examples goes through the params' gradients again, if they are not by example.
        width = unit if dtype == jnp.float32 else cut_row(unit, tokens_at_once(rows))[0].stop
        groups = divisor(examples, rows * width / tokens_at_once(1))
        maximum, totals = by_examples(reduce_group, groups, params, data)
        return maximum, totals, totals.pop("rows", None)

    params = first.params, second.params, padding_row(tokens)
    maximum, totals, by_row = mesh.read(
        reduce, params, data, {n: token_axis(n, unit) for n in data}, batch
    )
    return Partial(maximum, totals["normalizer"], finish_value(totals, by_row))


def by_examples(function: Callable, groups: int, params: Any, data: dict[str, jax.Array]) -> Any:
    """`function(params, data)`, arrays `[B, ...]`, for one group of examples after another.

    They are dealt out in turn, so that examples spread over devices in runs are cut within each.
    """
    if groups == 1:
        return function(params, data)
    table = {name: data[name] for name in data if name == "table"}
    arrays, tree = jax.tree.flatten((params, {n: data[n] for n in data if n not in table}))
    batch = batch_of(params, data)
    own = [x for x in arrays if len(x) == batch]
    dealt = [x.reshape(batch // groups, groups, *x.shape[1:]).swapaxes(0, 1) for x in own]

    def of_group(group):
        group = iter(group)
        params, data = tree.unflatten(next(group) if len(x) == batch else x for x in arrays)
        return function(params, data | table)

    results = jax.lax.map(of_group, dealt)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch, *x.shape[2:]), results)


def batch_of(params: Any, data: dict[str, jax.Array]) -> int:
    """B, the most examples that any array has; those of params come first as well."""
    by_example = {name: x for name, x in data.items() if name != "table"}
    return max(x.shape[0] for x in jax.tree.leaves((params, by_example)))


def read(
    query: jax.Array, inputs: Sequence[Tokens], key: Folded, value: Folded, dtype: Any
) -> jax.Array:
    """Attention over all tokens of `inputs` together, before the output projection.

    Args:
      query: `[b, H, N, K]`, times 1 / sqrt(K).
      inputs: sets of tokens of one width.
      key, value: of the tokens.
      dtype: compute dtype; the softmax and all small products are float32.

    Returns:
      `[B, H, N, V]` float32, zeros for queries that saw no token at all.
    """
    parts = [read_set(query, tokens, key, value, dtype) for tokens in inputs]
    result = functools.reduce(merge, parts)
    seen = (result.normalizer > 0)[..., None]
    return finish(result) + jnp.where(seen, value.bias[None, :, None], 0.0)


class Answer(NamedTuple):
    """Queries to be answered, chunk by chunk; see `answer`."""

    apply: Callable  # (params, out, chunk) -> [B, m, F], and the queries [B, m, C] or None
    params: Any  # by example
    out: Linear
    data: dict[str, jax.Array]  # of all queries
    unit: int
    count: int  # keys of all heads

    def chunks(self, params: Any, data: dict[str, jax.Array]) -> list[tuple[int, dict]]:
        """(n, data [n, ...]): of `data`, n equal chunks each.

        Nothing is carried over from chunk to chunk, so they are twice as large as when reading.
        """
        batch = mesh.local_batch_size(batch_of(params, data))
        weights = max(batch * self.count // 2, 1)
        parts = cut(data, self.unit, tokens_at_once(weights))
        return [(part.count, part.stack(data)) for part in parts]

    def axes(self) -> dict[str, tuple[int, int]]:
        """`token_axis` of the data."""
        return {name: token_axis(name, self.unit) for name in self.data}


def answer(
    queries: Tokens,
    query: Folded,
    keys: jax.Array,
    values: jax.Array,
    out: Linear,
    dtype: Any,
    *,
    with_queries: bool,
) -> Answer:
    """Attention of many queries over few keys, with the output projection.

    Args:
      queries: M tokens, position and content apart.
      query: their layer norm and projection.
      keys: `[B, H, N, K]`, times 1 / sqrt(K).
      values: `[B, H, N, V]`.
      out: the output projection, from H V channels to F.
      with_queries: whether the queries' dense array is wanted too (for a residual).
    """
    heads, count = keys.shape[1:3]
    data = token_data(queries, dtype)
    if with_queries:
        data["queries"] = queries.dense(dtype)
    order = choose_answer(queries, keys.shape, values.shape[-1], out.kernel.shape[-1])
    first = scores(keys, queries, query.kernel, order.first, dtype, tokens_first=True)
    if first.rows is not None:
        data["rows1"] = first.rows
    offset = exact("hk,bhnk->bhn", query.bias, keys)
    if order.second == "move":
        kernel = out.kernel.reshape(heads, -1, out.kernel.shape[-1])
        values = exact("bhnv,hvf->bhnf", values, kernel)

    def apply(params, out, x):
        first_params, offset, values, padding = params
        x = with_table(queries, x, dtype)
        x = x | {"scale": inverse_deviation(queries, x, padding)}
        logits = first.apply(first_params, x, x.get("rows1")) + offset[:, :, None]
        logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits).astype(dtype)  # [B, H, m, N]
        # The normalizer is one more value, which is 1.
        values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1).astype(dtype)
        result = dot("bhmn,bhnv->bhmv", weights, values)
        result = result[..., :-1] / result[..., -1:]
        if order.second == "move":
            result = jnp.sum(result, axis=1)
        else:
            result = result.astype(dtype).swapaxes(1, 2)  # [B, m, H, V]
            result = result.reshape(*result.shape[:2], -1)
            result = dot("bmv,vf->bmf", result, out.kernel.astype(dtype))
        if "mask" in x:
            result = jnp.where(x["mask"][..., None], result, 0.0)
        return (result + out.bias[None, None]).astype(dtype), x.get("queries")

    params = first.params, offset, values, padding_row(queries)
    return Answer(apply, params, out, data, unit_of(queries), heads * count)
