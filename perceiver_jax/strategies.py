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
more than a chunk of weights exists at a time. `choose` picks the order by counting multiplications.
With `sharded` inputs each device goes through the chunks of its own tokens or queries.

Shapes as in `attention`; C channels of a token, c of its content, p of its position; R = H N rows
of weights; a grid has O rows (all axes but the last) of X tokens; K and V are one head's.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from perceiver_jax import sharded
from perceiver_jax.attention import MASKED, Partial, finish, merge
from perceiver_jax.chunks import cut, join, stream, token_axis
from perceiver_jax.gradients import EPSILON, chunk_bytes, divisor
from perceiver_jax.tokens import Tokens

# Sums and products of few rows, at full precision wherever they run.
exact = functools.partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)
dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Linear(NamedTuple):
    """Parameters of a projection: `kernel [C, F]`, `bias [F]`."""

    kernel: jax.Array
    bias: jax.Array


class Norm(NamedTuple):
    """Parameters of a layer norm: `scale [C]`, `offset [C]`."""

    scale: jax.Array
    offset: jax.Array


class AttentionWeights(NamedTuple):
    """The four projections of an attention."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear


class Folded(NamedTuple):
    """A layer norm and a projection to heads: `kernel [C, H, K]`, `bias [H, K]`, float32."""

    kernel: jax.Array
    bias: jax.Array


class Order(NamedTuple):
    """'form' or 'move', for the first product (logits) and the second (values)."""

    first: str
    second: str


class Forced(NamedTuple):
    """See `forced`."""

    order: Order | str | None = None
    chunk_bytes: int | None = None


_forced = contextvars.ContextVar("forced", default=None)


@contextlib.contextmanager
def forced(order: Order | str | None = None, *, chunk_bytes: int | None = None) -> Iterator[None]:
    """Overrules `choose` for what is *traced* inside; for tests and benchmarks.

    Args:
      order: 'dense' is the textbook formula; an `Order`; None chooses.
      chunk_bytes: in place of `gradients.CHUNK_BYTES`.
    """
    token = _forced.set(Forced(order, chunk_bytes))
    try:
        yield
    finally:
        _forced.reset(token)


def _override() -> Forced:
    return _forced.get() or Forced()


def dense_forced() -> bool:
    """Whether the textbook formula is asked for."""
    return _override().order == "dense"


def fold(norm: Norm, linear: Linear, num_heads: int) -> Folded:
    """Puts the layer norm's scale, mean and offset into the projection behind it."""
    kernel = norm.scale[:, None] * linear.kernel
    kernel = kernel - jnp.mean(kernel, axis=0, keepdims=True)
    bias = exact("c,cf->f", norm.offset, linear.kernel) + linear.bias
    return Folded(kernel.reshape(kernel.shape[0], num_heads, -1), bias.reshape(num_heads, -1))


def inverse_deviation(
    tokens: Tokens, x: dict[str, jax.Array], padding: jax.Array | None
) -> jax.Array:
    """r = 1 / sqrt(variance + epsilon) over each token's channels, float32 `[B or 1, m]`.

    Mean and squared deviations of the parts are joined, so there is no difference of large numbers
    (Chan, Golub and LeVeque 1983).

    Args:
      tokens: all of them.
      x: `token_data` of those that are asked for, a chunk or all.
      padding: of all, see `padding_row`. Like all that has a gradient it is not closed over, here
        and in other functions of chunks, which `stream` and `sharded` differentiate by themselves.
    """
    arrays = [x["content"]]
    arrays += [x["table"][None]] if "table" in x else []
    arrays += [] if padding is None else [padding[None]]
    # (channels, mean, sum of squared deviations), shapes broadcast to [B, m]
    parts = [(a.shape[-1], *moments(a.astype(jnp.float32))) for a in arrays if a.shape[-1]]
    if is_grid(tokens):
        outer, inner = tokens.position.factors()
        rows = x["moments"][0][:, :, None]  # [2, rows, 1]
        places = constant_moments(inner)[:, None]  # [2, 1, X]
        shape = 2, rows.shape[1], places.shape[2]
        for features, found in ((outer, rows), (inner, places)):
            parts.append((features.shape[-1], *jnp.broadcast_to(found, shape).reshape(2, 1, -1)))
    mean = sum(n * m for n, m, _ in parts) / tokens.width
    squares = sum(s + n * jnp.square(m - mean) for n, m, s in parts)
    r = jax.lax.rsqrt(squares / tokens.width + EPSILON)
    return jnp.broadcast_to(r, (r.shape[0], x["content"].shape[1]))


def padding_row(tokens: Tokens) -> jax.Array | None:
    """The padding channels, `[1, P]`."""
    return None if tokens.padding is None else tokens.padding[None]


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and sum of squared deviations over the last axis."""
    mean = jnp.mean(x, axis=-1)
    return mean, jnp.sum(jnp.square(x - mean[..., None]), axis=-1)


def constant_moments(x: np.ndarray) -> np.ndarray:
    """`moments` of a constant `[n, q]`, computed in float64: float32 `[2, n]`."""
    mean = x.mean(axis=-1, dtype=np.float64)
    return np.float32([mean, np.square(x - mean[:, None]).sum(axis=-1)])


@struct.dataclass
class Columns:
    """A matrix `[b, k, C]` that tokens are multiplied with, cut as a token is; b is 1 or B.

    On a grid the products with the positions are here instead: of its rows, and along a row.
    """

    content: jax.Array  # [b, k, c]
    table: jax.Array | None = None  # [b, k, p]
    constant: jax.Array | None = None  # [b, k], of the padding
    inner: jax.Array | None = None  # [b, k, X]


def columns(tokens: Tokens, matrix: jax.Array) -> tuple[Columns, jax.Array | None]:
    """Cuts `matrix [b, k, C]`; on a grid also its products with the rows' positions `[b, k, O]`."""
    position = tokens.position
    width = 0 if tokens.content is None else tokens.content.shape[-1]
    places = 0 if position is None else position.width
    content, place, padding = jnp.split(matrix, [width, width + places], axis=-1)
    constant = None
    if tokens.padding is not None:
        constant = exact("bkc,c->bk", padding, tokens.padding)
    if not is_grid(tokens):
        return Columns(content, place if places else None, constant), None
    pairs = zip(position.split(place), position.factors(), strict=True)
    rows, inner = (exact("bkc,nc->bkn", part, features) for part, features in pairs)
    return Columns(content, None, constant, inner), rows


def is_grid(tokens: Tokens) -> bool:
    """Whether the tokens' positions separate by axis."""
    return tokens.position is not None and tokens.position.separable


def token_data(tokens: Tokens, dtype: Any) -> dict[str, jax.Array]:
    """What chunks are cut from: content `[B, M, c]`, mask `[B, M]`, table `[M, p]`, and of a grid
    the `moments` of its rows' features `[1, 2, O]`."""
    content = tokens.content
    if content is None:
        content = jnp.zeros((1, tokens.num_tokens, 0))
    data = {"content": content.astype(dtype)}
    if tokens.mask is not None:
        data["mask"] = tokens.mask
    if is_grid(tokens):
        data["moments"] = jnp.asarray(constant_moments(tokens.position.factors()[0])[None])
    elif tokens.position is not None:
        data["table"] = tokens.position.table().astype(dtype)
    return data


def tokens_at_once(weights: int) -> int:
    """How many tokens with so many weights each have a chunk's weights together."""
    return budget() // (4 * weights)


def budget() -> int:
    """Bytes of weights that may exist at a time."""
    return _override().chunk_bytes or chunk_bytes()


def unit_of(tokens: Tokens) -> int:
    """How many tokens are never separated: a grid's row."""
    return tokens.position.shape[-1] if is_grid(tokens) else 1


def product(
    a: Columns, x: dict[str, jax.Array], rows: jax.Array | None, dtype, *, tokens_first: bool
) -> jax.Array:
    """matrix . token for the tokens of a chunk, not yet times r, float32.

    Args:
      rows: `[b, k, rows]`, a grid's products with the positions of the chunk's rows.
      tokens_first: whether the result is `[B or 1, m, k]` instead of `[B or 1, k, m]`.
    """
    to = "mk" if tokens_first else "km"
    content = x["content"]
    batch = max(a.content.shape[0], content.shape[0])
    left, right = a.content.astype(dtype), content
    if rows is not None and dtype == jnp.float32:  # as more channels: one pass over memory less
        ones = row_indicator(rows.shape[-1], content.shape[1] // rows.shape[-1])
        left = jnp.concatenate([spread(left, batch), spread(rows, batch)], axis=-1)
        right = jnp.concatenate([spread(right, batch), spread(ones[None], batch)], axis=-1)
    result = dot(f"bkc,bmc->b{to}", spread(left, batch), spread(right, batch))
    if rows is not None and not tokens_first and a.inner.shape[-1] == result.shape[-1]:
        result = result + a.inner  # see `tile`
    elif rows is not None:

        def place(axis, x):  # [b, k, n] into the grid [b, rows, X, k] or [b, k, rows, X]
            return jnp.expand_dims(x.swapaxes(1, 2) if tokens_first else x, axis)

        shape = [rows.shape[-1], a.inner.shape[-1]]
        shape = [*shape, result.shape[2]] if tokens_first else [result.shape[1], *shape]
        grid = result.reshape(-1, *shape) + place(1 if tokens_first else 2, a.inner)
        if dtype != jnp.float32:
            grid = grid + place(2 if tokens_first else 3, rows)
        result = grid.reshape(result.shape)
    if a.table is not None:
        result = result + dot(f"bkp,mp->b{to}", a.table.astype(dtype), x["table"])
    if a.constant is not None:
        result = result + jnp.expand_dims(a.constant, 1 if tokens_first else 2)
    return result


def tile(params: Any, batch: int, rows: int, dtype) -> Any:
    """Params whose products along a row are repeated, once, for all examples and rows of a chunk.

    A CPU adds arrays of one shape several times as fast as a row to each row, and likewise the
    gradient's sums over examples and rows are taken once, at the end.
    """
    if dtype != jnp.float32:  # see `product`
        return params

    def repeat(a):
        if not isinstance(a, Columns) or a.inner is None:
            return a
        return a.replace(inner=jnp.tile(spread(a.inner, batch), (1, 1, rows)))

    return jax.tree.map(repeat, params, is_leaf=lambda a: isinstance(a, Columns))


def spread(x: jax.Array, batch: int) -> jax.Array:
    """`[1 or batch, ...]` -> `[batch, ...]`."""
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))


def row_indicator(rows: int, length: int) -> np.ndarray:
    """Which row of a grid each token is in, float32 `[rows length, rows]` of 0 and 1."""
    return np.repeat(np.eye(rows, dtype=np.float32), length, axis=0)


class Step(NamedTuple):
    """One of the two products, ready to be taken chunk by chunk."""

    params: Any
    rows: jax.Array | None  # a grid's products with its rows' positions, [b, k, O]
    apply: Callable


def scores(
    few: jax.Array, tokens: Tokens, kernel: jax.Array, order: str, dtype, *, tokens_first: bool
) -> Step:
    """few . (r x W'): `apply(params, chunk, rows)` gives float32 `[B, H, N, m]`.

    Args:
      few: `[b, H, N, K]`, scaled queries where tokens are read, keys where they ask.
      kernel: W' `[C, H, K]`.
      order: 'form' or 'move'.
      tokens_first: whether `apply` gives `[B, H, m, N]` instead.
    """
    heads, count = few.shape[1:3]
    if order == "move":
        matrix = exact("bhnk,chk->bhnc", few, kernel).reshape(few.shape[0], -1, kernel.shape[0])
        cut, rows = columns(tokens, matrix)

        def apply(params, x, rows):
            result = scaled_product(params, x, rows, dtype, tokens_first=tokens_first)
            if tokens_first:
                return result.reshape(*result.shape[:2], heads, count).swapaxes(1, 2)
            return result.reshape(result.shape[0], heads, count, -1)

        return Step(cut, rows, apply)

    cut, rows = columns(tokens, kernel.reshape(1, kernel.shape[0], -1).swapaxes(1, 2))

    def apply(params, x, rows):
        few, cut = params
        formed = form(cut, x, rows, heads, dtype, tokens_first=tokens_first)
        batch = max(few.shape[0], formed.shape[0])
        few, formed = spread(few.astype(dtype), batch), spread(formed, batch)
        if tokens_first:
            return dot("bhmk,bhnk->bhmn", formed, few)
        return dot("bhnk,bhkm->bhnm", few, formed)

    return Step((few, cut), rows, apply)


def scaled_product(a: Columns, x: dict, rows, dtype, *, tokens_first: bool) -> jax.Array:
    """`product` times r."""
    scale = x["scale"][..., None] if tokens_first else x["scale"][:, None]
    return product(a, x, rows, dtype, tokens_first=tokens_first) * scale


def form(cut: Columns, x: dict, rows, heads: int, dtype, *, tokens_first: bool) -> jax.Array:
    """r x W' of a chunk's tokens, `[B or 1, H, K, m]`, or tokens first `[B or 1, H, m, K]`."""
    formed = scaled_product(cut, x, rows, dtype, tokens_first=tokens_first).astype(dtype)
    if tokens_first:
        return formed.reshape(*formed.shape[:2], heads, -1).swapaxes(1, 2)
    return formed.reshape(formed.shape[0], heads, -1, formed.shape[-1])


def sums(tokens: Tokens, kernel: jax.Array, order: str, dtype) -> tuple[Step, Callable]:
    """The weighted sum of values r x W' of tokens, in two halves.

    Args:
      kernel: W' `[C, H, V]`.
      order: 'form' or 'move'.

    Returns:
      (a step whose `apply(params, chunk, rows, weights)` for weights `[B, H, N, m]` gives what adds
      up over chunks and what stays by row of a grid; `value(totals, by_row)`, which makes
      `[B, H, N, V]` of both).
    """
    heads = kernel.shape[1]
    if order == "form":
        cut, rows = columns(tokens, kernel.reshape(1, kernel.shape[0], -1).swapaxes(1, 2))

        def apply(params, x, rows, weights):
            formed = form(params, x, rows, heads, dtype, tokens_first=False)
            formed = spread(formed, weights.shape[0])
            value = dot("bhnm,bhvm->bhnv", weights.astype(dtype), formed)
            return {"normalizer": jnp.sum(weights, axis=-1), "value": value}, None

        return Step(cut, rows, apply), lambda totals, by_row: totals["value"]

    grid = is_grid(tokens)

    def apply(params, x, rows, weights):
        shape, size = weights.shape[:3], weights.shape[3]
        batch, length = shape[0], tokens.position.shape[-1] if grid else 1
        weights = weights.reshape(batch, -1, size)  # [B, R, m]
        scale = x["scale"]
        scaled = weights * scale[:, None]
        channels = [x["content"] * scale[..., None].astype(dtype)]
        width = channels[0].shape[-1]
        one_pass = dtype == jnp.float32
        if one_pass:  # also the normalizer and the sums over rows, as more channels
            channels.append(jnp.ones_like(scale)[..., None])
            if grid:
                channels.append(row_indicator(size // length, length)[None] * scale[..., None])
        channels = jnp.concatenate([spread(c, batch) for c in channels], axis=-1)
        found = dot("brm,bmc->brc", weights.astype(dtype), channels)
        total = {"content": found[..., :width], "normalizer": found[..., width : width + 1]}
        by_row = None
        if not one_pass:
            total["normalizer"] = jnp.sum(weights, axis=-1)
        if grid:
            total["inner"] = scaled  # summed over a chunk's rows in the end, see `tile`
            by_row = found[..., width + 1 :]
            if not one_pass:
                by_place = scaled.reshape(batch, weights.shape[1], -1, length)
                total["inner"], by_row = jnp.sum(by_place, axis=2), jnp.sum(by_place, axis=3)
            by_row = by_row.reshape(*shape, -1)
        if "table" in x:
            total["table"] = dot("brm,mp->brp", scaled.astype(dtype), x["table"])
        if tokens.padding is not None:
            total["scale"] = jnp.sum(scaled, axis=-1)
        total = {name: sums.reshape(*shape, -1) for name, sums in total.items()}
        return total | {"normalizer": total["normalizer"][..., 0]}, by_row

    return Step(None, None, apply), functools.partial(value_of_sums, tokens, kernel)


def value_of_sums(tokens: Tokens, kernel: jax.Array, totals: dict, by_row) -> jax.Array:
    """W' applied to sum_j w_ij r_j x_j, which is put together of its parts: `[B, H, N, V]`."""
    parts = [totals["content"]]
    if is_grid(tokens):
        outer, inner = tokens.position.factors()
        outer = exact("bhno,oc->bhnc", by_row, outer)
        inner = exact("bhnx,xc->bhnc", totals["inner"], inner)
        parts.append(tokens.position.join(outer, inner))
    if "table" in totals:
        parts.append(totals["table"])
    if tokens.padding is not None:
        parts.append(totals["scale"] * tokens.padding[None, None, None])
    return exact("bhnc,chv->bhnv", jnp.concatenate(parts, axis=-1), kernel)


def read_set(query: jax.Array, tokens: Tokens, key: Folded, value: Folded, dtype) -> Partial:
    """Attention of `query` `[b, H, N, K]`, scaled, over one set of tokens.

    Offsets are left out: those of the keys change nothing, those of the values are added at last.
    Where the weights of one unit are too many, some queries read after others.
    """
    data = token_data(tokens, dtype)
    batch = batch_of(query, data)
    order = choose(tokens, batch, query.shape, value.kernel.shape[-1])
    read = functools.partial(
        read_set_at_once, tokens=tokens, data=data, key=key, value=value, order=order, dtype=dtype
    )
    groups = query_groups(tokens, batch, query.shape) if order == Order("move", "move") else 1
    if groups == 1:
        return read(query)
    # Not a loop of the program, whose gradient would keep the tokens once for each group.
    results = [read(piece) for piece in jnp.split(query, groups, axis=2)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=2), *results)


def query_groups(tokens: Tokens, batch: int, query: Sequence[int]) -> int:
    """Into how many equal groups queries `[b, H, N, K]` are cut, for a unit's weights to fit."""
    _, heads, count, _ = query
    weights = sharded.examples_at_hand(batch) * heads * count * unit_of(tokens)
    return divisor(count, 4 * weights / budget())


def read_set_at_once(
    query: jax.Array,
    *,
    tokens: Tokens,
    data: dict[str, jax.Array],
    key: Folded,
    value: Folded,
    order: Order,
    dtype: Any,
) -> Partial:
    """`read_set` of all `query` together; `data` is the tokens' `token_data`."""
    heads, count = query.shape[1:3]
    unit, batch = unit_of(tokens), batch_of(query, data)
    first = scores(query, tokens, key.kernel, order.first, dtype, tokens_first=False)
    second, finish_value = sums(tokens, value.kernel, order.second, dtype)
    rows = ("rows1", first.rows), ("rows2", second.rows)
    data = data | {name: x for name, x in rows if x is not None}

    def with_scale(params, x):
        return x | {"scale": inverse_deviation(tokens, x, params[2])}

    def logits(params, x):
        x = with_scale(params, x)
        result = first.apply(params[0], x, x.get("rows1"))
        if "mask" in x:
            result = jnp.where(x["mask"][:, None, None], result, MASKED)
        return result

    def weighted(params, x, logits, maximum):
        x = with_scale(params, x)
        weights = jnp.exp(logits - maximum[..., None])
        if "mask" in x:
            weights = jnp.where(x["mask"][:, None, None], weights, 0.0)
        return second.apply(params[1], x, x.get("rows2"), weights)

    def reduce(params, data):
        batch = batch_of(params, data)
        parts = []
        at_once = tokens_at_once(sharded.examples_at_hand(batch) * heads * count)
        for part in cut(data, unit, at_once):
            tiled = tile(params, batch, part.size, dtype)
            maximum, totals, by_row = stream(logits, weighted, part, tiled, data)
            if "inner" in totals:  # the sums along rows, see `tile`
                inner = totals["inner"].reshape(*by_row.shape[:3], -1, unit)
                totals |= {"inner": jnp.sum(inner, axis=3)}
            parts.append((maximum, totals, by_row))
        return functools.reduce(join, parts)

    params = first.params, second.params, padding_row(tokens)
    maximum, totals, by_row = sharded.read(
        reduce, params, data, {n: token_axis(n, unit) for n in data}, batch
    )
    return Partial(maximum, totals["normalizer"], finish_value(totals, by_row))


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
        batch = sharded.examples_at_hand(batch_of(params, data))
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


def widths(tokens: Tokens) -> tuple[int, int, int]:
    """(c, s, C): channels that differ by example; multiplications by token for the rest; all."""
    content = 0 if tokens.content is None else tokens.content.shape[-1]
    places = 0 if tokens.position is None else tokens.position.width
    return content, 2 if is_grid(tokens) else places, tokens.width


def form_cost(tokens: Tokens, batch: int, heads: int, count: int, depth: int) -> int:
    """Multiplications of forming keys or values, and of `count` queries' products with them."""
    (c, s, _), total = widths(tokens), tokens.num_tokens
    return total * (batch * c + s) * heads * depth + batch * heads * count * total * depth


def first_costs(tokens: Tokens, batch: int, few: Sequence[int]) -> dict[str, int]:
    """Multiplications of the logits, `few` being `[b, H, N, K]`, in either order."""
    (c, s, width), total = widths(tokens), tokens.num_tokens
    b, heads, count, depth = few
    return {
        "form": form_cost(tokens, batch, heads, count, depth),
        "move": b * heads * count * depth * width + total * heads * count * (batch * c + b * s),
    }


def cheapest(costs: dict[str, int]) -> str:
    """The name of the least; the first of equals."""
    return min(costs, key=costs.get)


def choose(tokens: Tokens, batch: int, query: Sequence[int], depth: int) -> Order:
    """The order of the products that multiplies least, for reading `tokens`.

    Args:
      tokens: what is read.
      batch: B.
      query: `[b, H, N, K]`.
      depth: V.
    """
    if isinstance(order := _override().order, Order):
        return order
    (c, s, width), total = widths(tokens), tokens.num_tokens
    _, heads, count, _ = query
    pairs = batch * heads * count
    second = {
        "form": form_cost(tokens, batch, heads, count, depth),
        "move": pairs * width * depth + pairs * total * (c + s),
    }
    return Order(cheapest(first_costs(tokens, batch, query)), cheapest(second))


def choose_answer(queries: Tokens, keys: Sequence[int], depth: int, out: int) -> Order:
    """The order of the products that multiplies least, for answering `queries`.

    Args:
      queries: what is answered.
      keys: `[B, H, N, K]`.
      depth: V.
      out: channels of the output projection, F.
    """
    if isinstance(order := _override().order, Order):
        return order
    batch, heads, count, _ = keys
    pairs, total = batch * heads * count, queries.num_tokens
    second = {
        "form": pairs * total * depth + batch * total * heads * depth * out,
        "move": pairs * depth * out + pairs * total * out,
    }
    return Order(cheapest(first_costs(queries, batch, keys)), cheapest(second))
