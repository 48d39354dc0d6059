"""Positions of tokens, described apart from their content.

A description is small (a grid's shape, or a table shared by the whole batch); `table()` is the
dense array that it stands for. No other module may depend on how positions are computed.

References: Perceiver (Jaegle et al. 2021) section 3.2; Perceiver IO (Jaegle et al. 2022) app. D.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MAX_DENSE_POINTS = 2**14  # of a single axis; the features of more are made block by block


@struct.dataclass
class Fourier:
    """Fourier features of points on a regular grid with linearly spaced frequency bands.

    Of n points on an axis, point i has the coordinate p = -1 + 2 i / (n - 1), both ends included,
    or without `endpoint` p = -1 + 2 i / n, as the released autoencoder asks for sub-sampled
    outputs. The features are

        [p_1 .. p_d, sin(pi f_1 p_1) .. sin(pi f_K p_d), cos(pi f_1 p_1) .. cos(pi f_K p_d)]

    with f = linspace(1, max_resolution / 2, K) per axis (Nyquist at the top) and axis-major order.

    Attributes:
      shape: points per axis, e.g. (height, width); tokens are in row-major order.
      num_bands: K.
      max_resolution: one sampling rate per axis; empty means `shape` itself.
      endpoint: whether the last point of an axis is at +1.
      indices: `[M]` flat indices of the tokens' points, in token order; None means all points.
    """

    shape: tuple[int, ...] = struct.field(pytree_node=False)
    num_bands: int = struct.field(pytree_node=False)
    max_resolution: tuple[int, ...] = struct.field(pytree_node=False, default=())
    endpoint: bool = struct.field(pytree_node=False, default=True)
    indices: jax.Array | None = None

    @property
    def num_tokens(self) -> int:
        return math.prod(self.shape) if self.indices is None else self.indices.shape[0]

    @property
    def width(self) -> int:
        return len(self.shape) * (2 * self.num_bands + 1)

    def axes(self) -> list[np.ndarray]:
        """Per axis, the features of its coordinates alone: float32 `[n, 1 + 2 K]` = [p, sin, cos].

        Computed in float64 and rounded once: in float32 the phase of band 112 has an error of
        2e-5.
        """
        resolution = self.max_resolution or self.shape
        if len(resolution) != len(self.shape):
            raise ValueError(
                f"max_resolution={resolution} needs one value for each axis of {self.shape}"
            )
        features = []
        for size, rate in zip(self.shape, resolution, strict=True):
            coordinate = np.linspace(-1.0, 1.0, size, endpoint=self.endpoint)[:, None]
            phase = np.pi * coordinate * np.linspace(1.0, rate / 2, self.num_bands)[None]
            parts = (coordinate, np.sin(phase), np.cos(phase))
            features.append(np.concatenate(parts, axis=1).astype(np.float32))
        return features

    @property
    def separable(self) -> bool:
        """Whether a product with the features is a sum over axes: a whole grid of two or more."""
        return self.indices is None and len(self.shape) > 1

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Features of all axes but the last, by row `[O, q]`, and of the last one, `[X, 1 + 2 K]`.

        A token's features are those of its row and those of its place in the row, as `join` does.
        """
        *outer, inner = self.axes()
        rows = np.indices(self.shape[:-1]).reshape(len(outer), -1)
        return np.concatenate([a[row] for a, row in zip(outer, rows, strict=True)], axis=1), inner

    def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`[..., width]` -> the channels of `factors`, `[..., q]` and `[..., 1 + 2 K]`."""
        axes = [x[..., self._channels(i)] for i in range(len(self.shape))]
        return jnp.concatenate(axes[:-1], axis=-1), axes[-1]

    def join(self, outer: jax.Array, inner: jax.Array) -> jax.Array:
        """What `split` splits: `[..., q]` and `[..., 1 + 2 K]` -> `[..., width]`."""
        order = np.concatenate([self._channels(i) for i in range(len(self.shape))])
        return jnp.concatenate([outer, inner], axis=-1)[..., np.argsort(order)]

    def _channels(self, axis: int) -> np.ndarray:
        """Which channels an axis has: [p, sin, cos]."""
        d, bands = len(self.shape), axis * self.num_bands + np.arange(self.num_bands)
        return np.concatenate([[axis], d + bands, d + d * self.num_bands + bands])

    def table(self) -> jax.Array:
        """The dense position features, float32 `[M, width]`."""
        if self.long:
            outer, inner = self.block_angles(math.isqrt(self.num_tokens))
            return add_angles(jnp.asarray(outer), jnp.asarray(inner))[: self.num_tokens]
        if self.indices is None:
            rows = jnp.meshgrid(*map(jnp.arange, self.shape), indexing="ij")
            rows = [r.reshape(-1) for r in rows]
        else:
            rows = jnp.unravel_index(self.indices, self.shape)
        points = [jnp.asarray(axis)[row] for axis, row in zip(self.axes(), rows, strict=True)]
        order = np.concatenate([self._channels(i) for i in range(len(self.shape))])
        return jnp.concatenate(points, axis=1)[:, np.argsort(order)]

    @property
    def long(self) -> bool:
        """Whether it is one axis of so many points that `block_angles` makes their features."""
        return self.indices is None and len(self.shape) == 1 and self.shape[0] > MAX_DENSE_POINTS

    def block_angles(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Features of block starts and of offsets: float32 `[O, 1 + 2 K]` and `[n, 1 + 2 K]`.

        For a single axis: with n = `length`, the angle of point o n + x is the angle of block o
        plus that of offset x, and `add_angles` gives the features of the sum. Each is computed in
        float64 and rounded once.
        """
        (size,), (rate,) = self.shape, self.max_resolution or self.shape
        step = 2 / (size - 1 if self.endpoint else size)
        outer = -1 + step * length * np.arange(-(-size // length))[:, None]
        inner = step * np.arange(length)[:, None]
        bands = np.pi * np.linspace(1.0, rate / 2, self.num_bands)
        return tuple(
            np.concatenate([p, np.sin(p * bands), np.cos(p * bands)], axis=1).astype(np.float32)
            for p in (outer, inner)
        )

    def take(self, indices: jax.Array) -> "Fourier":
        """The positions of the tokens at `indices` `[n]`, in that order."""
        return self.replace(indices=indices if self.indices is None else self.indices[indices])


def add_angles(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """Features `[O n, 1 + 2 K]` of added angles: sin(a + b) = sin a cos b + cos a sin b.

    Args:
      outer: [p, sin, cos] of O block starts, `[O, 1 + 2 K]`.
      inner: of n offsets, `[n, 1 + 2 K]`.
    """
    bands = inner.shape[-1] // 2
    (p, a, c), (q, b, d) = (
        jnp.split(x, [1, 1 + bands], axis=-1) for x in (outer[:, None], inner[None])
    )
    features = jnp.concatenate([p + q, a * d + c * b, c * d - a * b], axis=-1)
    return features.reshape(-1, features.shape[-1])


@struct.dataclass
class Table:
    """A table of positions, usually learned: `values` is `[M, width]`, shared by the batch."""

    values: jax.Array

    @property
    def num_tokens(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def separable(self) -> bool:
        """See `Fourier`."""
        return False

    @property
    def long(self) -> bool:
        """See `Fourier`."""
        return False

    def table(self) -> jax.Array:
        """The dense positions, `[M, width]`."""
        return self.values

    def take(self, indices: jax.Array) -> "Table":
        """The positions of the tokens at `indices` `[n]`, in that order."""
        return Table(self.values[indices])


Position = Fourier | Table


# Positions of a sequence, which differ between examples: functions of integer places `[B, T]`.


def sinusoids(places: jax.Array, channels: int, max_wavelength: float = 10_000.0) -> jax.Array:
    """[sin, cos] of places `[B, T]` at `channels / 2` frequencies, float32 `[B, T, channels]`.

    Reference: Vaswani et al. (2017) section 3.5, sines before cosines as in Perceiver AR's code.
    """
    half = channels // 2
    frequencies = max_wavelength ** -(np.arange(half) / half)
    angles = places[..., None].astype(jnp.float32) * np.float32(frequencies)[None, None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def rotate(x: jax.Array, places: jax.Array, fraction: float, max_wavelength: float) -> jax.Array:
    """Turns pairs of channels by angles that grow with the place (Su et al. 2021).

    The product of a query and a key then depends on how far apart they are. Of each head the first
    `fraction` of the channels turns, rounded down to pairs. The frequencies are max_wavelength^-s
    for evenly spaced s from 0 to 1, both ends included, as in Perceiver AR's code.

    Args:
      x: `[B, H, T, K]`.
      places: int `[B or 1, T]`.
    """
    pairs = int(fraction * x.shape[-1]) // 2
    if not pairs:
        return x
    frequencies = np.float32(max_wavelength ** -np.linspace(0, 1, pairs))
    angles = places[..., None].astype(jnp.float32) * frequencies[None, None]  # [B, T, pairs]
    sin, cos = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
    turned, rest = jnp.split(x, [2 * pairs], axis=-1)
    even, odd = turned[..., 0::2].astype(jnp.float32), turned[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    turned = turned.reshape(*x.shape[:-1], 2 * pairs).astype(x.dtype)
    return jnp.concatenate([turned, rest], axis=-1)
