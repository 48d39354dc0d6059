"""How `kernel` lays out a grid of tokens and the two factors of its logits, on a TPU and a GPU.

Tokens are on lanes. `fold` rows of the grid, side by side and filled up to a multiple of 128 lanes,
are a block; `steps` blocks are a group, whose rows share one left factor. Left times right is a
logit without `inner` and r:

    left  [N, K]: [a in parts, 1 for the mask, 0.. | products with the group's rows in parts, 0..]
    right [K, W]: [content per part, mask,     0.. | indicator of each row per part,          0..]
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128  # of a vector register; also the depth of a matrix unit
SUBLANES = 16  # of a bfloat16 tile
MAX_QUERIES = 256  # rows of weights at a time; each loads right into the matrix unit again
MAX_LANES = 1024  # of a block of several rows
ABSENT = -2e30  # of an absent token, far below `softmax.MASKED`, where the running max begins


class Factors:
    """What both layouts below compute from their fields."""

    @property
    def padded_count(self) -> int:
        """N filled up to a multiple of `queries`."""
        return up(self.count, self.queries)

    @property
    def dtype(self) -> jnp.dtype:
        """Of the factors of products."""
        return jnp.dtype(jnp.bfloat16 if self.half else jnp.float32)


@dataclasses.dataclass(frozen=True)
class Tiling(Factors):
    """The layout for one shape.

    Attributes:
      count: N, rows of weights.
      channels: c of the content.
      shape: (O, X), rows of the grid and tokens in a row.
      masked: whether there is a mask.
      half: whether the matrix unit multiplies bfloat16 numbers, else float32.
      vmem: bytes of fast memory that a program may use.
      fold: rows of the grid in a block.
      steps: blocks of a group.
    """

    count: int
    channels: int
    shape: tuple[int, int]
    masked: bool
    half: bool
    vmem: int
    fold: int = 1
    steps: int = 1

    @property
    def lanes(self) -> int:
        """W of a block."""
        return up(self.fold * self.shape[1], LANES)

    @property
    def groups(self) -> int:
        return -(-self.shape[0] // (self.fold * self.steps))

    @property
    def rows(self) -> int:
        """Rows of the grid in a group."""
        return self.fold * self.steps

    @property
    def tokens(self) -> int:
        """Tokens with the absent ones that fill up blocks and groups."""
        return self.groups * self.steps * self.lanes

    @property
    def has_absent(self) -> bool:
        return self.masked or self.tokens > self.shape[0] * self.shape[1]

    @property
    def copies(self) -> int:
        """Parts of a, and of weights for their sums: two if there is little content.

        Much content is rounded in the logits, so that exact sums would gain nothing.
        """
        return 2 if self.half and 2 * self.channels < SUBLANES else 1

    @property
    def row_parts(self) -> int:
        """Numbers whose sum is a product with a row."""
        return 3 if self.half else 1

    @property
    def content_depth(self) -> int:
        """K of content and mask."""
        return max(up(self.copies * self.channels + self.has_absent, SUBLANES), SUBLANES)

    @property
    def depth(self) -> int:
        """K."""
        return self.content_depth + up(self.row_parts * self.rows, SUBLANES)

    @property
    def queries(self) -> int:
        """Rows of weights at a time."""
        return up(-(-self.count // -(-self.count // MAX_QUERIES)), SUBLANES)

    @property
    def vmem_bytes(self) -> int:
        """An estimate for the backward pass: all blocks twice, and intermediates."""
        count, depth, size = self.padded_count, up(self.depth, LANES), self.dtype.itemsize
        blocks = 3 * 4 * count * self.lanes  # inner and its two gradients
        blocks += count * depth * (2 * size + 4) + 4 * count * LANES
        blocks += self.lanes * (self.depth * size + 4 * self.content_depth + 64)
        return 2 * blocks + 12 * 4 * self.queries * self.lanes

    def left(self, a: jax.Array, rows: jax.Array, *, mask: bool) -> jax.Array:
        """`[b, G, N, K]` of a `[b, N, c]` and rows `[b, N, O]`, N filled up."""
        shape = a.shape[0], self.groups, self.count
        parts = [*split_parts(a, self.copies, self.dtype)]
        if self.has_absent:
            parts.append(jnp.full((*a.shape[:2], 1), float(mask), self.dtype))
        content = pad(jnp.concatenate(parts, axis=-1), -1, self.content_depth)[:, None]
        rows = pad(rows, -1, self.groups * self.rows)
        rows = rows.reshape(*rows.shape[:2], self.groups, self.rows).swapaxes(1, 2)
        rows = jnp.concatenate(split_parts(rows, self.row_parts, self.dtype), axis=-1)
        rows = pad(rows, -1, self.depth - self.content_depth)
        content = jnp.broadcast_to(content, (*shape, self.content_depth))
        return self.fill(jnp.concatenate([content, rows], axis=-1), 2)

    def right(self, content: jax.Array, mask: jax.Array | None) -> jax.Array:
        """`[B, K of content, tokens]`: content `[B, M, c]`, for each part of a, and the mask."""
        columns = [self.fold_tokens(content.swapaxes(1, 2), 0)] * self.copies
        if self.has_absent:
            if mask is None:
                mask = jnp.ones((1, content.shape[1]), bool)
            columns.append(self.fold_tokens(jnp.where(mask, 0.0, ABSENT)[:, None], ABSENT))
        batch = max(x.shape[0] for x in columns)
        columns = [jnp.broadcast_to(x, (batch, *x.shape[1:])).astype(self.dtype) for x in columns]
        return pad(jnp.concatenate(columns, axis=1), 1, self.content_depth)

    def indicator(self) -> np.ndarray:
        """`[steps, K of rows, W]`: which of the group's rows each token of a block is in."""
        row = np.arange(self.lanes) // self.shape[1]  # in the block
        row = np.where(row < self.fold, row, self.rows)
        starts = self.fold * np.arange(self.steps)[:, None]
        found = (
            np.arange(self.rows)[None, :, None]
            == np.where(row < self.fold, row + starts, self.rows)[:, None]
        )
        found = np.tile(found, (1, self.row_parts, 1))
        fill = self.depth - self.content_depth - found.shape[1]
        return np.pad(found, ((0, 0), (0, fill), (0, 0))).astype(self.dtype)

    def fold_tokens(self, x: jax.Array, fill: float) -> jax.Array:
        """`[.., M]` -> `[.., tokens]`, filled up with `fill`."""
        outer, inner = self.shape
        x = pad(x.reshape(*x.shape[:-1], outer, inner), -2, self.groups * self.rows, fill)
        x = x.reshape(*x.shape[:-2], self.groups * self.steps, self.fold * inner)
        return pad(x, -1, self.lanes, fill).reshape(*x.shape[:-2], self.tokens)

    def unfold_tokens(self, x: jax.Array) -> jax.Array:
        """The inverse of `fold_tokens`."""
        outer, inner = self.shape
        x = x.reshape(*x.shape[:-1], self.groups * self.steps, self.lanes)
        x = x[..., : self.fold * inner]
        x = x.reshape(*x.shape[:-2], self.groups * self.rows * inner)
        return x[..., : outer * inner]

    def fold_places(self, x: jax.Array) -> jax.Array:
        """`[b, N, X]` -> `[b, N, W]` for every row of a block, N filled up."""
        return self.fill(pad(jnp.tile(x, (1, 1, self.fold)), -1, self.lanes), 1)

    def sum_places(self, x: jax.Array) -> jax.Array:
        """The transpose of `fold_places`."""
        x = x[:, : self.count, : self.fold * self.shape[1]]
        return jnp.sum(x.reshape(*x.shape[:2], self.fold, -1), axis=2)

    def split_sums(self, sums: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`[B, G, N, K]` -> sums by content `[B, N, c]` and by row `[B, N, O]`."""
        sums = sums[:, :, : self.count]
        content = jnp.sum(sums[..., : self.channels], axis=1)
        rows = sums[..., self.content_depth :][..., : self.rows].swapaxes(1, 2)
        return content, rows.reshape(*content.shape[:2], -1)[..., : self.shape[0]]

    def fill(self, x: jax.Array, axis: int) -> jax.Array:
        """N filled up with zeros."""
        return pad(x, axis, self.padded_count)


def choose_tiling(
    count: int, channels: int, shape: tuple[int, int], *, masked: bool, half: bool, vmem: int
) -> Tiling | None:
    """The layout with the fewest lanes; None if none fits into `vmem` bytes. Args: see `Tiling`."""
    fitting = []
    for fold in range(1, shape[0] + 1):
        tiling = Tiling(count, channels, shape, masked, half, vmem, fold)
        if fold > 1 and (tiling.lanes > MAX_LANES or tiling.depth > up(tiling.content_depth, 128)):
            break
        depth = up(tiling.depth, LANES)
        every = (dataclasses.replace(tiling, steps=n) for n in range(1, tiling.groups + 1))
        every = itertools.takewhile(lambda t: t.depth <= depth, every)  # noqa: B023
        fitting += [t for t in every if t.vmem_bytes <= vmem]
    return min(fitting, key=lambda t: (t.tokens, t.groups, -t.lanes), default=None)


@dataclasses.dataclass(frozen=True)
class GpuTiling(Factors):
    """What a program of `gpu` has: blocks of queries and of columns, and rows that it goes through.

    Sizes of blocks are powers of 2, as Triton wants, and at least 16, as tensor cores do.

    Attributes: as `Tiling`, and
      queries: of a block; a program has about 30 numbers of a query and column in registers.
      width: columns of a block.
      splits: parts of the rows, so that few examples keep all processors busy.
    """

    count: int
    channels: int
    shape: tuple[int, int]
    half: bool
    queries: int = 64
    width: int = 32
    splits: int = 1

    @property
    def columns(self) -> int:
        """Blocks of columns."""
        return -(-self.shape[1] // self.width)

    @property
    def tokens(self) -> int:
        """Tokens with the absent ones that fill up blocks."""
        return self.splits * self.rows * self.columns * self.width

    @property
    def rows(self) -> int:
        """Rows of the grid that a program goes through."""
        return -(-self.shape[0] // self.splits)

    @property
    def copies(self) -> int:
        """Parts of a, and of weights for their sums: two if there is little content."""
        return 2 if self.half and 2 * self.channels <= SUBLANES else 1

    @property
    def depth(self) -> int:
        """Channels of all parts."""
        return max(1 << (self.copies * self.channels - 1).bit_length(), SUBLANES)


def choose_gpu_tiling(
    count: int, channels: int, shape: tuple[int, int], *, half: bool, batch: int, processors: int
) -> GpuTiling | None:
    """The layout for one shape; None for much content in float32, whose products are slow.

    Args:
      count, channels, shape, half: see `Tiling`.
      batch: examples of a device.
      processors: of a device; each should have a few programs.
    """
    tiling = GpuTiling(count, channels, shape, half)
    if not half and tiling.depth > SUBLANES:
        return None
    programs = batch * tiling.padded_count // tiling.queries * tiling.columns
    return dataclasses.replace(tiling, splits=min(max(4 * processors // programs, 1), shape[0]))


def split_parts(x: jax.Array, parts: int, dtype: jnp.dtype) -> list[jax.Array]:
    """Numbers of `dtype` whose sum is x up to rounding.

    The compiler may drop a conversion to bfloat16 and back, but not `reduce_precision`.
    """
    found = []
    for _ in range(parts):
        part = x
        if dtype == jnp.bfloat16:
            part = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        found.append(part.astype(dtype))
        x = x - part
    return found


def pad(x: jax.Array, axis: int, size: int, fill: float = 0) -> jax.Array:
    """x with an axis filled up to `size`."""
    if x.shape[axis] == size:
        return x
    pads = [(0, 0)] * x.ndim
    pads[axis] = 0, size - x.shape[axis]
    return jnp.pad(x, pads, constant_values=fill)


def up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
