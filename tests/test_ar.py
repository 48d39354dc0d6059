"""Perceiver AR: causal, equal to its definition, and sliding with the length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import mesh
from perceiver_jax.ar import PerceiverAR, latent_places
from perceiver_jax.attention import cost
from perceiver_jax.attention.softmax import Places
from perceiver_jax.config_types import ConfigError
from perceiver_jax.position import rotate

TINY = {
    "num_ids": 11,
    "max_length": 13,
    "num_latents": 5,
    "num_layers": 2,
    "channels": 16,
    "num_cross_attend_heads": 2,
    "num_self_attend_heads": 4,
    "remat": "none",
}
POSITIONS = {
    "sinusoidal": {"positions": "sinusoidal"},
    "learned": {"positions": "learned", "position_shape": (5, 3)},
    "rotary": {"positions": "rotary", "input_channels": 24},
}
LENGTHS = [13, 8, 3]  # the last is shorter than N
KEY = jax.random.key(0)


@functools.cache
def made(positions="rotary", **fields):
    """A model with random weights, its output's too, and ids."""
    model = PerceiverAR(**TINY | POSITIONS[positions] | fields)
    ids = jax.random.randint(jax.random.key(1), (len(LENGTHS), 13), 0, 11)
    batch = {"ids": ids, "length": jnp.array(LENGTHS)}
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), batch)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [x + jax.random.normal(k, x.shape) / 4 for k, x in zip(keys, leaves, strict=True)]
    return model, tree.unflatten(leaves), batch


def apply(model, variables, batch, order=None, chunk_bytes=None):
    with cost.forced(order, chunk_bytes=chunk_bytes):
        return jax.jit(functools.partial(model.apply, train=False))(variables, batch)


def test_untrained_logits_are_zero():
    model = PerceiverAR(**TINY)
    batch = {"ids": jnp.zeros((2, 13), jnp.int32), "length": jnp.array([13, 4])}
    logits, variables = model.init_with_output(jax.random.key(0), batch, train=False)
    assert logits.shape == (2, 5, 11) and not np.any(logits)
    assert variables["params"]["layers"]["mlp"]["hidden"]["kernel"].shape == (2, 16, 64)


@pytest.mark.parametrize("positions", POSITIONS)
def test_blocks_equal_the_definition_with_gradients(positions):
    model, variables, batch = made(positions)

    def loss(order, chunk_bytes, variables):
        out = apply(model, variables, batch, order, chunk_bytes)
        valid = latent_places(batch["length"], 5)[..., None] >= 0
        return jnp.sum(jnp.where(valid, jnp.sin(out), 0.0))

    run = [jax.value_and_grad(functools.partial(loss, *x)) for x in (("dense", None), (None, 64))]
    (a, da), (b, db) = (f(variables) for f in run)
    assert float(a) == pytest.approx(float(b), rel=1e-4)
    for x, y in zip(*map(jax.tree.leaves, (da, db)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4 * max(np.abs(x).max(), 1))


def test_logits_depend_on_their_past_alone():
    """Changing an id changes the logits at its place and after it, and none before."""
    model, variables, batch = made()
    before = np.asarray(apply(model, variables, batch))
    places = np.asarray(latent_places(batch["length"], 5))
    for changed in range(13):
        ids = batch["ids"].at[:, changed].set((batch["ids"][:, changed] + 1) % 11)
        after = np.asarray(apply(model, variables, batch | {"ids": ids}))
        differs = np.any(before != after, axis=-1)
        expected = (places >= changed) & (places >= 0)
        valid = places >= 0
        assert np.array_equal(differs[valid], expected[valid])


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_sequence_is_the_same_with_more_padding_and_fewer_latents(positions):
    model, variables, batch = made(positions)
    expected = np.asarray(apply(model, variables, batch))
    for row, length in enumerate(LENGTHS):
        alone = {"ids": batch["ids"][row : row + 1, :length], "length": jnp.array([length])}
        found = np.asarray(apply(model, variables, alone))[0]
        valid = np.asarray(latent_places(alone["length"], 5))[0] >= 0
        np.testing.assert_allclose(found[valid], expected[row][valid], atol=2e-5)
    last = model.apply(variables, batch["ids"], batch["length"], num_latents=5, method="logits")
    np.testing.assert_allclose(last, expected, atol=2e-5)


def test_keys_and_values_can_be_used_again():
    model, variables, batch = made()
    cache = model.apply(variables, batch["ids"], method="keys_values")
    expected = apply(model, variables, batch)
    arguments = batch["ids"], batch["length"]
    found = model.apply(variables, *arguments, keys_values=cache, method="logits")
    np.testing.assert_allclose(found, expected, atol=2e-5)
    more = model.apply(variables, batch["ids"][:, 9:], 9, method="keys_values")
    for name, x in more.items():
        np.testing.assert_allclose(x, cache[name][:, 9:], atol=2e-5)


def test_dropped_inputs_are_seen_by_nobody():
    """A model that drops nearly all inputs in training depends on few of them."""
    model, variables, batch = made(input_dropout_rate=0.8)

    def logits(table):
        params = variables["params"] | {"table": table}
        rngs = {"dropout": jax.random.key(3)}
        return model.apply({"params": params}, batch, train=True, rngs=rngs)

    ids = jnp.arange(13)[None].repeat(3, 0) % 11
    batch = batch | {"ids": ids, "length": jnp.array([8, 8, 8])}  # its first three are no latents
    slope = jax.jit(jax.jacrev(lambda table: logits(table).sum((1, 2))))(
        variables["params"]["table"]
    )
    seen = np.any(np.asarray(slope) != 0, axis=-1)[:, :3]  # [B, ids of the prefix]
    assert not seen.all() and len({tuple(row) for row in seen}) > 1


def test_weights_of_what_latents_read():
    model, variables, batch = made()
    _, sown = model.apply(variables, batch, train=False, mutable=["intermediates"])
    (weights,) = sown["intermediates"]["cross_attend"]["weights"]
    assert weights.shape == (3, 2, 5, 13)
    places = Places(latent_places(batch["length"], 5), jnp.arange(13)[None])
    later = places.key[:, None] > jnp.maximum(places.query, 0)[:, :, None]
    valid = places.query[:, None, :, None] >= 0
    assert not np.any(jnp.where(valid & later[:, None], weights, 0))
    np.testing.assert_allclose(jnp.where(valid[..., 0], weights.sum(-1), 1), 1, atol=1e-5)


def test_rotary_products_depend_on_the_distance():
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    at = lambda x, place: rotate(x, jnp.full((1, 1), place), 0.5, 100.0)  # noqa: E731
    products = [jnp.sum(at(x[0], p + 3) * at(x[1], p)) for p in (0, 5, 60)]
    np.testing.assert_allclose(products, products[0], rtol=1e-4)
    assert not np.allclose(products[0], jnp.sum(x[0] * x[1]))
    assert np.array_equal(at(x[0], 7)[..., 4:], x[0][..., 4:])  # half of the channels turn


def test_devices_agree():
    model, variables, batch = made()
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x, x])[:8], batch)
    expected = apply(model, variables, batch, chunk_bytes=64)
    devices = jax.make_mesh(
        (8, 1), (mesh.DATA, mesh.MODEL), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    with mesh.use_layout(mesh.Layout(devices, "jit", 1, 0, False, "batch")):
        found = apply(model, variables, batch, chunk_bytes=64)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_latents": 14}, r"num_latents=14 is above config.model.max_length=13"),
        ({"channels": 18}, r"channels=18 must divide by num_self_attend_heads=4"),
        ({"positions": "learned", "position_shape": (3, 4)}, r"has 12 positions, fewer than"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    batch = {"ids": jnp.zeros((1, 4), jnp.int32), "length": jnp.array([4])}
    with pytest.raises(ConfigError, match=message):
        PerceiverAR(**TINY | fields).init(jax.random.key(0), batch, train=False)


def test_an_input_longer_than_the_context_is_refused():
    model, variables, _ = made()
    batch = {"ids": jnp.zeros((1, 14), jnp.int32), "length": jnp.array([4])}
    with pytest.raises(ValueError, match="14 ids are more than max_length=13"):
        model.apply(variables, batch, train=False)


def largest_array(jaxpr):
    """Numbers in the largest array of a traced function."""
    sizes = [0]
    for eqn in jaxpr.eqns:
        sizes += [x.aval.size for x in eqn.outvars]
        inner = jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(getattr(x, "jaxpr", x), "eqns")
        )
        sizes += [
            largest_array(getattr(x, "jaxpr", x))
            for x in inner
            if hasattr(getattr(x, "jaxpr", x), "eqns")
        ]
    return max(sizes)


def test_no_array_of_a_gradient_grows_with_the_inputs_but_their_ids():
    def traced(length, order=None):
        model = PerceiverAR(**TINY | {"max_length": length, "num_latents": 64})
        batch = {"ids": jnp.zeros((1, length), jnp.int32), "length": jnp.array([length])}
        variables = jax.eval_shape(functools.partial(model.init, train=False), *(KEY, batch))

        def loss(variables):
            with cost.forced(order, chunk_bytes=2**16):
                return jnp.sum(model.apply(variables, batch, train=False))

        return largest_array(jax.make_jaxpr(jax.grad(loss))(variables).jaxpr)

    assert traced(4096) == traced(8192) < 64 * 4096
    assert traced(8192, "dense") >= 2 * 64 * 8192
