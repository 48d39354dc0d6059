"""Losses: `loss(prediction, batch) -> [B]`, one value per example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def softmax_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """Cross-entropy of logits `[B, K]` against the probabilities `batch["target"]` `[B, K]`."""
    return optax.softmax_cross_entropy(logits, batch["target"])


def sigmoid_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """The mean over K independent labels of the binary cross-entropy of logits `[B, K]`.

    `batch["target"]` `[B, K]` holds 0 and 1.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, batch["target"]), axis=1)


def hidden_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """The mean cross-entropy of an example's masked bytes, in nats; 0 without any.

    Args:
      logits: `[B, M, K]`.
      batch: `target` `[B, M]`, the ids, and `hidden` `[B, M]`, True at masked bytes.
    """
    hidden = batch["hidden"]
    values = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
    count = jnp.sum(hidden, axis=1, dtype=jnp.float32)
    return jnp.sum(jnp.where(hidden, values, 0.0), axis=1) / jnp.maximum(count, 1.0)


def mean_absolute_error(prediction: jax.Array, batch) -> jax.Array:
    """The mean of |prediction - target| over all axes but the first; `batch["target"]` alike."""
    error = jnp.abs(prediction - batch["target"])
    return jnp.mean(error, axis=tuple(range(1, error.ndim)))


def mean_squared_error(prediction: jax.Array, batch) -> jax.Array:
    """The mean of (prediction - target)^2 over all axes but the first; `batch["target"]` alike."""
    error = jnp.square(prediction - batch["target"])
    return jnp.mean(error, axis=tuple(range(1, error.ndim)))


def robust_field(*, epsilon: float, power: float) -> Callable:
    """For flow and disparity: the mean of (|error|^2 + epsilon^2)^power over an example's pixels.

    Only pixels where `batch["valid"]` is True count; an example without any has loss 0. |error| is
    the length over all channels. Power 0.5 is the absolute value, smoothed below epsilon
    (Charbonnier et al. 1994); lower powers weigh outliers less (Sun, Roth and Black 2010: 0.45).

    Args:
      epsilon: pixels, > 0: at 0 a correct prediction would have no gradient.
      power: in (0, 1].

    Returns:
      `loss(prediction, batch)` with prediction and `batch["field"]` `[B, ..., C]` and
      `batch["valid"]` `[B, ...]`.
    """
    if epsilon <= 0 or not 0 < power <= 1:
        raise ValueError(f"robust_field: epsilon={epsilon} must be > 0, power={power} in (0, 1]")

    def loss(prediction, batch):
        squares = jnp.sum(jnp.square(prediction - batch["field"]), axis=-1)
        valid = batch["valid"]
        axes = tuple(range(1, valid.ndim))
        values = jnp.where(valid, (squares + epsilon**2) ** power, 0.0)
        count = jnp.sum(valid, axis=axes, dtype=jnp.float32)
        return jnp.sum(values, axis=axes) / jnp.maximum(count, 1.0)

    return loss


def entity_cross_entropy(logits: jax.Array, batch) -> jax.Array:
    """The mean over the entities of a set of the cross-entropy of what they name.

    Args:
      logits: `[B, M, K]`.
      batch: `named` `[B, M]`, -1 at unused slots.
    """
    named = batch["named"]
    present = named >= 0
    values = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(named, 0))
    count = jnp.sum(present, axis=1, dtype=jnp.float32)
    return jnp.sum(jnp.where(present, values, 0.0), axis=1) / jnp.maximum(count, 1.0)
