"""Metrics: `metric(prediction, batch) -> (sum, count)` over the real examples of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def masked_sum(values: jax.Array, batch) -> tuple[jax.Array, jax.Array]:
    """Sum and count of per-example `values` `[B]` where `batch["mask"]` is True."""
    mask = batch["mask"]
    return jnp.sum(jnp.where(mask, values, 0), dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)


def top_accuracy(k: int) -> Callable:
    """Share of examples whose `label` has one of the k largest logits `[B, K]`; ties lose."""

    def metric(logits, batch):
        label = batch["label"][:, None]
        own = jnp.take_along_axis(logits, label, axis=1)
        others = jnp.sum(logits >= own, axis=1) - 1  # as large as the label's own logit, besides it
        return masked_sum((others < k).astype(jnp.float32), batch)

    return metric


def psnr(prediction: jax.Array, batch, *, peak: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error), of each example.

    At most 100 + 20 log10(peak), so that a silent clip brought back as silence stays finite.

    Args:
      prediction: `[B, ...]`.
      batch: `target`, of the same shape.
      peak: the largest value that there can be.
    """
    error = jnp.square(prediction - batch["target"])
    error = jnp.maximum(jnp.mean(error, axis=tuple(range(1, error.ndim))), 1e-10)
    return masked_sum(10 * jnp.log10(peak**2 / error), batch)
