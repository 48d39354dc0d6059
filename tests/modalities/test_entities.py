"""Sets: predictions follow their entities, and unused slots change nothing; also over 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax as pj
from configs import common
from perceiver_jax import mesh
from perceiver_jax.layers import apply_head
from perceiver_jax.modalities import entities
from perceiver_jax.train import sharding

ORDER = np.random.default_rng(0).permutation(9)
ENTITIES = jax.random.normal(jax.random.key(0), (2, 9, 6))
MASK = jnp.arange(9)[None] < jnp.array([[9], [5]])


class Everything(entities.OfTokens):
    """All outputs of sets at once, of one decoder, so that one program tests them."""

    def setup(self):
        self.outputs = {
            "entity": entities.PerEntity(num_outputs=3),
            "set": entities.PerSet(num_outputs=3),
            "pointers": entities.Pointers(channels=4),
            "selection": entities.Selection(channels=4),
        }

    def head(self, width):
        return ()

    def __call__(self, decoded, mask):
        return {
            name: output(apply_head(output.head(decoded.shape[-1]), decoded, jnp.float32), mask)
            for name, output in self.outputs.items()
        }


@pytest.fixture(scope="module")
def model():
    """Weights of a tiny model; a function to its gradients and predictions, compiled and not."""
    model = pj.Perceiver(
        entities.Entities(channels=8),
        pj.Encoder(4, 8, num_blocks=1, num_self_attends_per_block=1, num_self_attend_heads=2),
        pj.Decoder(),
        Everything(),
    )
    batch = {"entities": ENTITIES, "entities_mask": MASK}
    variables = jax.jit(lambda: model.init(jax.random.key(1), batch, train=False))()

    def loss(variables, features, mask):
        batch = {"entities": features, "entities_mask": mask}
        found = model.apply(variables, batch, train=False)
        found["pointers"] = jnp.where(mask[..., None], found["pointers"], 0)
        terms = [jnp.sum(jnp.where(x > entities.NEVER, jnp.sin(x / 8), 0)) for x in found.values()]
        return sum(terms), found

    gradient = jax.grad(loss, (0, 1), has_aux=True)
    return variables, gradient, jax.jit(gradient)


def follow(found):
    """Predictions as they are when the entities are in the order of `ORDER`."""
    one, two = found["selection"], found["pointers"]
    return {
        "entity": found["entity"][:, ORDER],
        "set": found["set"],
        "pointers": two[:, ORDER][:, :, ORDER],
        "selection": one[:, ORDER],
    }


def close(a, b):
    largest = max(np.abs(x).max(where=np.abs(x) < 1e6, initial=0) for x in jax.tree.leaves(b))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), a, b)


def assert_follow(model, run):
    """`run` on entities in another order: values and gradients are those of the first order."""
    variables, _, plain = model
    (by_weights, by_entities), found = plain(variables, ENTITIES, MASK)
    grads, moved = run(variables, ENTITIES[:, ORDER], MASK[:, ORDER])
    close(moved, follow(found))
    close(grads, (by_weights, by_entities[:, ORDER]))


def test_predictions_follow_their_entities(model):
    variables, _, run = model
    _, found = run(variables, ENTITIES, MASK)
    assert {name: x.shape[1:] for name, x in found.items()} == {
        "entity": (9, 3), "set": (3,), "pointers": (9, 9), "selection": (9,)
    }  # fmt: skip
    assert np.ptp(found["entity"][0], axis=0).min() > 1e-3
    assert_follow(model, run)


def test_over_eight_devices_predictions_follow_their_entities(model):
    """The entities of one set on 4 devices, of which the 9 are no multiple."""
    section = common.parallel()
    section.update({"model": 4, "shard_inputs": True})
    layout = sharding.make_layout(section, jax.devices()[:8])

    def spread(*arguments):
        with mesh.use_layout(layout):
            return model[1](*arguments)

    assert_follow(model, jax.jit(spread))


def test_unused_slots_change_nothing(model):
    variables, _, run = model
    (by_weights, by_entities), found = run(variables, ENTITIES, MASK)
    grads, other = run(variables, ENTITIES.at[1, 5:].set(7.0), MASK)
    close(other, found)
    close(grads, (by_weights, by_entities))
    assert not np.any(by_entities[1, 5:]) and np.any(by_entities[1, :5])
    assert not np.any(found["entity"][1, 5:])
    assert np.all(found["selection"][1, 5:] == entities.NEVER)
    named = found["pointers"][1, :5]
    assert np.all(named[:, 5:] == entities.NEVER) and np.all(np.diag(named) == entities.NEVER)
    _, changed = run(variables, ENTITIES.at[1, 4].set(7.0), MASK)  # an entity that is there
    for name in ("entity", "set", "selection"):
        assert np.abs(changed[name] - found[name])[1].max() > 1e-4, name


def test_the_mean_is_over_present_entities():
    x = jnp.array([[[1.0], [3.0], [100.0]], [[5.0], [6.0], [7.0]]])
    mask = jnp.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(entities.mean_of_present(x, mask), [[2.0], [0.0]])
    np.testing.assert_allclose(entities.mean_of_present(x, None), [[104 / 3], [6.0]])
