"""Dropout drawn for each example by itself, so that devices draw what one device would.

JAX draws an array as a whole. A device that has some of the examples could not draw its part alone,
so gradients would have to be summed over devices in each layer (see `train/step.py`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.mesh import first_row

# The random stream of these draws in training. Where it is not given, as in `model.apply(...,
# rngs={"dropout": key})`, they take from Flax's own.
ROWS, FLAX = "rows", "dropout"

# For `nn.scan`, whose repeats draw anew.
SPLIT = {ROWS: True, FLAX: True}


def bernoulli(module: nn.Module, rate: float, shape: Sequence[int]) -> jax.Array:
    """Draws bool `[B, ...]`, True with probability `rate`; each example has a key of its own.

    Args:
      module: a module that is being applied; its random stream.
      rate: of True.
      shape: B is the number of this device's examples.
    """
    key = module.make_rng(ROWS if module.has_rng(ROWS) else FLAX)
    rows = first_row(shape[0]) + jnp.arange(shape[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    return jax.vmap(lambda key: jax.random.bernoulli(key, rate, tuple(shape[1:])))(keys)


class Dropout(nn.Module):
    """Zeroes a share `rate` of the numbers in training, and scales the others by 1 / (1 - rate)."""

    rate: float

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, ...]` -> `[B, ...]`."""
        if not train or not self.rate:
            return x
        kept = bernoulli(self, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)
