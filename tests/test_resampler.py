"""The layer for other people's models: its definition, its switches and its example."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax as pj
from perceiver_jax.attention import cost

SMALL = {"num_latents": 3, "num_heads": 2, "widening": 2}
CASES = {
    "flamingo": {"num_reads": 2},
    "projected": {"num_reads": 1, "latent_channels": 6},
    "perceiver": {"num_reads": 2, "latents_as_keys": False, "num_self_attends": 1,
                  "latent_channels": 6},
}  # fmt: skip


def apply(module, inputs, variables=None, **kwargs):
    variables = variables or module.init(jax.random.key(0), inputs, train=False)
    return module.apply(variables, inputs, train=False, **kwargs), variables


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (2, 9, 8))


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_it_is_its_definition_and_a_masked_token_is_an_absent_one(fields, inputs):
    module = pj.Resampler(**SMALL, **fields)
    mask = jnp.arange(9)[None] < jnp.array([[9], [5]])
    found, variables = apply(module, inputs)
    assert found.shape == (2, 3, fields.get("latent_channels", 8))
    assert ("project" in variables["params"]) == (fields["num_reads"] == 1)
    masked, _ = apply(module, inputs, variables, mask=mask)
    np.testing.assert_allclose(masked[0], found[0], atol=1e-5)
    assert np.abs(masked[1] - found[1]).max() > 1e-3
    with cost.forced("dense"):
        dense, _ = apply(module, inputs, variables, mask=mask)
        absent, _ = apply(module, inputs[1:, :5], variables)
    np.testing.assert_allclose(masked, dense, atol=1e-5)
    np.testing.assert_allclose(masked[1], absent[0], atol=1e-5)
    tokens = pj.Tokens(content=inputs, mask=mask)
    np.testing.assert_allclose(apply(module, tokens, variables)[0], masked, atol=1e-6)


@pytest.mark.parametrize("as_keys", [True, False])
def test_latents_see_each_other_where_they_are_keys(as_keys, inputs):
    module = pj.Resampler(**SMALL, num_reads=1, latents_as_keys=as_keys)
    _, variables = apply(module, inputs)

    def first(latents):
        params = variables["params"] | {"latents": latents}
        return jnp.sum(jnp.sin(apply(module, inputs, {"params": params})[0][:, 0]))

    grad = jax.grad(first)(variables["params"]["latents"])
    assert np.any(grad[0]) and np.any(grad[1:]) == as_keys


def test_the_softmax_is_over_input_and_latents_together(inputs):
    """The weights of a read add up to 1 over both."""
    module = pj.Resampler(**SMALL, num_reads=1)
    _, variables = apply(module, inputs)
    _, seen = module.apply(variables, inputs, train=False, mutable=["intermediates"])
    (weights,) = seen["intermediates"]["read_0"]["attention"]["weights"]
    assert jnp.concatenate(jax.tree.leaves(weights), axis=-1).shape == (2, 2, 3, 12)
    total = sum(jnp.sum(part, axis=-1) for part in jax.tree.leaves(weights))
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_bad_sizes_are_named(inputs):
    with pytest.raises(ValueError, match=r"num_heads=3 must divide the width 8"):
        apply(pj.Resampler(num_heads=3), inputs)
    tokens = pj.Tokens(content=inputs)
    with pytest.raises(ValueError, match="a mask of their own"):
        apply(pj.Resampler(**SMALL), tokens, {}, mask=jnp.ones((2, 9), bool))


def test_the_example_of_the_page_runs(inputs):
    text = Path(__file__).parents[1].joinpath("docs/resampler.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    space = {}
    exec(code, space)
    words, mask = jnp.zeros((2, 5), jnp.int32), jnp.ones((2, 9), bool)
    with jax.numpy_rank_promotion("allow"):  # Flax's own layers promote
        logits, _ = space["Captioner"]().init_with_output(jax.random.key(0), inputs, mask, words)
    assert logits.shape == (2, 5, 100)
