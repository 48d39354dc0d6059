"""Sets: predictions follow their entities, and unused slots change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax as pj


@pytest.fixture(scope="module")
def model():
    """A tiny model; its predictions `[B, M, 3]`, and gradients by weights and entities."""
    model = pj.Perceiver(
        pj.entities.Entities(channels=8),
        pj.Encoder(4, 8, num_blocks=1, num_self_attends_per_block=1, num_self_attend_heads=2),
        pj.Decoder(),
        pj.entities.PerEntity(num_outputs=3),
    )
    mask = jnp.arange(9)[None] < jnp.array([[9], [5]])
    entities = jax.random.normal(jax.random.key(0), (2, 9, 6))
    batch = {"entities": entities, "entities_mask": mask}
    variables = jax.jit(lambda: model.init(jax.random.key(1), batch, train=False))()

    @jax.jit
    def run(entities, mask):
        def loss(variables, entities):
            batch = {"entities": entities, "entities_mask": mask}
            found = jnp.where(mask[..., None], model.apply(variables, batch, train=False), 0)
            return jnp.sum(jnp.sin(found)), found

        grads, found = jax.grad(loss, (0, 1), has_aux=True)(variables, entities)
        return found, *grads

    return run, entities, mask


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), a, b)


def test_predictions_follow_their_entities(model):
    run, entities, mask = model
    order = np.random.default_rng(0).permutation(9)
    found, by_weights, by_entities = run(entities, mask)
    assert found.shape == (2, 9, 3) and np.ptp(found[0], axis=0).min() > 1e-3
    moved = run(entities[:, order], mask[:, order])
    close(moved, (found[:, order], by_weights, by_entities[:, order]))


def test_unused_slots_change_nothing(model):
    run, entities, mask = model
    expected = run(entities, mask)
    close(run(entities.at[1, 5:].set(7.0), mask), expected)
    assert not np.any(expected[2][1, 5:]) and np.any(expected[2][1, :5])
    other = run(entities.at[1, 4].set(7.0), mask)[0]  # an entity that is there
    assert np.abs(other - expected[0])[1, :4].max() > 1e-4
