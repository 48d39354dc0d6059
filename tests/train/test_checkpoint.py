"""Checkpoints: what they hold, what damage does, what does not fit."""

import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from perceiver_jax.train import checkpoint, sharding
from perceiver_jax.train.optimizer import make_optimizer
from perceiver_jax.train.state import create

META = {"config": {"a": 1}, "seed": 3, "timer": {"seconds": 1.5}}


def make_state(step, *, batch_norm=True, seed=0, devices=None, width=64):
    """A state at `step` on a mesh of `devices`; wide enough for array data in files of its own."""
    optimizer, _ = make_optimizer(toy.make_config())
    task = toy.make_task(batch_norm=batch_norm, width=width)
    whole = sharding.replicated(toy.make_layout(devices).mesh)

    def init():
        state = create(task, optimizer, seed)
        _, opt_state = optimizer.update(state.params, state.opt_state, state.params)  # not zeros
        return state.replace(step=jnp.int32(step), opt_state=opt_state)

    return jax.jit(init, out_shardings=whole)()


def target_of(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def save_all(directory, states, keep=3):
    with checkpoint.open_manager(directory, keep) as manager:
        for state in states:
            checkpoint.save(manager, state, META)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints 1, 2 and 3 of different states, and the states."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    states = {step: make_state(step, seed=step) for step in (1, 2, 3)}
    save_all(directory, states.values())
    return directory, states


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def restore(directory, target, **kwargs):
    warnings = []
    return checkpoint.restore_newest(directory, target, warn=warnings.append, **kwargs), warnings


def test_restores_the_newest_bit_equal_with_its_meta(saved):
    directory, states = saved
    (state, meta), warnings = restore(directory, target_of(states[1]))
    toy.assert_equal(state, states[3])
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    assert jax.tree.structure(state) == jax.tree.structure(states[3])
    assert not warnings
    assert {name: meta[name] for name in META} == META
    assert meta["step"] == 3
    shape, dtype, checksum = meta["arrays"]["weights/params/layers/dense/kernel"]
    assert (shape, dtype, type(checksum)) == ([3, 64, 64], "float32", int)
    assert set(checkpoint.versions()) >= {"jax", "flax", "optax", "python", "perceiver_jax"}


def test_nothing_there(tmp_path):
    state = make_state(0)
    assert restore(tmp_path / "checkpoints", target_of(state)) == (None, [])


def test_keeps_as_many_as_asked(tmp_path):
    states = [make_state(step) for step in (1, 2, 3, 4)]
    save_all(tmp_path, states, keep=2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["4", "3"]
    with pytest.raises(ValueError, match="checkpoints_kept=0"):
        save_all(tmp_path, states, keep=0)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs several devices")
def test_restores_on_another_number_of_devices(saved):
    directory, states = saved
    target = target_of(make_state(0, devices=jax.devices()[:1]))
    (state, _), _ = restore(directory, target)
    assert len(state.params["head"]["kernel"].devices()) == 1
    toy.assert_equal(state, states[3])


def test_restores_each_array_where_the_target_has_it(saved):
    directory, states = saved
    target = sharding.place(states[3], toy.make_layout(shard_params_above=200))
    (state, _), _ = restore(directory, target)
    toy.assert_equal(state, states[3])
    for x, place in zip(*map(jax.tree.leaves, (state, target)), strict=True):
        assert x.sharding.is_equivalent_to(place.sharding, x.ndim)
    for tree in (state.params, state.opt_state[1].mu):
        kernel = tree["layers"]["dense"]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size // 8


def data_files(path, item="weights"):
    """The files of an item with array data in them, the largest first."""
    files = [p for p in (path / item).rglob("*") if p.is_file() and p.parent.name == "d"]
    return sorted(files, key=lambda p: -p.stat().st_size)


def truncate(path):
    for file in data_files(path):
        os.truncate(file, file.stat().st_size // 2)


def delete(path):
    for file in data_files(path):
        file.unlink()


def fill_with_garbage(path):
    for file in data_files(path):
        file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


def flip_one_bit(path, item="weights"):
    """Somewhere in the middle of the array data: TensorStore does not notice (see the test)."""
    file = data_files(path, item)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def flip_one_bit_of_the_optimizer(path):
    flip_one_bit(path, "training")


def remove_item(path):
    shutil.rmtree(path / "training")


def cut_meta(path):
    file = path / "meta" / "metadata"
    os.truncate(file, file.stat().st_size // 2)


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


DAMAGES = [
    truncate,
    delete,
    fill_with_garbage,
    flip_one_bit,
    flip_one_bit_of_the_optimizer,
    remove_item,
    cut_meta,
    empty,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_falls_back_to_the_one_before(saved, copy, damage):
    _, states = saved
    damage(copy / "3")
    aside = copy.parent / "damaged"
    (state, meta), warnings = restore(copy, target_of(states[1]), set_aside=aside)
    toy.assert_equal(state, states[2])
    assert meta["step"] == 2
    assert any("3 is damaged" in text for text in warnings)
    assert [path.name for path in aside.iterdir()] == ["3"]
    # The step can be saved again, and again be found damaged and moved.
    for copies in (1, 2):
        save_all(copy, [states[3]])
        (state, _), _ = restore(copy, target_of(states[1]))
        toy.assert_equal(state, states[3])
        damage(copy / "3")
        restore(copy, target_of(states[1]), set_aside=aside)
        assert len(list(aside.iterdir())) == copies + 1


def test_reading_without_set_aside_moves_nothing(saved, copy):
    _, states = saved
    truncate(copy / "3")
    (state, _), warnings = restore(copy, target_of(states[1]))
    toy.assert_equal(state, states[2])
    assert len(warnings) == 1
    assert (copy / "3").is_dir()


def test_all_damaged_raises_lists_every_error_and_moves_nothing(saved, copy):
    _, states = saved
    for step, damage in (("1", truncate), ("2", delete), ("3", flip_one_bit)):
        damage(copy / step)
    before = sorted(str(path) for path in copy.rglob("*"))
    with pytest.raises(checkpoint.Unrestorable, match=r"(?s)3: .*changed.*2: .*1: ") as raised:
        restore(copy, target_of(states[1]), set_aside=copy.parent / "damaged")
    assert "nothing was moved" in str(raised.value)
    assert sorted(str(path) for path in copy.rglob("*")) == before
    assert not (copy.parent / "damaged").exists()


def test_the_checksum_is_what_notices_a_flipped_bit(saved, copy, monkeypatch):
    """Without it the restored state is silently another one: the checksum earns its keep."""
    _, states = saved
    flip_one_bit(copy / "3")
    path = copy / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    real = checkpoint.array_records
    monkeypatch.setattr(
        checkpoint, "array_records", lambda items: {n: [*meta["arrays"][n]] for n in real(items)}
    )
    (state, _), warnings = restore(copy, target_of(states[1]))
    assert not warnings
    with pytest.raises(AssertionError):
        toy.assert_equal(state, states[3])


def test_checksum_sees_every_bit_of_every_dtype():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 256, size=(5, 3, 4), dtype=np.uint8)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8):
        width = jnp.dtype(dtype).itemsize
        data = np.ascontiguousarray(words[..., :width]).view(dtype)
        (before,) = checkpoint.checksums([jnp.asarray(data)])
        for bit in range(8 * width):
            changed = data.copy().view(np.uint8)
            changed.reshape(-1)[7 * width + bit // 8] ^= 1 << bit % 8
            (after,) = checkpoint.checksums([jnp.asarray(changed.view(dtype))])
            assert before != after, (dtype, bit)
    (zeros,), (ones,) = (checkpoint.checksums([f(3, bool)]) for f in (jnp.zeros, jnp.ones))
    assert zeros != ones


def test_other_arrays_are_listed_and_never_moved(saved, copy):
    wider = target_of(make_state(0, batch_norm=False, width=16))
    with pytest.raises(checkpoint.Mismatch) as raised:
        restore(copy, wider, set_aside=copy.parent / "damaged")
    text = str(raised.value)
    assert "missing: weights/params/input/bias" in text
    assert "unexpected: weights/model_state/batch_stats/batchnorm/mean [[64], 'float32']" in text
    assert "differs: weights/params/head/kernel is [[64, 2], 'float32'], the model has" in text
    assert len(checkpoint.checkpoints(copy)) == 3


def test_another_dtype_raises_where_orbax_would_cast(saved):
    directory, states = saved
    target = target_of(states[1])
    target = target.replace(
        params=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
            target.params,
        )
    )
    with pytest.raises(checkpoint.Mismatch, match=r"head/kernel is .*float32.*has .*bfloat16"):
        restore(directory, target)


def test_weights_alone(saved, copy):
    """They need no optimizer state: a wrong or missing one does not matter."""
    _, states = saved
    shutil.rmtree(copy / "3" / "training")
    target = target_of(states[1]).replace(opt_state=())
    for source, step in ((copy.parent, 3), (copy / "2", 2)):
        items, path = checkpoint.restore_weights(source, target, warn=pytest.fail)
        toy.assert_equal(items["params"], states[step].params)
        toy.assert_equal(items["model_state"], states[step].model_state)
        assert path.name == str(step)
    truncate(copy / "3")
    _, path = checkpoint.restore_weights(copy.parent, target, warn=lambda text: None)
    assert path.name == "2"
    with pytest.raises(FileNotFoundError, match="no weights in nowhere: it is neither"):
        checkpoint.restore_weights(pathlib.Path("nowhere"), target, warn=pytest.fail)
    with pytest.raises(checkpoint.Mismatch, match="missing: weights/params/input/bias"):
        other = target_of(make_state(0, batch_norm=False))
        checkpoint.restore_weights(copy / "2", other, warn=pytest.fail)
