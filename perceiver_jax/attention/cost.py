"""In which order cross-attention contracts: the one that multiplies least, counted from shapes.

The orders are those of `cross`. `kernel_tiling` says where a platform has a kernel for one.
`forced` overrules both choices in tests and benchmarks.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver_jax import mesh
from perceiver_jax.attention import platforms
from perceiver_jax.attention.blockwise import forced_chunk_bytes
from perceiver_jax.attention.factored import is_grid
from perceiver_jax.attention.kernel.tiling import (
    GpuTiling,
    Tiling,
    choose_gpu_tiling,
    choose_tiling,
)
from perceiver_jax.tokens import Tokens


class ContractionOrder(NamedTuple):
    """'project' or 'absorb', for the logits and for the weighted sum of values; see `cross`."""

    logits: str
    values: str


ABSORB = ContractionOrder("absorb", "absorb")

KERNELS = {"kernel": "tpu", "gpu_kernel": "gpu"}  # the platforms that `forced` names

MAX_LANES_A_TOKEN = 1.5  # of the kernel; a grid that needs more wastes too many
MIN_WEIGHTS = 2**20  # of an example; where there are fewer, there is little to gain

_forced = contextvars.ContextVar("forced", default=None)


@contextlib.contextmanager
def forced(
    order: ContractionOrder | str | None = None, *, chunk_bytes: int | None = None
) -> Iterator[None]:
    """Overrules the choice of order for functions *traced* inside; for tests and benchmarks.

    Args:
      order: 'dense' is the textbook formula; a `ContractionOrder`, without a kernel; 'kernel' and
        'gpu_kernel', a TPU's and a GPU's, where shapes fit, interpreted elsewhere; None chooses.
      chunk_bytes: in place of `platforms.CHUNK_BYTES`.
    """
    token = _forced.set(order)
    try:
        with forced_chunk_bytes(chunk_bytes):
            yield
    finally:
        _forced.reset(token)


def dense_forced() -> bool:
    """Whether the textbook formula is asked for."""
    return _forced.get() == "dense"


def encode_order(tokens: Tokens, batch: int, query: Sequence[int], depth: int) -> ContractionOrder:
    """The order that multiplies least, for few queries that attend to many tokens.

    Args:
      tokens: the many.
      batch: B.
      query: `[b, H, N, K]`.
      depth: V.
    """
    if isinstance(order := _forced.get(), ContractionOrder):
        return order
    if order in KERNELS and is_grid(tokens):
        return ABSORB
    (c, s, width), total = _widths(tokens), tokens.num_tokens
    _, heads, count, _ = query
    rows = batch * heads * count
    values = {
        "project": _project_cost(tokens, batch, heads, count, depth),
        "absorb": rows * width * depth + rows * total * (c + s),
    }
    return ContractionOrder(_cheapest(_logit_costs(tokens, batch, query)), _cheapest(values))


def kernel_tiling(
    tokens: Tokens, order: ContractionOrder, rows: int, outer: int, dtype: Any, batch: int
) -> Tiling | GpuTiling | None:
    """How `kernel` encodes these tokens; None where XLA's program does, as on a CPU.

    Args:
      tokens: the many.
      order: of `encode_order`.
      rows: of weights, H N.
      outer: rows of the grid that a device has.
      dtype: compute dtype.
      batch: examples that a device has.
    """
    forced, layout = _forced.get(), mesh.current_layout()
    platform = KERNELS.get(forced)
    if forced is None and (platforms.has_pallas() or platforms.has_gpu_kernel()):
        platform = mesh.platform()
    by_kernel = platform and order == ABSORB and is_grid(tokens)
    if not by_kernel or dtype not in (jnp.float32, jnp.bfloat16):
        return None
    if layout and not layout.local and jax.sharding.get_abstract_mesh().manual_axes:
        return None  # `sharded` cannot split what a caller has split
    inner = tokens.position.shape[-1]
    shape = rows, _widths(tokens)[0], (outer, inner)
    half = dtype == jnp.bfloat16
    if platform == "gpu":
        tiling = choose_gpu_tiling(
            *shape, half=half, batch=batch, processors=platforms.GPU_PROCESSORS
        )
    else:
        masked, vmem = tokens.mask is not None, platforms.kernel_bytes()
        tiling = choose_tiling(*shape, masked=masked, half=half, vmem=vmem)
    fills = tiling and tiling.tokens <= MAX_LANES_A_TOKEN * outer * inner
    worth = fills and rows * outer * inner >= MIN_WEIGHTS
    return tiling if worth or forced in KERNELS else None


def decode_order(queries: Tokens, keys: Sequence[int], depth: int, out: int) -> ContractionOrder:
    """The order that multiplies least, for many queries that attend to few keys.

    Args:
      queries: the many.
      keys: `[B, H, N, K]`.
      depth: V.
      out: channels of the output projection, F.
    """
    if isinstance(order := _forced.get(), ContractionOrder):
        return order
    batch, heads, count, _ = keys
    rows, total = batch * heads * count, queries.num_tokens
    values = {
        "project": rows * total * depth + batch * total * heads * depth * out,
        "absorb": rows * depth * out + rows * total * out,
    }
    return ContractionOrder(_cheapest(_logit_costs(queries, batch, keys)), _cheapest(values))


def is_head_fused(rows: int, hidden: int, widths: Sequence[int]) -> bool:
    """Whether `folding.fuse_head` and its result multiply less than one layer after the other.

    Args:
      rows: decoded outputs of all examples.
      hidden: width of the MLP's hidden layer.
      widths: of the MLP's output, and behind each projection of the head.
    """
    first, last = widths[0], widths[-1]
    products = [a * b for a, b in itertools.pairwise(widths)]
    fusing = first * sum(products[1:]) + hidden * first * last
    return fusing + rows * (hidden + first) * last < rows * (hidden * first + sum(products))


def _widths(tokens: Tokens) -> tuple[int, int, int]:
    """(channels that differ by example; multiplications a token for the others; all channels)."""
    content = 0 if tokens.content is None else tokens.content.shape[-1]
    places = 0 if tokens.position is None else tokens.position.width
    return content, 2 if is_grid(tokens) else places, tokens.width


def _project_cost(tokens: Tokens, batch: int, heads: int, count: int, depth: int) -> int:
    """Multiplications of projecting tokens to keys or values, and of `count` rows with these."""
    (c, s, _), total = _widths(tokens), tokens.num_tokens
    return total * (batch * c + s) * heads * depth + batch * heads * count * total * depth


def _logit_costs(tokens: Tokens, batch: int, few: Sequence[int]) -> dict[str, int]:
    """Multiplications of the logits in either order; `few` is the shape `[b, H, N, K]`."""
    (c, s, width), total = _widths(tokens), tokens.num_tokens
    b, heads, count, depth = few
    return {
        "project": _project_cost(tokens, batch, heads, count, depth),
        "absorb": b * heads * count * depth * width + total * heads * count * (batch * c + b * s),
    }


def _cheapest(costs: dict[str, int]) -> str:
    """The name of the least; the first of equals."""
    return min(costs, key=costs.get)
