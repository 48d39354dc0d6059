"""Causal attention by blocks equals its definition, and nothing depends on what comes later."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import mesh
from perceiver_jax.attention import attend_causal, cost
from perceiver_jax.attention.causal import Block, choose_block
from perceiver_jax.attention.softmax import Places, attend

TOLERANCE = {jnp.float32: 2e-5, jnp.bfloat16: 4e-2}


def read(params, x):
    """Keys and values from the ids and the content of a block."""
    kernel, table = params
    content = table[x["ids"]] + x["content"]
    key, value = jnp.split(jnp.einsum("bmc,chk->bhmk", content, kernel), [6], axis=-1)
    return key, value


def example(*, b=2, n=5, m=13, heads=2, dtype=jnp.float32, masked=False, lengths=None, seed=0):
    """Arguments of `attend_causal`; queries are the last n tokens of each length."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape).astype(dtype)  # noqa: E731
    lengths = jnp.array(lengths or [m] * b)
    params = normal(4, heads, 6 + 3), normal(7, 4)
    data = {"ids": jax.random.randint(next(keys), (b, m), 0, 7), "content": normal(b, m, 4)}
    place = lengths[:, None] - n + jnp.arange(n)[None]
    places = Places(place, jnp.arange(m)[None])
    mask = jax.random.bernoulli(next(keys), 0.7, (b, m)) if masked else None
    return normal(b, heads, n, 6), params, data, places, mask


def dense(query, params, data, places, mask):
    return attend(query, *read(params, data), places=places, mask=mask)


def blockwise(block):
    def run(query, params, data, places, mask):
        return attend_causal(query, read, params, data, places, mask=mask, block=block)

    return run


def values_and_gradients(function, arguments):
    query, params, data, places, mask = arguments

    def loss(query, params, content):
        out = function(query, params, data | {"content": content}, places, mask)
        return jnp.sum(jnp.sin(out)), out

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(query, params, data["content"])


def assert_equal(a, b, tolerance):
    a, b = (jax.tree.map(lambda x: np.asarray(x, np.float32), tree) for tree in (a, b))
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance * max(np.abs(y).max(), 1))


CASES = [
    ({}, Block(5, 13)),
    ({}, Block(2, 4)),
    ({"masked": True, "lengths": [11, 3]}, Block(2, 4)),  # the second is shorter than n
    ({"n": 7, "m": 31, "b": 1}, Block(3, 8)),
    ({"n": 9, "m": 9, "masked": True}, Block(4, 2)),
    ({"dtype": jnp.bfloat16, "lengths": [13, 6]}, Block(3, 5)),
]


@pytest.mark.parametrize(("sizes", "block"), CASES)
def test_blocks_equal_the_definition(sizes, block):
    arguments = example(**sizes)
    expected = values_and_gradients(dense, arguments)
    found = values_and_gradients(blockwise(block), arguments)
    assert_equal(found, expected, TOLERANCE[sizes.get("dtype", jnp.float32)])


def test_a_query_without_keys_gives_zero():
    query, params, data, places, _ = example(lengths=[13, 3])  # places -2, -1, 0, 1, 2
    out = blockwise(Block(2, 4))(query, params, data, places, None)
    assert np.all(np.asarray(out[1, :, :2]) == 0) and np.all(np.asarray(out[1, :, 2:]) != 0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [Block(5, 13), Block(2, 4)])
def test_no_result_depends_on_a_later_key(block, masked):
    query, params, data, places, mask = example(lengths=[13, 8], masked=masked)

    def results(content):  # [B, N]
        out = blockwise(block)(query, params, data | {"content": content}, places, mask)
        return jnp.sum(out, axis=(1, 3))

    slope = jax.jit(jax.jacrev(results))(data["content"])  # [B, N, B, M, c]
    own = jnp.stack([slope[i, :, i] for i in range(2)])
    depends = np.asarray(jnp.any(own != 0, axis=-1))  # [B, N, M]
    allowed = np.asarray(places.key)[:, None] <= np.asarray(places.query)[:, :, None]
    allowed = allowed if mask is None else allowed & np.asarray(mask)[:, None]
    assert np.array_equal(depends, allowed)
    assert not np.any(slope[0, :, 1]) and not np.any(slope[1, :, 0])


def test_devices_agree():
    """8 devices, each with its own examples, sum the gradients of shared parameters once."""
    arguments = example(b=8, lengths=[13, 12, 11, 10, 9, 8, 7, 3])
    expected = values_and_gradients(blockwise(Block(2, 4)), arguments)
    devices = jax.make_mesh(
        (8, 1), (mesh.DATA, mesh.MODEL), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    layout = mesh.Layout(devices, "jit", 1, 0, False, "batch")
    with mesh.use_layout(layout):
        found = values_and_gradients(blockwise(Block(2, 4)), arguments)
    assert_equal(found, expected, 1e-5)


def test_a_block_keeps_to_the_budget():
    for shape in ((1, 16, 1024, 131_072), (64, 16, 1024, 12_288), (6, 1, 7, 11)):
        batch, heads, n, m = shape
        groups, block = choose_block(*shape)
        assert batch % groups == 0 and block.queries <= n and block.keys <= m
        assert 4 * batch // groups * heads * block.queries * block.keys <= 2**22
    assert choose_block(1, 1, 7, 11) == (1, Block(7, 11))


def test_groups_of_examples_take_turns():
    arguments = example(b=4, lengths=[13, 12, 8, 3])
    expected = values_and_gradients(dense, arguments)
    with cost.forced(chunk_bytes=256):
        assert choose_block(4, 2, 5, 13)[0] > 1
        found = values_and_gradients(blockwise(None), arguments)
    assert_equal(found, expected, 2e-5)


def test_skipped_blocks_are_not_computed():
    """NaN in keys that are all in the future, or all masked, does not reach the results."""
    query, params, data, places, _ = example(n=4, m=16, lengths=[8, 8])
    content = data["content"].at[:, 8:].set(jnp.nan)
    out = blockwise(Block(2, 4))(query, params, data | {"content": content}, places, None)
    assert np.all(np.isfinite(np.asarray(out)))
