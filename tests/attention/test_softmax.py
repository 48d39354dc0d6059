"""The dense formula and its mergeable states."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_jax.attention.softmax import attend, merge, normalize, softmax_state


def inputs(seed, b, h, n, m, k, v, scale=1.0):
    rng = np.random.default_rng(seed)
    query = scale * rng.standard_normal((b, h, n, k), np.float32)
    key = rng.standard_normal((b, h, m, k), np.float32)
    value = rng.standard_normal((b, h, m, v), np.float32)
    return query, key, value, rng.random((b, m)) < 0.7


def reference(query, key, value, mask):
    """softmax(q k / sqrt(K)) v in float64, one row at a time; zeros for a row without tokens."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    b, h, n, k = query.shape
    out = np.zeros((b, h, n, value.shape[-1]))
    for i, j, q in np.ndindex(b, h, n):
        keep = np.asarray(mask[i])
        if keep.any():
            logits = key[i, j][keep] @ query[i, j, q] / np.sqrt(k)
            weights = np.exp(logits - logits.max())
            out[i, j, q] = weights @ value[i, j][keep] / weights.sum()
    return out


sizes = st.tuples(*[st.integers(1, 5)] * 6, st.integers(0, 10**6))


@settings(max_examples=10, deadline=None)
@given(sizes, st.sampled_from([1.0, 100.0]))
def test_attend_is_the_textbook_formula(shape, scale):
    b, h, n, m, k, v, seed = shape
    query, key, value, mask = inputs(seed, b, h, n, m, k, v, scale)
    expected = reference(query, key, value, mask)
    got = jax.jit(attend)(query, key, value, mask=mask)
    np.testing.assert_allclose(got, expected, atol=2e-5)


@settings(max_examples=10, deadline=None)
@given(sizes, st.data())
def test_merging_parts_in_any_grouping_is_attending_to_all(shape, data):
    b, h, n, m, k, v, seed = shape
    m += 2
    query, key, value, mask = inputs(seed, b, h, n, m, k, v, scale=5.0)
    i, j = sorted(data.draw(st.lists(st.integers(1, m - 1), min_size=2, max_size=2, unique=True)))
    cuts = slice(0, i), slice(i, j), slice(j, m)

    @jax.jit
    def run(query, key, value, mask):
        a, b, c = (
            softmax_state(query, key[:, :, s], value[:, :, s], mask=mask[:, s]) for s in cuts
        )
        merged = merge(merge(a, b), c), merge(a, merge(b, c)), merge(c, merge(b, a))
        return attend(query, key, value, mask=mask), [normalize(result) for result in merged]

    whole, results = run(query, key, value, mask)
    for result in results:
        np.testing.assert_allclose(result, whole, atol=1e-5)


def test_merged_gradients_are_those_of_the_whole():
    query, key, value, mask = inputs(0, 2, 2, 3, 7, 4, 5)

    def whole(q, k, v):
        return jnp.sum(jnp.sin(attend(q, k, v, mask=mask)))

    def merged(q, k, v):
        a = softmax_state(q, k[:, :, :3], v[:, :, :3], mask=mask[:, :3])
        b = softmax_state(q, k[:, :, 3:], v[:, :, 3:], mask=mask[:, 3:])
        return jnp.sum(jnp.sin(normalize(merge(a, b))))

    expected = jax.grad(whole, argnums=(0, 1, 2))(query, key, value)
    got = jax.grad(merged, argnums=(0, 1, 2))(query, key, value)
    for one, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, want, atol=1e-6)


def test_a_masked_token_is_an_absent_token():
    query, key, value, _ = inputs(1, 2, 2, 3, 6, 4, 4)
    mask = jnp.arange(6)[None] < jnp.array([[4], [4]])
    shorter = attend(query, key[:, :, :4], value[:, :, :4])
    np.testing.assert_allclose(attend(query, key, value, mask=mask), shorter, atol=1e-6)
    loud = np.where(mask[:, None, :, None], key, 1e4), np.where(mask[:, None, :, None], value, 1e4)
    np.testing.assert_allclose(attend(query, *loud, mask=mask), shorter, atol=1e-6)


def test_queries_that_see_nothing_give_zeros_and_finite_gradients():
    query, key, value, _ = inputs(2, 1, 1, 2, 3, 4, 4)
    mask = jnp.zeros((1, 3), bool)
    assert not np.any(attend(query, key, value, mask=mask))
    grads = jax.grad(lambda *a: jnp.sum(attend(*a, mask=mask)), argnums=(0, 1, 2))(
        query, key, value
    )
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_queries_without_a_batch_are_those_of_every_example():
    query, key, value, mask = inputs(3, 3, 2, 4, 5, 4, 4)
    one = query[:1]
    copied = attend(jnp.repeat(one, 3, axis=0), key, value, mask=mask)
    np.testing.assert_allclose(attend(one, key, value, mask=mask), copied, atol=1e-6)


def test_softmax_stays_float32_under_bfloat16():
    """Logits of about 300 need more than bfloat16's 8 bits to tell two tokens apart."""
    query = jnp.full((1, 1, 1, 1), 300.0, jnp.bfloat16)
    key = jnp.array([1.0, 1.0 + 2**-7], jnp.bfloat16).reshape(1, 1, 2, 1)
    value = jnp.array([0.0, 1.0], jnp.bfloat16).reshape(1, 1, 2, 1)
    expected = 1 / (1 + np.exp(-300 * 2**-7))
    out = attend(query, key, value)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out.item(), expected, atol=1e-2)
