"""One step however it is spread over devices: mesh, places of state and batch, `jit`, `pmap`."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import linen as nn
from jax.sharding import PartitionSpec

from experiments.plan import hlo
from perceiver_jax.train import sharding
from perceiver_jax.train.start import build

WAYS = {
    "jit": {},
    "pmap": {"mode": "pmap"},
    "sharded parameters": {"shard_params_above": 20},
}


# A part frozen, a part slower, an average.
TUNING = {
    "optimizer__multipliers": (("layers/norm", 0.0), ("head", 0.5)),
    "optimizer__ema": 0.5,
}


def program_of(task, devices=None, *, accumulate=1, tuning=(), **parallel):
    changes = {f"parallel__{name}": value for name, value in parallel.items()} | dict(tuning)
    return build(task, toy.make_config(accumulate=accumulate, **changes), devices)


def run(program, *, steps=3):
    state = first = program.init(0)
    for n in range(steps):
        batch = toy.examples(16, n)
        batch["mask"][[1, 2, 3, 9, 15]] = False  # devices with different numbers of examples
        batch = sharding.shard_batch(batch, program.layout)
        with jax.transfer_guard("disallow"):  # as the loop calls it
            state, metrics = program.train_step(state, batch)
    assert first.params["head"]["kernel"].is_deleted()  # donated
    batch = sharding.shard_batch(toy.examples(16, 99), program.layout)
    return state, metrics, program.eval_step(state, batch)


@pytest.fixture(scope="module")
def one_device():
    task = toy.make_task(noise=0.1, batch_norm=True, dropout=0.3)
    return task, run(program_of(task, jax.devices()[:1], accumulate=2, tuning=TUNING))


@pytest.mark.parametrize("way", WAYS)
def test_all_devices_are_one_device(one_device, way):
    """With batch norm, dropout, noise, microbatches, and parameters not all trained."""
    task, (state, metrics, sums) = one_device
    program = program_of(task, accumulate=2, tuning=TUNING, **WAYS[way])
    ours, our_metrics, our_sums = run(program)
    assert len(ours.params["head"]["kernel"].sharding.device_set) == 8
    toy.assert_equal(ours, state, rtol=1e-3, atol=1e-5)
    toy.assert_equal(our_metrics, metrics, rtol=1e-4)
    toy.assert_equal(our_sums, sums, rtol=1e-4)
    # The state is where a restored one would be, and goes through evaluations and saves as it is.
    for x, place in zip(*map(jax.tree.leaves, (ours, program.target)), strict=True):
        assert x.sharding.is_equivalent_to(place.sharding, x.ndim)


def collectives(program, batch):
    """Of a training step: bytes that are summed over devices, loops unrolled."""
    shardings = sharding.batch_shardings(batch, program.layout)
    batch = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), batch, shardings
    )
    text = program.train_step.lower(program.target, batch).compile().as_text()
    return hlo.traffic(text).collectives["all-reduce"].bytes


class Alone(toy.Net):
    """A model of someone who never thought of devices."""

    @nn.compact
    def __call__(self, batch, train):
        x = nn.Dense(8, use_bias=False)(batch["point"])
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(2, name="head")(x)


def test_gradients_are_summed_once():
    """Not in the loop over microbatches, nor in the one over layers."""
    batch = toy.examples(32, 0)
    large = {"accumulate": 4, "tuning": {"batch_size": 32}}
    program = program_of(toy.make_task(batch_norm=True, dropout=0.5), **large)
    parameters = sum(x.size for x in jax.tree.leaves(program.target.params))
    once = collectives(program, batch)
    assert 4 * parameters <= once < 1.5 * 4 * parameters


@pytest.mark.parametrize("model", [Alone(dropout=0.5), Alone(batch_norm=True)])
def test_what_is_not_by_row_is_as_on_one_device(model):
    """Flax's dropout is drawn for the whole batch, and statistics are those of all devices."""
    task = dataclasses.replace(toy.make_task(), model=model)
    alone, all_devices = (run(program_of(task, d), steps=1) for d in (jax.devices()[:1], None))
    toy.assert_equal(all_devices[0], alone[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [toy.Net(dropout=0.5, depth=1), Alone(dropout=0.5)])
def test_pmap_draws_dropout_for_each_device(model):
    task = dataclasses.replace(toy.make_task(), model=model)
    program = program_of(task, mode="pmap")
    row = toy.examples(1, 0)
    batch = {name: np.repeat(value, 16, axis=0) for name, value in row.items()}
    losses = []
    for device in (0, 1):  # all examples are alike; those of one device are counted
        mask = np.arange(16) // 2 == device
        put = sharding.shard_batch(batch | {"mask": mask}, program.layout)
        losses.append(program.train_step(program.init(0), put)[1]["loss"])
    assert abs(losses[0] - losses[1]) > 1e-4


def test_microbatches_are_cut_within_devices():
    program = program_of(toy.make_task(), accumulate=2)
    batch = sharding.shard_batch(toy.examples(16, 0), program.layout)
    text = program.train_step.lower(program.target, batch).compile().as_text()
    assert "all-reduce" in text
    for moving_rows in ("all-to-all", "collective-permute", "all-gather"):
        assert moving_rows not in text, moving_rows


def specs(state):
    named = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.sharding.spec for p, x in named}


def shapes_of_layers():
    """A latent layer's parameters, of three layers."""
    wide = {"kernel": (3, 16, 32), "bias": (3, 32)}
    narrow = {"kernel": (3, 32, 16), "bias": (3, 16)}
    layer = {
        "norm_mlp": {"scale": (3, 16)},
        "attention": {"query": wide, "key": wide, "value": wide, "out": narrow},
        "mlp": {"hidden": wide, "out": narrow},
    }
    shapes = {"layers": layer, "cross_attend": {"attention": {"query": wide}}}
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=lambda s: type(s) is tuple
    )


def test_large_parameters_and_their_averages_are_spread():
    program = program_of(toy.make_task(width=16), shard_params_above=200)
    found = specs(program.target)
    everywhere = PartitionSpec(None, None, ("data", "model"))
    for name in ("params", "opt_state/1/mu", "opt_state/1/nu"):
        assert found[f"{name}/layers/dense/kernel"] in (
            everywhere,
            PartitionSpec(None, ("data", "model"), None),
        )
        assert found[f"{name}/layers/dense/bias"] == PartitionSpec(None, None)
        assert found[f"{name}/head/kernel"] == PartitionSpec(None, None)
    kernel = program.init(0).params["layers"]["dense"]["kernel"]
    assert {shard.data.size for shard in kernel.addressable_shards} == {3 * 16 * 16 // 8}


def test_the_width_of_latent_layers_is_spread():
    layout = toy.make_layout(model=4, latents="width")
    found = specs(sharding.place(shapes_of_layers(), layout))
    assert found["layers/attention/query/kernel"] == PartitionSpec(None, None, "model")
    assert found["layers/mlp/hidden/bias"] == PartitionSpec(None, "model")
    assert found["layers/attention/out/kernel"] == PartitionSpec(None, "model", None)
    for whole in ("layers/attention/out/bias", "layers/norm_mlp/scale"):
        assert found[whole] == PartitionSpec(None, None)
    assert found["cross_attend/attention/query/kernel"] == PartitionSpec(None, None, None)

    both = toy.make_layout(model=4, latents="width", shard_params_above=1000)
    found = specs(sharding.place(shapes_of_layers(), both))
    assert found["layers/mlp/out/kernel"] == PartitionSpec(None, "model", ("data",))
    with pytest.raises(
        ValueError, match=r"layers/attention/key.*parallel.model=3.*latents='width'"
    ):
        devices = jax.devices()[:3]
        narrow = toy.make_layout(devices, model=3, latents="width")
        sharding.place(shapes_of_layers(), narrow)


def test_batches_lie_as_the_step_reads_them():
    batch = {
        "image": np.zeros((4, 8, 6, 3), np.uint8),
        "frames": np.zeros((4, 2, 8, 6, 3), np.uint8),
        "audio": np.zeros((4, 10), np.float32),  # does not divide
        "label": np.arange(4),
    }
    layout = toy.make_layout(model=4, shard_inputs=True)
    shapes = {
        name: x.addressable_shards[0].data.shape
        for name, x in sharding.shard_batch(batch, layout).items()
    }
    assert shapes == {
        "image": (2, 2, 6, 3),
        "frames": (2, 2, 2, 6, 3),
        "audio": (2, 10),
        "label": (2,),
    }
    layout = toy.make_layout(model=4, latents="width")
    whole = sharding.shard_batch(batch, layout)["image"]
    assert whole.addressable_shards[0].data.shape == (2, 8, 6, 3)


def described_mesh(*rows):
    """A mesh of devices that have nothing but the index of their process."""
    devices = [[types.SimpleNamespace(process_index=process) for process in row] for row in rows]
    return types.SimpleNamespace(devices=np.array(devices))


def test_processes_read_the_rows_of_their_devices():
    apart = described_mesh([0], [0], [1], [1])
    assert [sharding.reader(apart, p) for p in (0, 1)] == [(0, 2), (1, 2)]
    together = described_mesh([0, 1], [0, 1])  # two processes, one huge example
    assert [sharding.reader(together, p) for p in (0, 1)] == [(0, 1), (0, 1)]
    both = described_mesh([0, 1], [2, 3])
    assert [sharding.reader(both, p) for p in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    with pytest.raises(ValueError, match=r"3 processes do not fall.*config.parallel.model"):
        sharding.reader(described_mesh([0, 0], [0, 1], [1, 2]), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "pjit"}, "parallel.mode='pjit' is not allowed: write 'jit' or 'pmap'"),
        ({"latents": "depth"}, "parallel.latents='depth' is not allowed"),
        ({"model": 3, "latents": "width"}, r"model=3 does not divide 8 devices.*\[1, 2, 4, 8\]"),
        ({"mode": "pmap", "model": 2}, r"mode='pmap' spreads the batch alone.*mode='jit'"),
        ({"mode": "pmap", "shard_params_above": 9}, r"mode='pmap' spreads the batch alone"),
        ({"model": 2}, r"model=2 with shard_inputs=False and latents='batch'"),
        ({"shard_inputs": True}, r"model=1 with shard_inputs=True.*need more than one"),
    ],
)
def test_layouts_that_do_not_work(fields, message):
    with pytest.raises(ValueError, match=message):
        toy.make_layout(**fields)


def test_batches_that_do_not_divide_over_the_devices():
    layout = toy.make_layout(model=2, latents="width")  # 4 devices along 'data'
    with pytest.raises(ValueError, match=r"4 devices x config.accumulate=3.*multiple of 12"):
        sharding.check_batch_size(13, layout, accumulate=3)
    sharding.check_batch_size(12, layout, accumulate=3)
    with pytest.raises(ValueError, match=r"batch\['label'\].*multiple of 4"):
        sharding.shard_batch(toy.examples(5, 0), layout)
