"""The stack for TPUs and GPUs is that of `layers`; kernels of others are the formula."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from perceiver_jax import flops, mesh, stack
from perceiver_jax.attention import cost, library, platforms, self_attention
from perceiver_jax.attention.softmax import attend
from perceiver_jax.layers import SelfAttention
from perceiver_jax.perceiver import LatentTransformer
from perceiver_jax.train import sharding


@pytest.fixture
def off_the_cpu(monkeypatch):
    """Models are traced as for a TPU or GPU, but attention is that of this CPU."""

    def set_up(by="blocks", to_heads=False):
        monkeypatch.setattr(platforms, "is_one_loop", lambda: True)
        monkeypatch.setattr(platforms, "projects_to_heads", lambda _: to_heads)
        monkeypatch.setattr(platforms, "attends_by", lambda *_: by)

    return set_up


def latents(*, repeats=2, dtype=jnp.float32, remat="dots", heads=2, shape=(4, 6, 8), **fields):
    """A stack, its parameters, some latents, and a function of them with all gradients."""
    layer = SelfAttention(num_heads=heads, dtype=dtype, parent=None, **fields)
    model = LatentTransformer(layer, num_layers=3, num_repeats=repeats, remat=remat)
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.standard_normal(shape), dtype)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), z, train=False))
    params = jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), shapes
    )

    def loss(params, z, *, train=True):
        return jnp.sum(jnp.sin(model.apply(params, z, train=train).astype(jnp.float32)))

    return model, params, z, loss


def assert_close(got, expected, tolerance):
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        largest = max(1.0, float(jnp.max(jnp.abs(b))))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    ("repeats", "train", "fields"),
    [
        (1, True, {}),
        (3, True, {"qk_channels": 6, "v_channels": 10, "widening": 2}),
        (3, False, {"remat": "full"}),
        (2, True, {"remat": "none"}),
    ],
)
def test_it_is_the_loops_over_layers(off_the_cpu, repeats, train, fields):
    def run():
        *_, params, z, loss = latents(repeats=repeats, **fields)
        both = jax.value_and_grad(functools.partial(loss, train=train), (0, 1))
        return jax.jit(both)(params, z)

    expected = run()
    for to_heads in {False, repeats > 2}:
        off_the_cpu(to_heads=to_heads)
        assert_close(run(), expected, 2e-5)


def test_in_bfloat16_it_is_as_good_as_the_loops(off_the_cpu):
    def gradient(dtype):
        *_, params, z, loss = latents(repeats=4, dtype=dtype)
        return jax.jit(jax.grad(loss))(params, z)

    exact = gradient(jnp.float32)

    def error():
        pairs = zip(*map(jax.tree.leaves, (gradient(jnp.bfloat16), exact)), strict=True)
        return np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs))

    loops = error()
    off_the_cpu()
    assert error() < 1.2 * loops


def test_gradients_of_repeats_are_summed_in_float32():
    def summed(x):
        return jnp.sum(stack.spread(x, jnp.bfloat16, 256) * jnp.bfloat16(1.0078125))

    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(jax.grad(summed)(x), np.full((2, 3), 258.0))


def test_parameters_are_those_of_the_loops(off_the_cpu):
    model, params, z, _ = latents()
    off_the_cpu()
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), z, train=True))
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("why", ["dropout", "attention dropout", "collects", "dense"])
def test_what_it_cannot_do_the_loops_do(off_the_cpu, monkeypatch, why):
    fields = {"dropout_rate": 0.5} if why == "dropout" else {}
    fields = {"attention_dropout_rate": 0.5} if why == "attention dropout" else fields
    model, params, z, _ = latents(**fields)
    off_the_cpu()
    monkeypatch.setattr(stack, "apply_layers", None)
    run = functools.partial(model.apply, params, z, train=True, rngs={"dropout": jax.random.key(0)})
    with cost.forced("dense" if why == "dense" else None):
        jax.eval_shape(
            functools.partial(run, mutable=["intermediates"] if why == "collects" else [])
        )


def test_no_product_is_repeated_and_one_loop_goes_over_all_layers(off_the_cpu):
    off_the_cpu()

    def cost_of(remat):
        *_, params, z, loss = latents(remat=remat)
        return flops.executed(jax.grad(loss), params, z)

    assert cost_of("none") == cost_of("dots") < cost_of("full")
    *_, params, z, loss = latents(repeats=5)
    text = str(jax.make_jaxpr(jax.grad(loss))(params, z))
    assert set(re.findall(r" length=(\d+)", text)) == {"15"}  # forward and backward
    text = str(jax.make_jaxpr(functools.partial(loss, train=False))(params, z))
    assert set(re.findall(r" length=(\d+)", text)) == {"3", "5"}  # without copies of the weights


def on_heads(n, k, v, dtype=jnp.float32):
    rng = np.random.default_rng(n)
    return [jnp.asarray(rng.standard_normal((2, 3, n, c)), dtype) for c in (k, k, v)]


# Of 600, two blocks of 512; of wide heads each is a part of the keys by itself.
HEADS = [(128, 16, 16), (130, 32, 160), (600, 24, 20), (600, 24, 200)]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_kernels_of_others_are_the_formula(name, heads):
    """Latents and heads are filled up. cuDNN's layout is checked on the library's own formula."""
    run = {
        "splash": library.attend_splash,
        "cudnn": functools.partial(library.attend_cudnn, implementation="xla"),
    }[name]
    arrays = on_heads(*heads)

    def both(function, *arrays):
        result, pull = jax.vjp(function, *arrays)
        return result, pull(jnp.cos(result))

    got, expected = (jax.jit(functools.partial(both, f))(*arrays) for f in (run, attend))
    assert_close(got, expected, 2e-5)


def test_blocks_of_splash_attention_pad_little():
    blocks = [library.choose_block(n, 1024) for n in (100, 512, 600, 784, 1100, 2048)]
    assert blocks == [128, 512, 640, 896, 640, 1024]
    assert [library.choose_block(n, 512) for n in (200, 784, 2048)] == [256, 512, 512]
    assert platforms.splash_keys(200, jnp.float32) < 1024 < platforms.splash_keys(20, jnp.float32)


@pytest.mark.parametrize(("kind", "count"), [("TPU v4", 128), ("TPU v5 lite", 600)])
def test_splash_attention_in_bfloat16_is_as_good_as_the_formula(kind, count, monkeypatch):
    monkeypatch.setattr(mesh, "device_kind", lambda: kind)
    half = on_heads(count, 32, 16, jnp.bfloat16)
    exact = attend(*(x.astype(jnp.float32) for x in half))

    def error(function):
        return float(jnp.abs(function(*half).astype(jnp.float32) - exact).max())

    assert error(library.attend_splash) <= 1.5 * error(self_attention.self_attend) + 1e-3


def test_who_attends_where(monkeypatch):
    def by(platform, kind, n=512, k=128, v=128, dtype=jnp.bfloat16):
        monkeypatch.setattr(mesh, "platform", lambda: platform)
        monkeypatch.setattr(mesh, "device_kind", lambda: kind)
        return platforms.attends_by(*(jax.ShapeDtypeStruct((1, 1, n, w), dtype) for w in (k, v)))

    assert by("cpu", "cpu") == "blocks"
    assert by("tpu", "TPU v5 lite") == "splash"
    assert by("tpu", "TPU v4", k=32, v=160, dtype=jnp.float32) == "splash"
    assert by("tpu", "TPU v3") == "blocks"
    assert by("tpu", "TPU v4", n=127) == by("tpu", "TPU v4", dtype=jnp.float16) == "blocks"
    assert by("gpu", "NVIDIA A100-SXM4-40GB", k=12, v=5) == "cudnn"
    assert by("gpu", "NVIDIA A100-SXM4-40GB", v=160) == "blocks"
    assert by("gpu", "NVIDIA H100 80GB HBM3", k=32, v=160) == "cudnn"
    assert by("gpu", "NVIDIA H100 80GB HBM3", dtype=jnp.float32) == "blocks"


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_forward_kernels_run_once_where_their_results_are_kept(monkeypatch, platform):
    """In the program for a platform that is not here: one call forward and one backward."""
    monkeypatch.setattr(mesh, "platform", lambda: platform.replace("cuda", "gpu"))
    monkeypatch.setattr(mesh, "device_kind", lambda: "TPU v4")
    if platform == "cuda":
        kernels = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
        monkeypatch.setattr(kernels, "check_cudnn_version", lambda *_, **__: 91000)
        monkeypatch.setattr(kernels, "check_compute_capability", lambda *_, **__: True)
    calls = {}
    for remat in ("dots", "full"):
        *_, params, z, loss = latents(remat=remat, dtype=jnp.bfloat16, heads=1, shape=(1, 128, 16))
        lowered = jax.jit(jax.grad(loss)).trace(params, z).lower(lowering_platforms=(platform,))
        call = r"custom_call @(tpu_custom_call|__cudnn\$fmhaSoftmax)"
        calls[remat] = len(re.findall(call, lowered.as_text()))
    assert calls == {"dots": 2, "full": 3}


@pytest.mark.parametrize(
    "parallel",
    [
        {},
        {"model": 2, "shard_inputs": True},
        {"model": 2, "latents": "width"},
        {"shard_params_above": 100},
    ],
    ids=str,
)
def test_devices_share_the_stack(off_the_cpu, monkeypatch, parallel):
    """Each attends for its own examples, and its heads where the width is spread."""
    section = common.parallel()
    section.update(parallel)
    layout = sharding.make_layout(section, jax.devices()[:4])
    *_, params, z, loss = latents()
    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, z)
    seen = []

    def kernel(query, key, value):
        seen.append(query.shape[:2])
        return attend(query, key, value)

    off_the_cpu("splash")
    monkeypatch.setattr(library, "attend_splash", kernel)

    def on_devices(params, z):
        with mesh.use_layout(layout):
            return jax.value_and_grad(loss, (0, 1))(params, z)

    assert_close(jax.jit(on_devices)(params, z), expected, 2e-5)
    assert set(seen) == {(2, 1) if "latents" in parallel else (1, 2)}
