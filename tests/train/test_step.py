"""The compiled steps: masks, accumulation, devices, random streams, exact evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from perceiver_jax.train.optimizer import make_optimizer
from perceiver_jax.train.state import create
from perceiver_jax.train.step import divide, make_eval_step, make_train_step


def make(task, *, accumulate=1, **changes):
    """A fresh state and the plain step."""
    optimizer, schedule = make_optimizer(toy.make_config(**changes))
    state = jax.jit(lambda: create(task, optimizer, seed=1))()
    return state, make_train_step(task, optimizer, schedule, accumulate=accumulate)


def batch_with_padding():
    batch = toy.examples(16, 5)
    batch["mask"][[1, 2, 3, 9, 15]] = False
    return batch


def without(batch, keep):
    return {name: value[keep] for name, value in batch.items()}


def run(state, step, *, steps=3, batch=None):
    step = jax.jit(step)
    for n in range(steps):
        state, metrics = step(state, batch or toy.examples(16, n))
    return state, metrics


def test_jit_is_eager():
    task = toy.make_task(dropout=0.3, noise=0.1, depth=1)
    state, step = make(task, optimizer__clip_norm=0.0)
    eager, eager_metrics = step(state, toy.examples(16, 0))
    jitted, metrics = jax.jit(step)(state, toy.examples(16, 0))
    toy.assert_equal(jitted, eager, rtol=1e-4, atol=1e-5)
    toy.assert_equal(metrics, eager_metrics, rtol=1e-4)


def test_masked_examples_are_absent():
    task = toy.make_task()
    state, step = make(task)
    batch = batch_with_padding()
    full, metrics = jax.jit(step)(state, batch)
    small, small_metrics = jax.jit(step)(state, without(batch, batch["mask"]))
    toy.assert_equal(metrics, small_metrics, rtol=1e-5)
    toy.assert_equal(full.params, small.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_is_the_gradient_of_the_whole_batch(accumulate):
    """Also with microbatches that hold different numbers of examples. Adam divides by the size of
    the gradient, so equal parameters would hide a factor; the gradient norm does not."""
    task = toy.make_task(noise=0.1)  # prepare runs once, on the whole batch
    batch = batch_with_padding()
    state, step = make(task)
    one, one_metrics = run(state, step, batch=batch)
    state, step = make(task, accumulate=accumulate)
    many, many_metrics = run(state, step, batch=batch)
    toy.assert_equal(one_metrics, many_metrics, rtol=1e-4)
    toy.assert_equal(one.params, many.params, rtol=1e-3, atol=1e-5)


def test_accumulation_gives_each_microbatch_its_dropout_and_batch_statistics():
    task = toy.make_task(dropout=0.5, batch_norm=True)
    state, step = make(task)
    one, one_metrics = run(state, step, steps=1)
    state, step = make(task, accumulate=2)
    two, two_metrics = run(state, step, steps=1)
    assert abs(one_metrics["l2_grads"] - two_metrics["l2_grads"]) > 1e-3
    mean = lambda s: s.model_state["batch_stats"]["batchnorm"]["mean"]  # noqa: E731
    assert jnp.abs(mean(one) - mean(two)).max() > 1e-4


def test_accumulation_refuses_a_batch_that_does_not_divide():
    state, step = make(toy.make_task(), accumulate=3)
    with pytest.raises(ValueError, match=r"does not divide into 3 microbatches.*accumulate"):
        step(state, toy.examples(16, 0))


def test_randomness_follows_seed_and_step():
    task = toy.make_task(dropout=0.5, noise=0.5)
    state, step = make(task)
    step = jax.jit(step)
    batch = toy.examples(16, 0)
    loss = lambda s: float(step(s, batch)[1]["loss"])  # noqa: E731
    assert loss(state) == loss(state)
    assert loss(state) != loss(state.replace(step=state.step + 1))
    assert loss(state) != loss(state.replace(key=jax.random.key(7)))
    after, _ = step(state, batch)
    assert (jax.random.key_data(after.key) == jax.random.key_data(state.key)).all()


@pytest.mark.parametrize("switch", [{"dropout": 0.5}, {"noise": 0.5}])
def test_each_random_stream_reaches_the_loss(switch):
    plain, switched = (run(*make(toy.make_task(**s)), steps=1)[1]["loss"] for s in ({}, switch))
    assert abs(plain - switched) > 1e-4


def test_batch_statistics_change_in_training_only():
    task = toy.make_task(batch_norm=True)
    state, step = make(task)
    after, _ = run(state, step, steps=1)
    before = state.model_state["batch_stats"]["batchnorm"]
    assert jnp.abs(after.model_state["batch_stats"]["batchnorm"]["mean"]).max() > 1e-3
    toy.assert_equal(before["mean"], jnp.zeros_like(before["mean"]))
    evaluation = jax.jit(make_eval_step(task))
    one, other = (evaluation(s, toy.examples(16, 1))[0] for s in (state, after))
    assert abs(one["loss"][0] - other["loss"][0]) > 1e-3
    assert make(toy.make_task())[0].model_state == {}


def test_reported_norms():
    task = toy.make_task()
    state, step = make(task, optimizer__clip_norm=0.01)  # l2_grads is before clipping
    after, metrics = run(state, step, steps=1)
    norm = lambda tree: np.sqrt(sum((x**2).sum() for x in toy.arrays(tree).values()))  # noqa: E731
    change = jax.tree.map(jnp.subtract, after.params, state.params)
    assert metrics["l2_params"] == pytest.approx(norm(after.params), rel=1e-5)
    assert metrics["l2_updates"] == pytest.approx(norm(change), rel=1e-3)
    assert metrics["l2_grads"] > 0.1
    assert metrics["learning_rate"] == pytest.approx(0.05)


def test_evaluation_is_exact_for_any_batch_size():
    task = toy.make_task()
    state, _ = make(task)
    batch = toy.examples(toy.EVAL_EXAMPLES, [999])
    prediction = task.model.apply({"params": state.params}, batch, train=False)
    loss = toy.cross_entropy(prediction, batch).mean()
    evaluation = jax.jit(make_eval_step(task))
    for size in (8, 16, 40):
        totals = {}
        for batch_ in toy.eval_batches(size):
            for name, pair in evaluation(state, batch_)[0].items():
                totals[name] = np.add(totals.get(name, 0), pair)
        result = divide(totals)
        assert totals["loss"][1] == toy.EVAL_EXAMPLES
        assert result["loss"] == pytest.approx(float(loss), 1e-5)
        right = (prediction.argmax(-1) == batch["label"]).sum()
        assert result["accuracy"] == float(right) / toy.EVAL_EXAMPLES


def test_wrong_tasks_are_named():
    task = toy.make_task()
    with pytest.raises(ValueError, match=r"\['l2_grads'\].*rename"):
        make(dataclasses.replace(task, metrics={"l2_grads": toy.accuracy}))
    mean_loss = dataclasses.replace(task, loss=lambda p, b: toy.cross_entropy(p, b).mean())
    state, step = make(mean_loss)
    with pytest.raises(AssertionError):
        step(state, toy.examples(16, 0))


def test_state_shapes_need_no_arrays():
    optimizer, _ = make_optimizer(toy.make_config())
    task = toy.make_task(batch_norm=True)
    shapes = jax.eval_shape(lambda: create(task, optimizer, 3))
    state = create(task, optimizer, 3)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    other = create(task, optimizer, 4)
    assert jnp.abs(state.params["head"]["kernel"] - other.params["head"]["kernel"]).max() > 1e-2
