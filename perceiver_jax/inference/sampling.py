"""Drawing an id from logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sampling(NamedTuple):
    """How an id is drawn.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest id.
      top_k: how many of the likeliest ids are drawn from; 0 is all.
      top_p: the likeliest ids are drawn from that together have this probability (Holtzman 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def check_sampling(sampling: Sampling) -> None:
    """Raises ValueError for a setting out of its range."""
    temperature, top_k, top_p = sampling
    if not (temperature >= 0 and np.isfinite(temperature)):
        raise ValueError(f"temperature={temperature} must be 0 or above")
    if top_k < 0:
        raise ValueError(f"top_k={top_k} must be 0, which is all ids, or above")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")


def draw(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """One id of each row of logits `[B, V]`, with a random key each: int32 `[B]`."""
    order = jnp.argsort(-logits, axis=-1, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    ranked = ranked / jnp.where(sampling.temperature > 0, sampling.temperature, 1.0)
    ranks = jnp.arange(logits.shape[-1])[None]
    ranked = jnp.where((sampling.top_k > 0) & (ranks >= sampling.top_k), -jnp.inf, ranked)
    chances = jax.nn.softmax(ranked)
    before = jnp.cumsum(chances, axis=-1) - chances  # of the likelier ones
    ranked = jnp.where((ranks > 0) & (before >= sampling.top_p), -jnp.inf, ranked)
    rank = jnp.where(sampling.temperature > 0, jax.vmap(jax.random.categorical)(keys, ranked), 0)
    return jnp.take_along_axis(order, rank[:, None], axis=-1)[:, 0].astype(jnp.int32)
