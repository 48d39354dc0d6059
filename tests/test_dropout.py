"""Dropout by example: its rate, its scale, and that no example's draws depend on the others'."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from perceiver_jax.dropout import FLAX, ROWS, Dropout, bernoulli


class Draw(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, count):
        return [bernoulli(self, self.rate, (count, 50, 40)) for _ in range(2)]


@pytest.mark.parametrize("stream", [ROWS, FLAX])
def test_each_example_has_its_own_draws(stream):
    def draw(count, seed=0):
        return np.stack(Draw(0.3).apply({}, count, rngs={stream: jax.random.key(seed)}))

    four = draw(4)  # [2 draws, 4 examples, ...]
    assert abs(four.mean() - 0.3) < 0.01
    np.testing.assert_array_equal(draw(2), four[:, :2])
    rows = four.reshape(8, -1)
    for a, b in itertools.combinations(rows, 2):
        assert abs((a == b).mean() - 0.58) < 0.05  # 0.3^2 + 0.7^2: independent
    assert (draw(4, seed=1) != four).mean() > 0.3


def test_dropout_keeps_the_mean_and_acts_in_training_only():
    x, keys = jnp.ones((3, 100, 100)), {ROWS: jax.random.key(0)}
    found = Dropout(0.75).apply({}, x, train=True, rngs=keys)
    assert set(np.unique(found)) == {0.0, 4.0}
    assert abs(found.mean() - 1) < 0.05
    for rate, train in [(0.75, False), (0.0, True)]:  # neither needs a key
        np.testing.assert_array_equal(Dropout(rate).apply({}, x, train=train), x)
