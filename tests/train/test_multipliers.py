"""What is trained and how fast, and the average of the parameters."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import toy
from flax.traverse_util import flatten_dict

from configs import digits
from perceiver_jax import flops
from perceiver_jax.build import build as build_model
from perceiver_jax.config_types import ConfigError
from perceiver_jax.train import checkpoint, evaluation, loop, sharding
from perceiver_jax.train.multipliers import (
    check_multipliers,
    deciding,
    describe,
    factors,
    scale_updates,
    split,
)
from perceiver_jax.train.start import build, start
from perceiver_jax.train.step import make_eval_step
from perceiver_jax.train.workdir import load_config

NET = {"dropout": 0.2, "noise": 0.1, "batch_norm": True}
FROZEN = (("input|batchnorm", 0.0), ("layers", 0.0), ("layers/norm", 0.5))


def config_of(**changes):
    return toy.make_config(optimizer__multipliers=FROZEN, optimizer__ema=0.75, **changes)


def names(tree):
    return set(flatten_dict(tree, sep="/"))


def restored(workdir, program):
    return checkpoint.restore_newest(workdir / "checkpoints", program.target, warn=pytest.fail)[0]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run of which only the head and the norms are trained: workdir, program, result."""
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    task, config = toy.make_task(**NET), config_of()
    return workdir, build(task, config), loop.train(task, config, workdir)


def test_what_is_frozen_stays_bit_equal(tuned):
    workdir, program, _ = tuned
    before, after = program.init(0), restored(workdir, program)
    for name, x in flatten_dict(before.params, sep="/").items():
        same = np.array_equal(x, flatten_dict(after.params, sep="/")[name])
        assert same == (factors(before.params, FROZEN)[name] == 0), name
    toy.assert_equal(after.model_state, before.model_state)  # the batch norm's statistics
    trained = {"head/bias", "head/kernel", "layers/norm/bias", "layers/norm/scale"}
    assert names(after.opt_state[1].mu) == names(after.ema) == trained


def test_interrupted_it_ends_bit_equal(tuned, tmp_path):
    """From its checkpoint of step 4, which `test_kill` does to a process."""
    workdir, program, result = tuned
    shutil.copytree(workdir, tmp_path / "run")
    for step in (6, 8):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    again = loop.train(toy.make_task(**NET), config_of(), tmp_path / "run")
    assert again["loss"] == result["loss"]
    toy.assert_equal(restored(tmp_path / "run", program), restored(workdir, program))


def test_the_average_is_evaluated_and_handed_on(tuned, tmp_path):
    workdir, program, result = tuned
    task, state = toy.make_task(**NET), restored(workdir, program)
    evaluated = evaluation.evaluate_state(task, program, state)
    assert evaluated["loss"] == result["loss"]
    plain = evaluation.evaluate_state(
        task, program, state.replace(ema=split(state.params, FROZEN)[0])
    )
    assert abs(plain["loss"] - result["loss"]) > 1e-4
    for target in (None, program.target, build(task, toy.make_config()).target):
        items, _ = checkpoint.restore_weights(workdir, target, warn=pytest.fail)
        toy.assert_equal(items["params"], state.variables["params"])
    config = toy.make_config(steps=0, start__weights=str(workdir))
    again = loop.train(task, config, tmp_path / "averaged")
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5)


@pytest.mark.parametrize("origin", ["scratch", "weights"])
def test_the_average_is_the_recurrence(origin, tuned, tmp_path):
    config = toy.make_config(optimizer__ema=0.75)
    if origin == "weights":
        config = config_of(start__weights=str(tuned[0]))
    program = build(toy.make_task(), config) if origin == "scratch" else tuned[1]
    state, _ = start(config, tmp_path, program, set_aside=None)
    expected = jax.tree.map(np.copy, split(state.params, config.optimizer.multipliers)[0])
    toy.assert_equal(state.ema, expected)
    for n in range(3):
        batch = sharding.shard_batch(toy.examples(16, n), program.layout)
        state, _ = program.train_step(state, batch)
        new, _ = split(state.params, config.optimizer.multipliers)
        expected = jax.tree.map(lambda e, x: 0.75 * e + 0.25 * np.asarray(x), expected, new)
    toy.assert_equal(state.ema, expected, rtol=1e-6, atol=1e-7)


def test_a_factor_scales_the_update():
    def change(**changes):
        program = build(toy.make_task(), toy.make_config(**changes), jax.devices()[:1])
        before = jax.tree.map(np.copy, program.init(0).params)
        batch = sharding.shard_batch(toy.examples(16, 0), program.layout)
        state, metrics = program.train_step(program.init(0), batch)
        return jax.tree.map(lambda new, old: new - old, state.params, before), metrics

    plain, metrics = change()
    slower, slower_metrics = change(optimizer__multipliers=(("", 1.0), ("layers", 0.125)))
    toy.assert_equal(slower["head"], plain["head"])
    scaled = jax.tree.map(lambda x: x / 8, plain["layers"])
    toy.assert_equal(slower["layers"], scaled, rtol=1e-3, atol=1e-7)
    assert metrics["l2_grads"] == slower_metrics["l2_grads"]
    assert metrics["l2_updates"] > slower_metrics["l2_updates"]


def test_no_gradient_of_what_is_frozen_is_computed():
    """By the products that a traced step holds, and by its norms."""
    config = digits.get_config("standard:tiny")
    example = {"image": np.zeros((1, 8, 8, 1), np.float32), "mask": np.ones(1, bool)}
    task = dataclasses.replace(
        toy.make_task(),
        model=build_model(config.model.to_dict()),
        example=example | {"label": np.zeros(1, np.int32)},
    )
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype), task.example)

    def executed(*multipliers):
        config.optimizer.multipliers = multipliers
        program = build(task, config, jax.devices()[:1])
        return flops.executed(program.train_step, program.target, batch), program.target

    forward = flops.executed(make_eval_step(task), executed()[1], batch)
    whole, everything = executed()
    head, target = executed(("", 0.0), ("output/", 1.0))
    slower, _ = executed(("encoder", 0.1))
    assert whole == slower > 2.9 * forward  # recomputed by remat, too
    assert head < 1.2 * forward
    assert names(target.opt_state[1].mu) == {f"output/{x}" for x in (
        "query", "logits/bias", "logits/kernel")}  # fmt: skip
    assert names(target.params) == names(everything.params)


def test_frozen_modules_run_as_in_evaluation():
    """Without dropout, and batch norm by its statistics: a batch's other rows do not matter."""
    task = toy.make_task(dropout=0.5, batch_norm=True, depth=1)
    config = toy.make_config(optimizer__multipliers=(("input|batchnorm", 0.0),))
    program = build(task, config, jax.devices()[:1])
    state = program.init(0)
    statistics = jax.tree.map(np.copy, state.model_state)
    state, metrics = program.train_step(state, toy.examples(16, 0))
    toy.assert_equal(state.model_state, statistics)
    plain = build(task, toy.make_config(), jax.devices()[:1])
    other, other_metrics = plain.train_step(plain.init(0), toy.examples(16, 0))
    assert np.abs(other.model_state["batch_stats"]["batchnorm"]["mean"]).max() > 0
    assert metrics["loss"] != other_metrics["loss"]  # the statistics normalised, not the batch
    squares = [np.sum(np.square(x)) for x in jax.tree.leaves(jax.device_get(state.params))]
    assert float(metrics["l2_params"]) == pytest.approx(np.sqrt(sum(squares)), rel=1e-6)  # of all


PARAMS = {"encoder": {"latents": np.zeros(3), "blocks": {"kernel": np.zeros(4)}},
          "output": {"query": np.zeros(5)}}  # fmt: skip


def test_the_longest_match_decides():
    pairs = (("encoder", 0.0), ("encoder/blocks", 0.1), ("latents", 1.0), ("enc...r", 0.5))
    found = [deciding(name, pairs) for name in ("encoder/latents", "encoder/blocks/kernel", "x")]
    assert found == [3, 1, None]
    assert factors(PARAMS, pairs[:2]) == {
        "encoder/latents": 0.0, "encoder/blocks/kernel": 0.1, "output/query": 1.0,
    }  # fmt: skip
    assert describe(PARAMS, pairs[:2]) == [
        "all other: 5 parameters in 1 arrays trained, updates x 1",
        "'encoder': 3 parameters in 1 arrays frozen",
        "'encoder/blocks': 4 parameters in 1 arrays trained, updates x 0.1",
    ]
    assert describe(PARAMS, ()) == [] and split(PARAMS, ()) == (PARAMS, {})
    assert scale_updates((("encoder", 0.0),)).init(PARAMS) == ()


def test_pairs_that_decide_nothing_and_nothing_to_train():
    with pytest.raises(ConfigError, match=r"\('head', 0.1\) decides for no .*none; .*\['encoder'"):
        check_multipliers(PARAMS, (("head", 0.1),))
    with pytest.raises(ConfigError, match=r"\('query', 0.5\) decides for no .* longer match wh"):
        check_multipliers(PARAMS, (("query", 0.5), ("output/query", 0.1)))
    with pytest.raises(ConfigError, match=r"freezes all parameters: .* --mode=eval"):
        check_multipliers(PARAMS, (("", 0.0),))
    with pytest.raises(ConfigError, match=r"config.optimizer.multipliers: \('hed', 0.0\) decides"):
        build(toy.make_task(), toy.make_config(optimizer__multipliers=(("hed", 0.0),)))


def test_a_workdir_of_before_these_settings_goes_on(tmp_path):
    """Its config lacks the fields; its state is the same as ever."""
    task, config = toy.make_task(), toy.make_config(steps=2)
    loop.train(task, config, tmp_path)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    for section, field in (
        ("start", "fresh"), ("start", "resize_positions"), ("optimizer", "multipliers"),
        ("optimizer", "ema"),
    ):  # fmt: skip
        del old[section][field]
    path.write_text(json.dumps(old))
    arrays = checkpoint.named_leaves(jax.eval_shape(checkpoint.pack, build(task, config).target))
    assert {name.split("/")[0] + "/" + name.split("/")[1] for name, _ in arrays} == {
        "weights/params", "training/step", "training/opt_state", "training/key",
    }  # fmt: skip
    assert loop.train(task, config, tmp_path)["step"] == 2
    assert load_config(tmp_path).optimizer.multipliers == ()
    config.optimizer.ema = 0.5
    with pytest.raises(ValueError, match=r"config.optimizer.ema: 0.0 -> 0.5"):
        loop.train(task, config, tmp_path)
