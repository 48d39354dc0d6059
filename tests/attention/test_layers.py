"""The blocks around attention, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.layers import MLP, Attention, CrossAttention, SelfAttention
from perceiver_jax.position import Table
from perceiver_jax.tokens import Tokens


def apply(module, *args, train=False, rngs=None, **kwargs):
    variables = module.init(jax.random.key(0), *args, train=False, **kwargs)
    return module.apply(variables, *args, train=train, rngs=rngs, **kwargs)


def test_attention_rejects_widths_that_heads_do_not_divide():
    x = jnp.ones((1, 2, 6))
    with pytest.raises(ValueError, match=r"qk_channels=6 must divide by num_heads=4"):
        apply(Attention(num_heads=4), x, x)
    with pytest.raises(ValueError, match=r"v_channels=6 must divide by num_heads=4"):
        apply(Attention(num_heads=4, qk_channels=8, v_channels=6), x, x)


def test_masked_query_rows_emit_only_the_output_bias():
    x = jax.random.normal(jax.random.key(0), (1, 3, 4))
    module = Attention(num_heads=2)
    variables = module.init(jax.random.key(0), x, x, train=False)
    variables["params"]["out"]["bias"] = jnp.arange(4.0)
    mask = jnp.array([[True, False, True]])
    out = module.apply(variables, x, x, query_mask=mask, train=False)
    np.testing.assert_array_equal(out[0, 1], np.arange(4.0))
    unmasked = module.apply(variables, x, x, train=False)
    np.testing.assert_allclose(out[0, ::2], unmasked[0, ::2])


@pytest.mark.parametrize("residual", [True, False])
def test_cross_attention_block_is_its_definition(residual):
    """Recomputed step by step from the parameters, with numpy and float64."""
    keys = jax.random.split(jax.random.key(0), 2)
    q, kv = jax.random.normal(keys[0], (1, 3, 8)), jax.random.normal(keys[1], (1, 5, 6))
    module = CrossAttention(num_heads=2, widening=2, query_residual=residual)
    arguments = (Tokens(content=q), Tokens(content=kv))
    variables = module.init(jax.random.key(1), *arguments, train=False)
    noise = jax.random.normal(jax.random.key(2), (200,))
    variables = jax.tree.map(  # nothing zero: biases and scales must be used
        lambda x: x + 0.1 * noise[: x.size].reshape(x.shape) if x.ndim == 1 else x, variables
    )
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    got = module.apply(variables, *arguments, train=False)

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    q, kv = np.asarray(q[0], np.float64), np.asarray(kv[0], np.float64)
    a = p["attention"]
    normed = norm(kv, p["norm_inputs"])
    query, key, value = (
        dense(norm(q, p["norm_queries"]), a["query"]),
        dense(normed, a["key"]),
        dense(normed, a["value"]),
    )
    heads = []
    for c in (slice(0, 3), slice(3, 6)):
        weights = np.exp(query[:, c] @ key[:, c].T / np.sqrt(3))
        heads.append(weights / weights.sum(1, keepdims=True) @ value[:, c])
    x = dense(np.concatenate(heads, 1), a["out"]) + (q if residual else 0)
    mlp = p["mlp"]
    expected = x + dense(gelu(dense(norm(x, p["norm_mlp"]), mlp["hidden"])), mlp["out"])
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("field", ["dropout_rate", "attention_dropout_rate"])
def test_dropout_acts_in_training_only_and_keeps_the_mean(field):
    x = jax.random.normal(jax.random.key(0), (2, 4, 8))
    module = SelfAttention(num_heads=2, **{field: 0.5})
    variables = module.init(jax.random.key(0), x, train=False)
    plain = SelfAttention(num_heads=2).apply(variables, x, train=False)
    np.testing.assert_allclose(module.apply(variables, x, train=False), plain)

    def run(seed):
        return module.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})

    assert not np.allclose(run(0), run(1))
    if field == "attention_dropout_rate":  # the block's MLP is not linear: look before it
        attention = Attention(num_heads=2, dropout_rate=0.5)
        variables = attention.init(jax.random.key(0), x, x, train=False)
        seeds = jax.random.split(jax.random.key(1), 4000)
        outs = jax.vmap(
            lambda key: attention.apply(variables, x, x, train=True, rngs={"dropout": key})
        )(seeds)
        np.testing.assert_allclose(
            outs.mean(0), attention.apply(variables, x, x, train=False), atol=0.06
        )


def test_initialisers_are_the_released_codes():
    x = Tokens(content=jnp.ones((1, 2, 400)))
    block = CrossAttention(num_heads=1)
    params = block.init(jax.random.key(0), x, x, train=False)["params"]
    for kernel in (params["attention"]["query"]["kernel"], params["mlp"]["out"]["kernel"]):
        assert np.std(kernel) == pytest.approx(400**-0.5, rel=0.02)
        limit = 2 / 0.87962566 * 400**-0.5  # truncated at 2 sigma before the correction
        assert np.max(np.abs(kernel)) <= limit * 1.0001
        assert np.max(np.abs(kernel)) > 0.97 * limit
    assert not np.any(params["attention"]["query"]["bias"])


def test_mlp_widens():
    params = MLP(widening=3).init(jax.random.key(0), jnp.ones((1, 1, 4)), train=False)["params"]
    assert params["hidden"]["kernel"].shape == (4, 12)
    assert params["out"]["kernel"].shape == (12, 4)


def test_compute_dtype_is_apart_from_parameter_dtype():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    module = SelfAttention(num_heads=2, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x.astype(jnp.bfloat16), train=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = module.apply(variables, x.astype(jnp.bfloat16), train=False)
    assert out.dtype == jnp.bfloat16
    exact = SelfAttention(num_heads=2).apply(variables, x, train=False)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.1)


def test_queries_may_be_positions_only():
    table = jax.random.normal(jax.random.key(0), (3, 8))
    kv = Tokens(content=jax.random.normal(jax.random.key(1), (2, 5, 8)))
    block = CrossAttention(num_heads=2)
    by_position = apply(block, Tokens(position=Table(table)), kv)
    by_content = apply(block, Tokens(content=jnp.stack([table, table])), kv)
    np.testing.assert_allclose(by_position, by_content, atol=1e-6)
