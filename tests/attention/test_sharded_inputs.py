"""Tokens and queries spread over devices: the same numbers and gradients, in less memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cross import make_tokens, random, random_variables, split_arrays

from configs import common
from perceiver_jax import mesh
from perceiver_jax.attention import cost, platforms
from perceiver_jax.layers import CrossAttention, SelfAttention
from perceiver_jax.perceiver import LatentTransformer
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens
from perceiver_jax.train import sharding


def make_layout(devices=8, **parallel):
    section = common.parallel()
    section.update(parallel)
    return sharding.make_layout(section, jax.devices()[:devices])


def assert_agrees(queries, inputs, **fields):
    """On 2 x 2 devices, with several chunks each: values and gradients are those of one device."""
    block = CrossAttention(num_heads=2, qk_channels=4, v_channels=6, **fields)
    rng = np.random.default_rng(0)
    variables = random_variables(rng, block, queries, inputs)
    arrays, rebuild = split_arrays((variables, queries, inputs))

    def run(arrays):
        variables, queries, inputs = rebuild(arrays)
        return block.apply(variables, queries, inputs, train=False)

    weights = random(rng, *jax.eval_shape(run, arrays).shape)

    def weighted(arrays):
        found = run(arrays)
        return jnp.sum(found * weights), found

    with_gradient = jax.grad(weighted, has_aux=True)

    def both(arrays):
        one = with_gradient(arrays)
        budget = 4 * 2 * 2 * 3 * 2  # 2 tokens at once, of 2 examples, 2 heads, 3 queries
        layout = make_layout(4, model=2, shard_inputs=True)
        with mesh.use_layout(layout), cost.forced(chunk_bytes=budget):
            return one, with_gradient(arrays)

    one, ours = jax.jit(both)(arrays)
    largest = max(np.abs(g).max() for g in one[0])
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max() + 2e-6 * largest)


def test_reading_is_that_of_one_device():
    """Modalities in one softmax: 3 rows and 7 tokens do not divide by 2 devices."""
    rng = np.random.default_rng(0)
    inputs = {
        "rows": make_tokens(rng, "2 axes"),
        "places": make_tokens(rng, "some of a grid", masked=True),
        "label": Tokens(content=random(rng, 2, 1, 5)),  # fewer than devices
    }
    inputs = {
        name: tokens.replace(padding=random(rng, 19 - tokens.replace(padding=None).width))
        for name, tokens in inputs.items()
    }
    assert_agrees(Tokens(content=random(rng, 1, 3, 5)), inputs)


def test_reading_with_queries_of_each_example():
    rng = np.random.default_rng(0)
    inputs = make_tokens(rng, "3 axes", masked=True)
    inputs = inputs.replace(mask=inputs.mask.at[1].set(False))  # nothing there
    assert_agrees(Tokens(content=random(rng, 2, 3, 5)), inputs)


@pytest.mark.parametrize("kind", ["2 axes", "some of a grid"])
def test_answering_is_that_of_one_device(kind):
    rng = np.random.default_rng(0)
    queries = make_tokens(rng, kind, masked=kind == "some of a grid")
    assert_agrees(queries, Tokens(content=random(rng, 2, 3, 5)))


@pytest.mark.parametrize("asked", [False, True], ids=["read", "asked"])
def test_chunks_are_of_what_one_device_has(asked):
    """Of 8 examples on 4 devices, 2: so chunks are 4 times as long as on one."""
    block = CrossAttention()
    pair = [jnp.zeros((8, 3, 5)), jnp.zeros((8, 64, 5))]
    few, many = (Tokens(content=x) for x in pair)
    arguments = (many, few) if asked else (few, many)
    variables = block.init(jax.random.key(0), *arguments, train=False)
    lengths = []
    for devices in (1, 4):
        layout = make_layout(devices)

        def apply(variables, layout=layout):
            with mesh.use_layout(layout):
                return block.apply(variables, *arguments, train=False)

        with cost.forced(chunk_bytes=4 * 3 * 8 * 4):
            text = str(jax.make_jaxpr(apply)(variables))
        lengths.append(max(int(n) for n in re.findall(r" length=(\d+)", text)))
    assert lengths[0] == 4 * lengths[1], lengths


@pytest.mark.parametrize("asked", [False, True], ids=["read", "asked"])
def test_memory_falls_with_the_number_of_devices(asked):
    """Of a grid that is read, or asked for; nothing as large as it travels."""
    side = 512
    block = CrossAttention()
    few = jax.ShapeDtypeStruct((1, 16, 16), jnp.float32)
    many = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

    def tokens(content):
        return Tokens(content=content.reshape(1, -1, 3), position=Fourier((side, side), 4))

    def apply(variables, few, many):
        pair = Tokens(content=few), tokens(many)
        return block.apply(variables, *(pair[::-1] if asked else pair), train=False)

    pair = [Tokens(content=jnp.zeros(few.shape)), tokens(jnp.zeros(many.shape))]
    variables = jax.eval_shape(
        lambda: block.init(jax.random.key(0), *(pair[::-1] if asked else pair), train=False)
    )

    def program(devices):
        layout = make_layout(devices, model=devices, shard_inputs=True)
        place = sharding.batch_shardings({"image": many}, layout)["image"]

        def loss(variables, few, many):
            with mesh.use_layout(layout):
                return jnp.sum(jnp.square(apply(variables, few, many)))

        shards = (None, None, place)
        gradient = jax.jit(jax.grad(loss, (0, 1, 2)), in_shardings=shards, out_shardings=shards)
        with cost.forced(chunk_bytes=2**14):
            return gradient.lower(variables, few, many).compile()

    two, eight = program(2), program(8)
    memory = [x.memory_analysis() for x in (two, eight)]
    sizes = [
        m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes for m in memory
    ]
    assert sizes[1] < 0.4 * sizes[0], sizes
    assert "all-gather" not in eight.as_text()


@pytest.mark.parametrize("one_loop", [False, True])
@pytest.mark.parametrize("way", ["width", "parameters"])
def test_latents_stay_where_their_examples_are(monkeypatch, way, one_loop):
    """Of latent layers, channels or parameters spread: sums travel, or a layer's kernels; no z."""
    monkeypatch.setattr(platforms, "is_one_loop", lambda: one_loop)
    parallel = {
        "width": {"model": 4, "latents": "width"},
        "parameters": {"shard_params_above": 100},
    }[way]
    layout = make_layout(**parallel)
    layers = SelfAttention(num_heads=4, parent=None)
    stack = LatentTransformer(layers, num_layers=2, name="blocks")
    z = jnp.zeros((8, 5, 16))
    shapes = {"blocks": jax.eval_shape(lambda: stack.init(jax.random.key(0), z, train=False))}
    places = jax.tree.map(lambda x: x.sharding, sharding.place(shapes, layout))

    def loss(variables, z):
        with mesh.use_layout(layout):
            return jnp.sum(jnp.square(stack.apply(variables["blocks"], z, train=False)))

    rows = sharding.batch_shardings({"z": z}, layout)["z"]
    gradient = jax.jit(jax.grad(loss), in_shardings=(places, rows), out_shardings=places)
    text = gradient.lower(shapes, z).compile().as_text()
    gathered = set(re.findall(r"= f32\[([\d,]+)\]\S* all-gather", text))
    kernels = [sorted(map(int, shape.split(","))) for shape in gathered]
    assert bool(kernels) == (way == "parameters")
    assert all(5 not in shape and np.prod(shape) <= 16 * 16 for shape in kernels), gathered
    assert "all-to-all" not in text and "collective-permute" not in text
    assert "all-reduce" in text
