"""Losses: `loss(prediction, batch) -> [B]`, one value per example."""

import jax
import optax


def softmax_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """Cross-entropy of logits `[B, K]` against the probabilities `batch["target"]` `[B, K]`."""
    return optax.softmax_cross_entropy(logits, batch["target"])
