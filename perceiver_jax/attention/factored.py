"""Contractions with tokens whose content and position are kept apart.

`contract_logits` gives few . (r x W'), `contract_values` weighted sums of r x W', each in either
order; `cross` explains the orders and the symbols. The file is long because each part of a token
(content, table, grid, padding) has its product here, in both orders.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from perceiver_jax.attention.blockwise import ALL, Chunks, divisor
from perceiver_jax.attention.folding import dot, exact
from perceiver_jax.attention.self_attention import EPSILON
from perceiver_jax.position import add_angles
from perceiver_jax.tokens import Tokens

MAX_UNROLLED = 8  # channels whose moments are summed one by one, in one pass over memory


def inverse_deviation(
    tokens: Tokens, x: dict[str, jax.Array], padding: jax.Array | None, columns: slice = ALL
) -> jax.Array:
    """r = 1 / sqrt(variance + epsilon) over each token's channels, float32 `[B or 1, m]`.

    The parts' means and squared deviations are joined, which subtracts no large numbers (Chan,
    Golub and LeVeque 1983).

    Args:
      tokens: all of them.
      x: `token_data` of a chunk, or of all.
      padding: `padding_row`. It is an argument because custom gradients differentiate arguments
        only (`blockwise.online_sums`, `sharded`).
      columns: the chunk's part of each row.
    """
    arrays = [x["content"]]
    arrays += [x["table"][None]] if "table" in x else []
    arrays += [] if padding is None else [padding[None]]
    # (channels, mean, sum of squared deviations), shapes broadcast to [B, m]
    parts = [(a.shape[-1], *moments(a.astype(jnp.float32))) for a in arrays if a.shape[-1]]
    if is_grid(tokens):
        outer, inner = tokens.position.factors()
        rows = x["moments"][0][:, :, None]  # [2, rows, 1]
        places = constant_moments(inner[columns])[:, None]  # [2, 1, columns]
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
    if x.shape[-1] <= MAX_UNROLLED:
        channels = [x[..., i] for i in range(x.shape[-1])]
        mean = sum(channels) / len(channels)
        return mean, sum(jnp.square(channel - mean) for channel in channels)
    mean = jnp.mean(x, axis=-1)
    return mean, jnp.sum(jnp.square(x - mean[..., None]), axis=-1)


def constant_moments(x: np.ndarray) -> np.ndarray:
    """`moments` of a constant `[n, q]`, computed in float64: float32 `[2, n]`."""
    mean = x.mean(axis=-1, dtype=np.float64)
    return np.float32([mean, np.square(x - mean[:, None]).sum(axis=-1)])


@struct.dataclass
class SplitKernel:
    """A matrix `[b, k, C]` to multiply tokens with, split into a token's parts; b is 1 or B.

    On a grid the part of the position is replaced by its products with the places in a row.
    """

    content: jax.Array  # [b, k, c]
    table: jax.Array | None = None  # [b, k, p]
    constant: jax.Array | None = None  # [b, k], of the padding
    inner: jax.Array | None = None  # [b, k, X]


def split_kernel(tokens: Tokens, matrix: jax.Array) -> tuple[SplitKernel, jax.Array | None]:
    """Splits `matrix [b, k, C]`; on a grid also gives its products with the rows `[b, k, O]`."""
    position = tokens.position
    width = 0 if tokens.content is None else tokens.content.shape[-1]
    places = 0 if position is None else position.width
    content, place, padding = jnp.split(matrix, [width, width + places], axis=-1)
    constant = None
    if tokens.padding is not None:
        constant = exact("bkc,c->bk", padding, tokens.padding)
    if not is_grid(tokens):
        return SplitKernel(content, place if places else None, constant), None
    pairs = zip(position.split(place), position.factors(), strict=True)
    rows, inner = (exact("bkc,nc->bkn", part, features) for part, features in pairs)
    return SplitKernel(content, None, constant, inner), rows


def is_grid(tokens: Tokens) -> bool:
    """Whether the tokens' positions separate by axis."""
    return tokens.position is not None and tokens.position.separable


def token_data(tokens: Tokens, dtype: Any) -> dict[str, jax.Array]:
    """The arrays that chunks are taken from: content `[B, M, c]`, mask `[B, M]`, table `[M, p]`.

    Instead of the table, a grid has the `moments` of its rows' features `[1, 2, O]`, and a long
    axis the `angles` of its blocks `[1, p, O]`.
    """
    content = tokens.content
    if content is None:
        content = jnp.zeros((1, tokens.num_tokens, 0))
    data = {"content": content.astype(dtype)}
    if tokens.mask is not None:
        data["mask"] = tokens.mask
    if is_grid(tokens):
        data["moments"] = jnp.asarray(constant_moments(tokens.position.factors()[0])[None])
    elif block_length(tokens):
        data["angles"] = jnp.asarray(tokens.position.block_angles(block_length(tokens))[0].T[None])
    elif tokens.position is not None:
        data["table"] = tokens.position.table().astype(dtype)
    return data


def block_length(tokens: Tokens) -> int:
    """How many tokens of a long axis share block angles, a divisor; 0 without such blocks."""
    if tokens.position is None or not tokens.position.long:
        return 0
    root = math.isqrt(tokens.num_tokens)
    length = divisor(tokens.num_tokens, root)
    return length if length <= 8 * root else 0


def with_table(
    tokens: Tokens, x: dict[str, jax.Array], dtype: Any, columns: slice = ALL
) -> dict[str, jax.Array]:
    """A chunk with its table of positions, which for a long axis exists for one chunk at a time."""
    if "angles" not in x:
        return x
    _, inner = tokens.position.block_angles(block_length(tokens))
    table = add_angles(x["angles"][0].T, jnp.asarray(inner[columns]))
    return x | {"table": jax.lax.stop_gradient(table).astype(dtype)}


def row_size(tokens: Tokens) -> int:
    """How many tokens a row has: a grid's row, a block of a long axis, or one token."""
    return tokens.position.shape[-1] if is_grid(tokens) else block_length(tokens) or 1


def product(
    a: SplitKernel, x: dict[str, jax.Array], rows: jax.Array | None, dtype, *, tokens_first: bool
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
    if rows is not None and dtype == jnp.float32:  # as channels: saves a pass over memory
        ones = row_indicator(rows.shape[-1], content.shape[1] // rows.shape[-1])
        left = jnp.concatenate([spread(left, batch), spread(rows, batch)], axis=-1)
        right = jnp.concatenate([spread(right, batch), spread(ones[None], batch)], axis=-1)
    result = dot(f"bkc,bmc->b{to}", spread(left, batch), spread(right, batch))
    if rows is not None and dtype == jnp.float32 and not tokens_first:
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


def tile(params: Any, batch: int, chunks: Chunks, dtype) -> Any:
    """Params with the products along a row in the shape that these chunks need.

    In float32 they are repeated, once, for all examples and rows of a chunk: a CPU adds arrays of
    one shape several times as fast as a row to each row. The gradient's sums over examples and rows
    are then taken once, at the end.
    """

    def fit(a):
        if not isinstance(a, SplitKernel) or a.inner is None:
            return a
        inner = a.inner[..., chunks.columns]
        if dtype == jnp.float32:  # see `product`
            inner = jnp.tile(spread(inner, batch), (1, 1, chunks.size))
        return a.replace(inner=inner)

    return jax.tree.map(fit, params, is_leaf=lambda a: isinstance(a, SplitKernel))


def spread(x: jax.Array, batch: int) -> jax.Array:
    """`[1 or batch, ...]` -> `[batch, ...]`."""
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))


def row_indicator(rows: int, length: int) -> np.ndarray:
    """Which row of a grid each token is in, float32 `[rows length, rows]` of 0 and 1."""
    return np.repeat(np.eye(rows, dtype=np.float32), length, axis=0)


class Contraction(NamedTuple):
    """One of the two contractions, ready to be taken chunk by chunk."""

    params: Any
    rows: jax.Array | None  # a grid's products with its rows' positions, [b, k, O]
    apply: Callable


def contract_logits(
    few: jax.Array, tokens: Tokens, kernel: jax.Array, order: str, dtype: Any, *, tokens_first: bool
) -> Contraction:
    """few . (r x W'): `apply(params, chunk, rows)` gives float32 `[B, H, N, m]`.

    Args:
      few: `[b, H, N, K]`, scaled: queries in `encode`, keys in `decode`.
      tokens: the many, whose layer norm is folded into the kernel.
      kernel: W' `[C, H, K]`.
      order: 'project' or 'absorb'.
      dtype: compute dtype.
      tokens_first: whether `apply` gives `[B, H, m, N]` instead.
    """
    heads, count = few.shape[1:3]
    if order == "absorb":
        matrix = exact("bhnk,chk->bhnc", few, kernel).reshape(few.shape[0], -1, kernel.shape[0])
        split, rows = split_kernel(tokens, matrix)

        def apply(params, x, rows):
            result = scaled_product(params, x, rows, dtype, tokens_first=tokens_first)
            if tokens_first:
                return result.reshape(*result.shape[:2], heads, count).swapaxes(1, 2)
            return result.reshape(result.shape[0], heads, count, -1)

        return Contraction(split, rows, apply)

    split, rows = split_kernel(tokens, kernel.reshape(1, kernel.shape[0], -1).swapaxes(1, 2))

    def apply(params, x, rows):
        few, split = params
        projected = project(split, x, rows, heads, dtype, tokens_first=tokens_first)
        batch = max(few.shape[0], projected.shape[0])
        few, projected = spread(few.astype(dtype), batch), spread(projected, batch)
        if tokens_first:
            return dot("bhmk,bhnk->bhmn", projected, few)
        return dot("bhnk,bhkm->bhnm", few, projected)

    return Contraction((few, split), rows, apply)


def scaled_product(a: SplitKernel, x: dict, rows, dtype, *, tokens_first: bool) -> jax.Array:
    """`product` times r."""
    scale = x["scale"][..., None] if tokens_first else x["scale"][:, None]
    return product(a, x, rows, dtype, tokens_first=tokens_first) * scale


def project(a: SplitKernel, x: dict, rows, heads: int, dtype, *, tokens_first: bool) -> jax.Array:
    """r x W' of a chunk's tokens, `[B or 1, H, K, m]`, or tokens first `[B or 1, H, m, K]`."""
    projected = scaled_product(a, x, rows, dtype, tokens_first=tokens_first).astype(dtype)
    if tokens_first:
        return projected.reshape(*projected.shape[:2], heads, -1).swapaxes(1, 2)
    return projected.reshape(projected.shape[0], heads, -1, projected.shape[-1])


def contract_values(
    tokens: Tokens, kernel: jax.Array, order: str, dtype: Any
) -> tuple[Contraction, Callable]:
    """The weighted sum of values r x W' of tokens, in two halves.

    Args:
      tokens: whose layer norm is folded into the kernel.
      kernel: W' `[C, H, V]`.
      order: 'project' or 'absorb'.
      dtype: compute dtype.

    Returns:
      A contraction whose `apply(params, chunk, rows, weights)` for weights `[B, H, N, m]` gives
      sums over the chunk and sums by row of a grid; a function that makes `[B, H, N, V]` of both.
    """
    if order == "absorb":
        apply = functools.partial(absorbed_sums, tokens, dtype)
        return Contraction(None, None, apply), functools.partial(project_sums, tokens, kernel)
    heads = kernel.shape[1]
    split, rows = split_kernel(tokens, kernel.reshape(1, kernel.shape[0], -1).swapaxes(1, 2))

    def apply(params, x, rows, weights):
        projected = project(params, x, rows, heads, dtype, tokens_first=False)
        projected = spread(projected, weights.shape[0])
        value = dot("bhnm,bhvm->bhnv", weights.astype(dtype), projected)
        return {"denominator": jnp.sum(weights, axis=-1), "value": value}, None

    return Contraction(split, rows, apply), lambda totals, by_row: totals["value"]


def absorbed_sums(tokens: Tokens, dtype: Any, _, x: dict, rows: None, weights: jax.Array) -> tuple:
    """Sums of weights times r x, part by part: (over a chunk, by row of a grid or None).

    In float32 the denominator and a grid's sums over rows are further channels of one product.
    """
    grid = is_grid(tokens)
    shape, size = weights.shape[:3], weights.shape[3]
    batch, length = shape[0], size // x["moments"].shape[-1] if grid else 1
    weights = weights.reshape(batch, -1, size)  # [B, R, m]
    scale = x["scale"]
    scaled = weights * scale[:, None]
    channels = [x["content"] * scale[..., None].astype(dtype)]
    width = channels[0].shape[-1]
    one_pass = dtype == jnp.float32
    if one_pass:
        channels.append(jnp.ones_like(scale)[..., None])
        if grid:
            channels.append(row_indicator(size // length, length)[None] * scale[..., None])
    channels = jnp.concatenate([spread(c, batch) for c in channels], axis=-1)
    found = dot("brm,bmc->brc", weights.astype(dtype), channels)
    total = {"content": found[..., :width], "denominator": found[..., width : width + 1]}
    by_row = None
    if not one_pass:
        total["denominator"] = jnp.sum(weights, axis=-1)
    if grid:
        total["inner"] = scaled  # summed over a chunk's rows at the end, see `tile`
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
    return total | {"denominator": total["denominator"][..., 0]}, by_row


def project_sums(tokens: Tokens, kernel: jax.Array, totals: dict, by_row) -> jax.Array:
    """Joins the parts of sum_j w_ij r_j x_j and projects it with W': `[B, H, N, V]`."""
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
