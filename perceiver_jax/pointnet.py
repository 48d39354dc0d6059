"""PointNet: each point by itself through an MLP, then the largest value of every channel.

It is called as a `Perceiver` is, and a config names it: `config.model.module =
"pointnet.PointNet"`. The networks that turn the cloud and its features (T-Net) are left out; the
paper gives 87.1 without them and 89.2 with them on ModelNet40 (Table 5).

Reference: Qi et al. 2017 (arXiv:1612.00593).
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax import mesh
from perceiver_jax.baselines import readout
from perceiver_jax.config_types import Channels, Rate
from perceiver_jax.dropout import Dropout


class PointNet(nn.Module):
    """An MLP for each point, the maximum over points, an MLP for the cloud; batch norm throughout.

    The defaults are the paper's sizes.

    Attributes:
      output: an output module without queries, such as `label.PooledClassification`.
      widths: of the layers of each point.
      pooled_widths: of the layers behind the maximum.
      channels: further fields of the points beside the coordinates, as of `points.Points`.
      dropout_rate: behind the last layer, in training.
    """

    output: nn.Module
    widths: tuple[Channels, ...] = (64, 64, 64, 128, 1024)
    pooled_widths: tuple[Channels, ...] = (512, 256)
    channels: tuple[str, ...] = ()
    dropout_rate: Rate = 0.3
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A prepared batch with `points [B, M, d]` -> what `output` predicts (float32)."""
        chex.assert_rank(batch["points"], 3)
        parts = [batch[name].astype(self.dtype) for name in ("points", *self.channels)]
        x, mask = jnp.concatenate(parts, axis=-1), batch.get("points_mask")
        present = jnp.ones(x.shape[:2], bool) if mask is None else mask
        for i, width in enumerate(self.widths):
            x = self.layer(x, width, train, f"point_{i}", present[..., None])
        x = jnp.max(jnp.where(present[..., None], x, 0), axis=1)  # ReLU: no value is below 0
        for i, width in enumerate(self.pooled_widths):
            x = self.layer(x, width, train, f"pooled_{i}")
        x = Dropout(self.dropout_rate)(x, train=train)
        return readout(self.output, x, self.dtype)

    def layer(
        self, x: jax.Array, width: int, train: bool, name: str, mask: jax.Array | None = None
    ) -> jax.Array:
        """A projection, batch norm over the points in `mask` alone, ReLU."""
        x = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f"{name}_dense")(x)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=mesh.batch_axis(),
            dtype=self.dtype,
            name=f"{name}_norm",
        )
        return nn.relu(norm(x, mask=mask))
