"""In which order cross-attention multiplies, and how much at a time: from shapes, or forced.

The orders are those of `strategies`.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perceiver_jax.attention.factored import is_grid
from perceiver_jax.attention.self_attention import chunk_bytes
from perceiver_jax.tokens import Tokens


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


def tokens_at_once(weights: int) -> int:
    """How many tokens with so many weights each have a chunk's weights together."""
    return budget() // (4 * weights)


def budget() -> int:
    """Bytes of weights that may exist at a time."""
    return _override().chunk_bytes or chunk_bytes()


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


def is_head_folded(rows: int, hidden: int, widths: Sequence[int]) -> bool:
    """Whether `products.fold_head` and what it gives multiply less than one layer after the other.

    Args:
      rows: answers of all examples.
      hidden: width of the MLP's hidden layer.
      widths: of the answers, and behind each product of the head.
    """
    first, last = widths[0], widths[-1]
    products = [a * b for a, b in itertools.pairwise(widths)]
    folding = first * sum(products[1:]) + hidden * first * last
    return folding + rows * (hidden + first) * last < rows * (hidden * first + sum(products))


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
