"""Evaluation: any batch size on any number of devices, and errors before training."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import toy

from configs import flow
from experiments import make_task
from perceiver_jax.train import checkpoint, sharding
from perceiver_jax.train.loop import evaluate_state, train
from perceiver_jax.train.start import build, check_finite
from perceiver_jax.train.stop import Diverged, explain


def evaluated(task, config, devices):
    program = build(task, config, devices)
    return evaluate_state(task, program, program.init(0))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("size", [1, 11])
def test_batches_that_do_not_divide_over_the_devices(mode, size):
    """37 examples, in batches of 1 and of 11, on 8 devices: each still counts once."""
    task = toy.make_task(eval_batch_size=size)
    task = dataclasses.replace(
        task,
        collect=lambda prediction, batch: {"label": batch["label"]},
        whole_metrics={"ones": lambda rows: rows["label"].sum(), "n": lambda r: len(r["label"])},
    )
    expected = evaluated(task, toy.make_config(), jax.devices()[:1])
    assert expected["n"] == toy.EVAL_EXAMPLES
    got = evaluated(task, toy.make_config(parallel__mode=mode), jax.devices())
    assert got == pytest.approx(expected, rel=1e-5)


def test_rows_are_filled_up_only_where_asked_and_are_masked():
    layout = toy.make_layout()
    filled = sharding.shard_batch(toy.examples(3, 0), layout, fill=True)
    assert filled["point"].shape == (8, toy.FEATURES)
    assert np.array(filled["mask"]).tolist() == [True] * 3 + [False] * 5
    whole = sharding.shard_batch(toy.examples(8, 0), layout, fill=True)
    toy.assert_equal(whole, toy.examples(8, 0))
    with pytest.raises(ValueError, match="multiple of 8"):
        sharding.shard_batch(toy.examples(3, 0), layout)


def filled(target):
    """A state of small random numbers."""
    rng = np.random.default_rng(0)

    def fill(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(0), x.sharding)
        return jax.device_put(rng.normal(0, 0.2, x.shape).astype(x.dtype), x.sharding)

    return jax.tree.map(fill, target)


@pytest.fixture(scope="module")
def pairs():
    """A task whose images are evaluated one by one, and what one device finds."""
    config = flow.get_config("synthetic:tiny")
    config.data.eval_batch_size = 1
    task = make_task(config)
    program = build(task, config, jax.devices()[:1])
    return task, config, evaluate_state(task, program, filled(program.target))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_whole_pairs_one_by_one_on_eight_devices(pairs, mode):
    """`flow.py` evaluates images one at a time; eight devices find what one does."""
    task, config, expected = pairs
    config.parallel.mode = mode
    program = build(task, config)
    result = evaluate_state(task, program, filled(program.target))
    assert result == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"hits": lambda prediction, batch: batch["class"]}},
        {"loss": lambda prediction, batch: prediction.mean()},
        {"predict": lambda variables, batch: batch["point"] @ np.zeros((5, 2))},
        {"example": {"point": np.zeros((1, toy.FEATURES), np.float32)}},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_what_only_the_evaluation_meets_is_said_before_training(changes, mode, tmp_path):
    steps = []
    task = dataclasses.replace(toy.make_task(), train_data=steps.append, **changes)
    with pytest.raises(ValueError) as raised:
        train(task, toy.make_config(parallel__mode=mode), tmp_path / "run")
    text, code = explain(raised.value)
    assert re.match(r"ValueError: evaluation would fail: \w+", text) and code == 1
    assert "config.data.eval" in text and "'point': 'float32[1, 6]'" in text and "\n" not in text
    assert not steps and not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_nan_in_the_input_is_told_from_one_of_the_training(mode, tmp_path):
    """Row 0 of the batch of step 3 is not finite; a huge learning rate makes step 2 overflow."""
    config = toy.make_config(parallel__mode=mode)
    with pytest.raises(Diverged) as raised:
        train(toy.make_task(poison=3), config, tmp_path / "data")
    text = str(raised.value)
    assert text.startswith("step 3: loss") and "batch['point'] in rows [0]. Running" in text
    assert "correct these examples in the data" in text and "learning_rate or" not in text
    assert "\n" not in text
    config.optimizer.name, config.optimizer.learning_rate = "adamw", 1e38
    with pytest.raises(Diverged) as raised:
        train(toy.make_task(), config, tmp_path / "rate")
    text = str(raised.value)
    assert "The input of this step was finite" in text
    assert "lower config.optimizer.learning_rate or clip_norm" in text


def test_rows_that_are_not_finite_are_found_on_any_device():
    batch = {name: np.array(x) for name, x in toy.examples(16, 0).items()}
    batch["point"][[3, 13], 2] = np.inf, np.nan
    for mode in ("jit", "pmap"):
        layout = toy.make_layout(mode=mode)
        put = sharding.shard_batch(batch, layout)
        assert sharding.rows_not_finite(put, layout) == {"point": [3, 13]}


def test_weights_that_are_not_finite_are_refused(tmp_path):
    config = toy.make_config(steps=1, eval_every=0)
    train(toy.make_task(), config, tmp_path / "run")
    program = build(toy.make_task(), config)
    items, _ = checkpoint.restore_weights(tmp_path / "run", program.target, warn=print)
    check_finite(items, "here")
    items["params"]["head"]["bias"] = items["params"]["head"]["bias"].at[1].set(np.nan)
    with pytest.raises(ValueError, match=r"weights of here .*NaN.*\['params/head/bias'\]"):
        check_finite(items, "here")


@pytest.mark.parametrize("steps", [0, -1])
def test_a_run_without_steps_is_evaluated_and_not_preempted(steps, tmp_path):
    result = train(toy.make_task(), toy.make_config(steps=steps), tmp_path)
    assert result["step"] == 0 and np.isfinite(result["loss"])
