"""Losses and metrics: small cases worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import losses, metrics

LOGITS = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
BATCH = {"label": jnp.array([0, 0, 2, 1]), "mask": jnp.array([True, True, True, False])}


def test_cross_entropy_takes_soft_targets():
    target = jnp.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    got = losses.softmax_cross_entropy(LOGITS[:2], {"target": target})
    expected = [-np.log(0.7), -0.5 * np.log(0.3) - 0.5 * np.log(0.6)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(("k", "hits"), [(1, 1), (2, 2), (3, 3)])
def test_top_accuracy_counts_real_examples_only(k, hits):
    total, count = metrics.top_accuracy(k)(LOGITS, BATCH)
    assert (float(total), float(count)) == (hits, 3)


def test_ties_are_no_credit():
    """A model that says the same of every class must not look perfect."""
    batch = {"label": jnp.array([0, 1]), "mask": jnp.ones(2, bool)}
    assert float(metrics.top_accuracy(1)(jnp.zeros((2, 3)), batch)[0]) == 0


def test_a_nan_prediction_of_a_padding_row_does_not_leak():
    total, count = metrics.masked_sum(jnp.array([1.0, jnp.nan]), {"mask": jnp.array([True, False])})
    assert (float(total), float(count)) == (1, 1)
