"""Points in space: every point is a token with the Fourier features of its own coordinates.

A batch holds `points`: float `[B, M, d]`, coordinates in -1..1; if clouds differ in size,
`points_mask`: bool `[B, M]`, False on padding; and any further fields of the points `[B, M, c]`,
such as normals or colours. Coordinates differ between examples, so they are content. The order of
the points carries nothing.

Reference: Perceiver (Jaegle et al. 2021) section 4.3.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.config_types import Bands, Resolution
from perceiver_jax.tokens import Tokens


class Points(nn.Module):
    """Fourier features of coordinates, and further channels of the points beside them.

    Attributes:
      num_bands: frequencies per axis, equally spaced; 0 is the coordinates alone.
      max_resolution: one value per axis; its half is the highest frequency. The paper's 1,120 is
        2,240 here.
      channels: names of further fields of the batch, `[B, M, c]` each, in their order.
    """

    num_bands: Bands = 64
    max_resolution: Resolution = (2240, 2240, 2240)
    channels: tuple[str, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`points [B, M, d]` -> M tokens of d (2 `num_bands` + 1) channels + the further ones."""
        points = batch["points"]
        chex.assert_rank(points, 3)
        parts = [fourier_features(points, self.num_bands, self.max_resolution)]
        parts += [batch[name] for name in self.channels]
        content = jnp.concatenate([part.astype(self.dtype) for part in parts], axis=-1)
        return Tokens(content=content, mask=batch.get("points_mask"))


def fourier_features(
    points: jax.Array, num_bands: int, max_resolution: tuple[int, ...]
) -> jax.Array:
    """The features of `position.Fourier`, of any points instead of those of a grid.

    Phases are computed in float32 whatever the model's dtype, and have an error of up to 2e-4 at a
    frequency of 1,120.

    Args:
      points: `[..., d]`, coordinates in -1..1.
      num_bands: K.
      max_resolution: one value per axis.

    Returns:
      float32 `[..., d (2 K + 1)]`: the coordinates, all sines, all cosines, axis by axis.

    Raises:
      ValueError: `max_resolution` has not one value per axis.
    """
    if len(max_resolution) != points.shape[-1]:
        raise ValueError(
            f"max_resolution={tuple(max_resolution)} needs one value for each of the "
            f"{points.shape[-1]} coordinates of points {list(points.shape)}"
        )
    points = points.astype(jnp.float32)
    bands = [jnp.linspace(1.0, rate / 2, num_bands) for rate in max_resolution]
    bands = jnp.stack(bands).reshape((1,) * (points.ndim - 1) + (len(bands), num_bands))
    phase = jnp.pi * points[..., None] * bands  # [..., d, K]
    phase = phase.reshape(*points.shape[:-1], -1)
    return jnp.concatenate([points, jnp.sin(phase), jnp.cos(phase)], axis=-1)
