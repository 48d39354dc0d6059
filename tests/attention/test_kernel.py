"""The TPU's kernel, interpreted, against the textbook formula: values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cross import assert_agrees, make_tokens, random
from test_sharded_inputs import make_layout

from experiments.plan import work
from perceiver_jax import flops, mesh
from perceiver_jax.attention import cost
from perceiver_jax.attention.cost import ABSORB, ContractionOrder
from perceiver_jax.attention.kernel import blocks, sums, tiling
from perceiver_jax.layers import CrossAttention
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens


@pytest.fixture
def calls(monkeypatch):
    """The tilings that the kernel was traced with."""
    found, grid_sums = [], sums.grid_sums

    def record(tiling, *args):
        found.append(tiling)
        return grid_sums(tiling, *args)

    monkeypatch.setattr(sums, "grid_sums", record)
    return found


@pytest.mark.parametrize(
    ("kind", "heads", "latents", "padded", "masked"),
    [("2 axes", 2, 1, True, True), ("3 axes", 1, 2, False, False), ("places", 1, 2, True, False)],
)
@pytest.mark.parametrize("kernel", ["kernel", "gpu_kernel"])
def test_the_layer_is_the_textbook_formula(kernel, kind, heads, latents, padded, masked, calls):
    rng = np.random.default_rng(0)
    inputs = make_tokens(rng, kind, padded=padded, masked=masked)
    queries = Tokens(content=random(rng, latents, 3, 5))
    block = CrossAttention(num_heads=heads, qk_channels=4, v_channels=6)
    assert_agrees(block, queries, inputs, kernel)
    assert {type(t) for t in calls} == {tiling.Tiling if kernel == "kernel" else tiling.GpuTiling}


def arguments(batch, few, count, channels, shape, *, half, masked, seed=0):
    rng = np.random.default_rng(seed)
    tokens = shape[0] * shape[1]
    content = random(rng, batch, tokens, channels)
    a = random(rng, few, count, channels)
    if half and channels > 8:  # one part, so only numbers that bfloat16 has
        a = a.astype(jnp.bfloat16).astype(jnp.float32) / blocks.LOG2E
    return (
        a,
        random(rng, few, count, shape[0], scale=2.0),
        random(rng, few, count, shape[1], scale=2.0),
        content.astype(jnp.bfloat16) if half else content,
        0.5 + jnp.abs(random(rng, batch, tokens)),
        jnp.asarray(rng.random((batch, tokens)) < 0.6) if masked else None,
    )


def formula(a, rows, inner, content, r, mask):
    """The sums by the definition."""
    shape = content.shape[0], a.shape[1], rows.shape[2], inner.shape[2]
    few, content = jnp.broadcast_to(a, (shape[0], *a.shape[1:])), content.astype(jnp.float32)
    logits = jnp.einsum("bnc,bmc->bnm", few, content, precision="highest").reshape(shape)
    logits = (logits + rows[..., None] + inner[:, :, None]).reshape(*shape[:2], -1) * r[:, None]
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, -1e30)
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    weights = jnp.exp(logits - maximum[..., None])
    if mask is not None:
        weights = jnp.where(mask[:, None], weights, 0.0)
    scaled = weights * r[:, None]
    grid = scaled.reshape(shape)
    by_content = jnp.einsum("bnm,bmc->bnc", scaled, content, precision="highest")
    return maximum, jnp.sum(weights, axis=-1), by_content, jnp.sum(grid, 3), jnp.sum(grid, 2)


def with_gradients(function, args):
    """Sums and the gradients of a weighted sum of all but the max."""
    rng = np.random.default_rng(1)
    cotangents = [random(rng, *x.shape) for x in jax.eval_shape(formula, *args)[1:]]

    def weighted(*args):
        found = function(*args)
        return sum(jnp.sum(x * c) for x, c in zip(found[1:], cotangents, strict=True)), found

    grads, found = jax.jit(jax.grad(weighted, argnums=range(5), has_aux=True))(*args)
    return [np.asarray(x, np.float32) for x in (*found, *grads)]


# Of max, denominator, sums by content, row, place; of the gradients of a, rows, inner, content, r.
FLOAT32 = [2e-6] * 10
HALF = [2e-6, 1e-5, 1e-5, 1e-5, 1e-5, 4e-3, 4e-3, 1e-5, 4e-3, 1e-5]
# Of many channels, whose weights have one part; the gradients of the sums are rounded too.
ONE_PART = [2e-6, 1e-5, 4e-3, 4e-3, 1e-5] + [1e-2] * 5


@pytest.mark.parametrize(
    ("count", "channels", "shape", "half", "masked", "allowed"),
    [
        (20, 3, (7, 50), False, True, FLOAT32),  # blocks and groups that do not divide
        (20, 3, (7, 50), True, True, HALF),
        (5, 20, (3, 130), True, False, ONE_PART),  # a row longer than a block
    ],
)
def test_sums_and_gradients(count, channels, shape, half, masked, allowed, monkeypatch):
    """Errors relative to the norm, over several blocks, groups and slices of queries."""
    monkeypatch.setattr(tiling, "MAX_QUERIES", 16)
    monkeypatch.setattr(tiling, "MAX_LANES", 128)
    args = arguments(2, 1, count, channels, shape, half=half, masked=masked)
    layout = tiling.choose_tiling(count, channels, shape, masked=masked, half=half, vmem=2**24)
    assert layout.steps * layout.groups > 1
    ours = with_gradients(functools.partial(sums.grid_sums, layout), args)
    for got, want, limit in zip(ours, with_gradients(formula, args), allowed, strict=True):
        assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want)


# As above; in half precision each number has two parts in sums, or one of many channels.
GPU_HALF = [2e-6, 1e-5, 1e-5, 1e-5, 1e-5, 2e-5, 1e-5, 1e-5, 4e-3, 1e-5]


@pytest.mark.parametrize(
    ("count", "channels", "shape", "few", "half", "masked", "splits", "allowed"),
    [
        (20, 3, (7, 50), 1, False, True, 1, FLOAT32),  # blocks that do not divide
        (20, 3, (7, 50), 2, True, True, 3, GPU_HALF),  # 7 rows in 3 parts
        (5, 8, (3, 130), 1, True, False, 1, GPU_HALF),
        (40, 20, (3, 20), 1, True, False, 2, ONE_PART),
    ],
)
def test_sums_and_gradients_on_gpus(count, channels, shape, few, half, masked, splits, allowed):
    """Over several blocks of queries and of columns."""
    args = arguments(2, few, count, channels, shape, half=half, masked=masked)
    layout = tiling.GpuTiling(count, channels, shape, half, queries=16, width=16, splits=splits)
    assert layout.columns > 1
    ours = with_gradients(functools.partial(sums.grid_sums, layout), args)
    for got, want, limit in zip(ours, with_gradients(formula, args), allowed, strict=True):
        assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want)


@pytest.mark.parametrize(
    "layout",
    [
        tiling.choose_tiling(2, 3, (2, 3), masked=True, half=False, vmem=2**24),
        tiling.GpuTiling(2, 3, (2, 3), half=False),
    ],
)
def test_a_query_that_sees_no_token(layout):
    args = arguments(1, 1, 2, 3, (2, 3), half=False, masked=True)
    args = *args[:4], 1e-6 * args[4], jnp.zeros((1, 6), bool)  # a tiny r hides nothing
    found = jax.jit(functools.partial(sums.grid_sums, layout))(*args)
    assert np.all(found.max < -1e29)
    assert not any(np.any(x) for x in found[1:])


def test_groups_fill_up_as_little_as_possible():
    """Of the published models; left and right are no deeper than a matrix unit."""
    choose = functools.partial(tiling.choose_tiling, masked=False, half=True, vmem=96 * 2**20)
    image, flow = choose(512, 3, (224, 224)), choose(2048, 64, (368, 496))
    assert (image.fold, image.steps, image.lanes) == (4, 8, 896)
    assert image.tokens == 224 * 224
    assert (flow.fold, flow.lanes, flow.tokens) == (2, 1024, 368 * 512)
    assert max(image.depth, flow.depth) <= 128


def test_tokens_cost_nothing_where_they_have_no_gradient():
    """As pixels: the backward kernel then has two results fewer."""
    args = arguments(1, 1, 2, 3, (2, 3), half=False, masked=False)
    layout = tiling.choose_tiling(2, 3, (2, 3), masked=False, half=False, vmem=2**24)

    def results(argnums):
        def total(*args):
            return sum(map(jnp.sum, sums.grid_sums(layout, *args)[1:]))

        jaxpr = jax.make_jaxpr(jax.grad(total, argnums))(*args)
        return [len(e.outvars) for e in jaxpr.eqns if e.primitive.name == "pallas_call"]

    assert results((0, 1, 2)) == [5, 2]
    assert results((3,)) == [5, 4]


def test_its_products_are_counted():
    """Two of a block's factors, for every block and slice of queries."""
    args = arguments(2, 1, 300, 3, (7, 50), half=False, masked=False)
    layout = tiling.choose_tiling(300, 3, (7, 50), masked=False, half=False, vmem=2**24)
    counted = flops.executed(functools.partial(sums.grid_sums, layout), *args)
    assert layout.padded_count > layout.queries
    assert counted == 2 * 2 * 2 * layout.padded_count * layout.depth * layout.tokens


def test_pallas_lowers_it_for_tpus(monkeypatch):
    """Forward and backward, without their compiler; two blocks and slices of queries, filled up."""
    monkeypatch.setattr(mesh, "platform", lambda: "tpu")
    args = arguments(2, 1, 300, 3, (5, 300), half=True, masked=True)
    layout = tiling.choose_tiling(300, 3, (5, 300), masked=True, half=True, vmem=2**25)

    def total(*args):
        return sum(map(jnp.sum, sums.grid_sums(layout, *args)[1:]))

    lowered = jax.jit(jax.grad(total, range(5))).trace(*args).lower(lowering_platforms=("tpu",))
    program = work.operations(lowered.as_text("hlo", debug_info=True))
    kernels = [(o.flops, o.cycles) for o in program if o.kind == "kernels"]
    weights = 2 * layout.padded_count * layout.tokens
    assert kernels == [
        (2 * products * layout.depth * weights, round(work.BESIDE[name][0] * weights / 1024))
        for products, name in ((3, "forward_block"), (5, "backward_block"))
    ]


def test_triton_lowers_it_for_gpus(monkeypatch):
    """All three programs, without their compiler; the plan finds the work of each."""
    monkeypatch.setattr(mesh, "platform", lambda: "gpu")
    args = arguments(2, 1, 100, 20, (5, 70), half=True, masked=True)
    layout = tiling.choose_gpu_tiling(100, 20, (5, 70), half=True, batch=2, processors=2)

    def total(*args):
        return sum(map(jnp.sum, sums.grid_sums(layout, *args)[1:]))

    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
        traced = jax.jit(jax.grad(total, range(5))).trace(*args)
        lowered = traced.lower(lowering_platforms=("cuda",))
    program = work.operations(lowered.as_text("hlo", debug_info=True))
    blocks = 2 * layout.padded_count * layout.tokens / work.BLOCK
    cycles = [blocks * n / work.GPU_PROCESSORS for n in work.INSTRUCTIONS.values()]
    found = [o.cycles for o in program if o.kind == "kernels"]
    assert found == pytest.approx(cycles, rel=0.01)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_it_states_the_products_that_it_runs(half, tokens):
    """A float32 one is six of bfloat16. The grid has several groups, steps and slices."""
    args = arguments(2, 1, 300, 3, (7, 50), half=half, masked=False)
    layout = tiling.choose_tiling(300, 3, (7, 50), masked=False, half=half, vmem=2**24)

    def total(*args):
        return sum(map(jnp.sum, sums.grid_sums(layout, *args)[1:]))

    gradient = jax.grad(total, range(5) if tokens else range(3))
    calls = [e for e in jax.make_jaxpr(gradient)(*args).eqns if e.primitive.name == "pallas_call"]
    stated = [call.params["cost_estimate"] for call in calls]
    run = flops.executed(gradient, *args) * (1 if half else 6)
    assert sum(c.flops for c in stated) == run
    weights = 2 * layout.padded_count * layout.tokens
    assert [c.transcendentals for c in stated] == [weights] * 2
    for call, of in zip(calls, stated, strict=True):
        arrays = sum(x.aval.size * x.aval.dtype.itemsize for x in (*call.invars, *call.outvars))
        assert of.bytes_accessed >= arrays


def test_where_the_kernel_is_used(monkeypatch):
    grid = Tokens(content=jnp.zeros((1, 224 * 224, 3)), position=Fourier((224, 224), 64))

    def fits(tokens=grid, order=ABSORB, dtype=jnp.bfloat16, count=512):
        outer = tokens.num_tokens // 224
        return cost.kernel_tiling(tokens, order, count, outer, dtype, 1) is not None

    assert not fits()  # on a CPU
    monkeypatch.setattr(mesh, "platform", lambda: "tpu")
    monkeypatch.setattr(mesh, "device_kind", lambda: "TPU v5 lite")
    assert fits()
    assert fits(dtype=jnp.float32)
    assert not fits(dtype=jnp.float16)
    assert not fits(order=ContractionOrder("project", "absorb"))
    assert not fits(tokens=make_tokens(np.random.default_rng(0), "table"))
    assert not fits(tokens=make_tokens(np.random.default_rng(0), "1 axis"))
    assert not fits(count=8)  # few weights
    with monkeypatch.context() as other:
        other.setattr(mesh, "device_kind", lambda: "TPU v3")
        assert not fits()
        other.setattr(mesh, "platform", lambda: "gpu")
        other.setattr(mesh, "device_kind", lambda: "NVIDIA A100-SXM4-80GB")
        assert not fits()
        other.setattr(mesh, "device_kind", lambda: "NVIDIA H100 80GB HBM3")
        assert fits()
        assert fits(dtype=jnp.float32)
        many = grid.replace(content=jnp.zeros((1, 224 * 224, 64)))
        assert fits(many)
        assert not fits(many, dtype=jnp.float32)  # slow products
    for order in ("dense", ABSORB):
        with cost.forced(order):
            assert not fits()


@pytest.mark.parametrize("kernel", ["kernel", "gpu_kernel"])
@pytest.mark.parametrize("parallel", [{}, {"model": 2, "shard_inputs": True}])
def test_devices_call_it_for_their_own_examples_and_tokens(kernel, parallel, calls):
    """3 rows do not divide by 2 devices."""
    rng = np.random.default_rng(0)
    block = CrossAttention(num_heads=1, qk_channels=4)
    inputs, queries = make_tokens(rng, "2 axes"), Tokens(content=random(rng, 1, 3, 5))
    layout = make_layout(4 if parallel else 2, **parallel)

    def run(content):
        tokens = inputs.replace(content=content)
        return block.init_with_output(jax.random.key(0), queries, tokens, train=False)[0]

    def both(content):
        one = jax.value_and_grad(lambda x: jnp.sum(jnp.sin(run(x))))(content)
        with mesh.use_layout(layout), cost.forced(kernel):
            return one, jax.value_and_grad(lambda x: jnp.sum(jnp.sin(run(x))))(content)

    one, ours = jax.jit(both)(inputs.content)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ours, one)
    assert {t.shape[0] for t in calls} == {2 if parallel else 3}
