"""Hand-written gradients: those of the formulas, in the dtypes promised, with little kept."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from perceiver_jax import flops, mesh
from perceiver_jax.attention import platforms, self_attention
from perceiver_jax.attention.softmax import attend
from perceiver_jax.layers import SelfAttention
from perceiver_jax.perceiver import LatentTransformer


def normal(seed, *shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def heads(n=7, k=8, v=8, dtype=np.float32):
    return [normal(i, 2, 3, n, c, dtype=dtype) for i, c in enumerate((k, k, v))]


def value_and_vjp(function, *args, seed=9):
    @jax.jit
    def run(*args):
        out, pull = jax.vjp(function, *args)
        return out, pull(normal(seed, *out.shape, dtype=out.dtype))

    return jax.tree.leaves(run(*args))


def assert_same(function, definition, *args, atol=2e-5):
    got, expected = value_and_vjp(function, *args), value_and_vjp(definition, *args)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=atol * max(1.0, float(jnp.max(jnp.abs(b)))))


def primitives(jaxpr):
    """Every equation of a program, those of its loops and branches included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=flops._is_jaxpr):
            if flops._is_jaxpr(value):
                yield from primitives(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("shape", [(2, 5, 6), (4, 6)])
def test_product(shape):
    assert_same(self_attention.product, lambda x, w: x @ w, normal(0, *shape), normal(1, 6, 3))


def test_only_the_cpu_transposes_before_the_product():
    grad = jax.jit(jax.grad(lambda w, x: jnp.sum(self_attention.product(x, w) ** 2)))
    traced = grad.trace(jnp.ones((4, 4)), jnp.ones((2, 4)))
    for platform, barriers in (("cpu", True), ("tpu", False), ("cuda", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("optimization_barrier" in text) is barriers, platform


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm(dtype):
    library = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False)

    def definition(x, scale, bias):
        return library.apply({"params": {"scale": scale, "bias": bias}}, x)

    x = 3 * normal(0, 2, 5, 16) + 2
    x = x.at[0, 0].set(4.0).astype(dtype)  # a row without variance
    scale, bias = normal(1, 16), normal(2, 16)
    bound = 2e-5 if dtype == jnp.float32 else 1e-2
    assert_same(self_attention.layer_norm, definition, x, scale, bias, atol=bound)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("v", [8, 5])
def test_self_attend_is_attend(scale, v):
    query, key, value = heads(v=v)
    assert_same(self_attention.self_attend, attend, scale * query, key, value, atol=5e-5)


@pytest.mark.parametrize("budget", [1, 4 * 2 * 3 * 12 * 2])
def test_self_attend_in_groups_of_heads_and_blocks_of_queries(monkeypatch, budget):
    query, key, value = heads(n=12)
    monkeypatch.setitem(platforms.CHUNK_BYTES, "cpu", budget)
    largest = 2 * 3 * 12 * (1 if budget == 1 else 2)
    jaxpr = jax.make_jaxpr(jax.grad(lambda *a: jnp.sum(self_attention.self_attend(*a))))(
        query, key, value
    )
    sizes = [v.aval.size for e in primitives(jaxpr.jaxpr) for v in e.outvars if v.aval.ndim == 4]
    assert max(sizes) <= max(largest, query.size)
    assert_same(self_attention.self_attend, attend, query, key, value, atol=5e-5)


def test_attention_is_cut_for_the_devices_that_are_traced_for():
    """By each one's examples: else more devices would have more and smaller blocks."""
    query, key, _ = jax.eval_shape(lambda: [jnp.zeros((64, 8, 512, 128))] * 3)
    devices = np.array([types.SimpleNamespace(platform="tpu")] * 4, object)
    slice_ = types.SimpleNamespace(devices=devices, shape={"data": 4, "model": 1})
    for mode, parts in (("jit", (8, 1)), ("pmap", (8, 4))):  # 16 or 64 examples of 8 MiB
        layout = mesh.Layout(slice_, mode, 1, 0, False, "batch", local=mode == "pmap")
        with mesh.use_layout(layout):
            assert self_attention._num_blocks(query, key) == parts
    assert self_attention._num_blocks(query, key) == (
        8,
        8,
    )  # on this CPU all 64, in blocks of 8 MiB


def test_local_batch_size_is_those_of_a_device_also_where_it_sees_no_others():
    devices = jax.sharding.Mesh(np.reshape(jax.devices(), (-1, 1)), ("data", "model"))
    seen = []

    def look(x):
        seen.append(mesh.local_batch_size(x.shape[0]))
        return x

    spec = jax.sharding.PartitionSpec("data")
    own = jax.shard_map(look, mesh=devices, in_specs=spec, out_specs=spec)
    batch = jnp.zeros(8 * devices.size)
    with mesh.use_layout(mesh.Layout(devices, "jit", 1, 0, False, "batch")):
        jax.eval_shape(look, batch)
        jax.eval_shape(own, batch)
    assert seen == [8, 8]


def test_self_attend_in_bfloat16_is_as_good_as_attend():
    half = heads(n=32, dtype=jnp.bfloat16)
    exact = value_and_vjp(attend, *[x.astype(jnp.float32) for x in half])

    def error(function):
        outs = value_and_vjp(function, *half)
        return [
            np.abs(np.asarray(a, np.float32) - b).max() for a, b in zip(outs, exact, strict=True)
        ]

    ours = error(self_attention.self_attend)
    dense = error(lambda q, k, v: attend(q, k, v).astype(v.dtype))
    assert np.all(np.array(ours) <= 1.5 * np.array(dense) + 1e-3), (ours, dense)


def test_no_weights_are_kept_for_the_backward_pass():
    def kept(function):
        pull = jax.eval_shape(lambda *x: jax.vjp(function, *x)[1], *heads())
        return [leaf.shape[-2:] for leaf in jax.tree.leaves(pull)]

    assert (7, 7) in kept(attend)
    assert (7, 7) not in kept(self_attention.self_attend)


def stack(remat="none", dtype=jnp.float32):
    layer = SelfAttention(num_heads=2, dtype=dtype, parent=None)
    model = LatentTransformer(layer, num_layers=2, num_repeats=2, remat=remat)
    x = jnp.ones((1, 6, 8), dtype)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return jax.grad(lambda v, x: jnp.sum(model.apply(v, x, train=False))), variables, x


def test_bfloat16_products_and_float32_softmax_and_norms():
    grad, variables, x = stack(dtype=jnp.bfloat16)
    eqns = list(primitives(jax.make_jaxpr(grad)(variables, x).jaxpr))
    matrices = seen = 0
    for eqn in eqns:
        dtypes = {v.aval.dtype for v in eqn.invars if hasattr(v.aval, "dtype")}
        if eqn.primitive.name == "dot_general":
            rank = max(v.aval.ndim for v in eqn.invars)
            sums = len(eqn.params["dimension_numbers"][1][0]) == rank - 1  # of products, by row
            assert dtypes == {jnp.dtype(jnp.float32 if sums else jnp.bfloat16)}, eqn
            matrices += not sums
        elif eqn.primitive.name in ("exp", "rsqrt"):
            assert dtypes == {jnp.dtype(jnp.float32)}, eqn
            seen += 1
    assert matrices >= 8 + 16 and seen >= 3


def test_remat_dots_repeats_no_product():
    def cost(remat):
        grad, *args = stack(remat)
        return flops.executed(grad, *args)

    assert cost("none") == cost("dots") < cost("full")
