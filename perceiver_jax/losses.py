"""Losses: `loss(prediction, batch) -> [B]`, one value per example."""

import jax
import jax.numpy as jnp
import optax


def softmax_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """Cross-entropy of logits `[B, K]` against the probabilities `batch["target"]` `[B, K]`."""
    return optax.softmax_cross_entropy(logits, batch["target"])


def mean_absolute_error(prediction: jax.Array, batch) -> jax.Array:
    """The mean of |prediction - target| over all axes but the first; `batch["target"]` alike."""
    error = jnp.abs(prediction - batch["target"])
    return jnp.mean(error, axis=tuple(range(1, error.ndim)))
