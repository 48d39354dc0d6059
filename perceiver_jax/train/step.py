"""The training step and the evaluation step: pure functions of a state and a batch.

They do not depend on devices, files or configs; `sharding` compiles them, `loop` calls them. Under
`jax.pmap` each device runs them on its own rows of the batch, and `psum` sums over devices. Under
`jax.jit` the gradient does so too where that changes nothing but rounding (`is_by_row`). Dropout is
drawn by row (`perceiver_jax.dropout`), so it does not depend on the devices.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from perceiver_jax import dropout
from perceiver_jax.mesh import all_gather, can_map_rows, local_key, local_rows, map_rows, psum
from perceiver_jax.train.multipliers import Multipliers, frozen_in_evaluation, merge, split
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.task import Batch, Task

# What every training step reports besides the task's own metrics. All must be finite.
VITALS = ("loss", "l2_grads", "l2_params", "l2_updates", "learning_rate")

# Independent random streams of a step, by the number that is folded into its key.
STREAMS = {"prepare": 0, "dropout": 1}

Metrics = dict[str, jax.Array]
Sums = dict[str, tuple[jax.Array, jax.Array]]


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    accumulate: int,
    multipliers: Multipliers = (),
    ema: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `step(state, batch) -> (state, metrics)`.

    The loss is the mean of the per-example losses over the examples that `mask` keeps. With
    `accumulate = k` the prepared batch is cut into k microbatches, computed one after another. The
    gradient is that of the whole batch, with two differences: each microbatch draws its own
    dropout, and batch norm normalizes (and updates its averages by) one microbatch at a time. A
    module that draws from Flax's own stream does so on each device by itself under `pmap`.

    Args:
      task: supplies model, prepare, loss and metrics.
      optimizer: gradient transformation, its state in `TrainState.opt_state`.
      schedule: step to learning rate, only reported here.
      accumulate: number of microbatches; the prepared batch must divide by it.
      multipliers: of `config.optimizer`. Gradients of what is frozen are not computed.
      ema: of `config.optimizer`: the decay of the parameters' average; 0 is none.

    Returns:
      A pure function. Metrics are float32 scalars: `VITALS` (the l2 norms of the gradient before
      clipping, of all new parameters and of the update) and the task's metrics.
    """
    check_metric_names(task)

    def microbatch_loss(trained, frozen, model_state, batch, keys, count):
        """The microbatch's share of the mean loss; its new model state and metric sums."""
        params = merge(frozen, trained)
        with frozen_in_evaluation(params, multipliers):
            prediction, new_state = task.model.apply(
                {"params": params, **model_state},
                batch,
                train=True,
                rngs=keys,
                mutable=list(model_state),
            )
        loss, _ = masked_loss(task, prediction, batch)
        return loss / count, (dict(new_state), metric_sums(task, prediction, batch))

    gradient = jax.value_and_grad(microbatch_loss, has_aux=True)
    if accumulate > 1:
        gradient = accumulated(gradient, accumulate)

    def summed_gradient(batch, trained, frozen, model_state, key, count):
        """Of the whole batch. Sums over devices once; a compiler would in each layer's backward."""
        keys = {dropout.ROWS: key, dropout.FLAX: local_key(key)}
        (loss, (model_state, sums)), grads = gradient(
            trained, frozen, model_state, batch, keys, count
        )
        loss, sums, grads = psum((loss, sums, grads))
        return loss, model_state, sums, grads

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        prepare_key = jax.random.fold_in(key, STREAMS["prepare"])
        batch = local_rows(task.prepare(all_gather(batch), prepare_key))
        count = jnp.maximum(psum(jnp.sum(batch["mask"], dtype=jnp.float32)), 1.0)
        trained, frozen = split(state.params, multipliers)
        dropout_key = jax.random.fold_in(key, STREAMS["dropout"])
        arguments = trained, frozen, state.model_state, dropout_key, count
        if can_map_rows(batch) and is_by_row(microbatch_loss, batch, *arguments):
            loss, model_state, sums, grads = map_rows(summed_gradient, batch, *arguments)
        else:
            loss, model_state, sums, grads = summed_gradient(batch, *arguments)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        params = merge(frozen, trained)
        metrics = {
            "loss": loss,
            "l2_grads": l2(grads),
            "l2_params": l2(params),
            "l2_updates": l2(updates),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        } | {name: value / number for name, (value, number) in sums.items()}
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=optax.incremental_update(trained, state.ema, 1 - ema) if ema else None,
        )
        return state, metrics

    return train_step


def is_by_row(loss: Callable, batch: Batch, trained, frozen, model_state, key, count) -> bool:
    """Whether devices with their own rows compute the loss of the whole batch, but for rounding.

    They do not where a module draws for all rows at once, from Flax's own stream, and where a batch
    norm knows nothing of other devices. Both are found by tracing the model once more.
    """
    lone = []

    def call(next_function, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm) and context.module.axis_name is None:
            lone.append(context.module)
        return next_function(*args, **kwargs)

    def forward(batch, trained, frozen, model_state, key, count):
        with nn.intercept_methods(call):
            loss(trained, frozen, model_state, batch, {dropout.ROWS: key}, count)

    shapes = jax.eval_shape(lambda *x: x, batch, trained, frozen, model_state, key, count)
    try:
        jax.eval_shape(functools.partial(map_rows, forward), *shapes)
    except flax.errors.InvalidRngError:
        return False
    return not lone


def accumulated(gradient: Callable, parts: int) -> Callable:
    """Returns `gradient` of a whole batch, summed over microbatches one after another."""

    def accumulated_gradient(trained, frozen, model_state, batch, keys, count):
        def body(carry, microbatch_and_index):
            model_state, grads = carry
            microbatch, index = microbatch_and_index
            own = {name: jax.random.fold_in(key, index) for name, key in keys.items()}
            (loss, (model_state, sums)), new = gradient(
                trained, frozen, model_state, microbatch, own, count
            )
            return (model_state, jax.tree.map(jnp.add, grads, new)), (loss, sums)

        zeros = jax.tree.map(jnp.zeros_like, trained)
        microbatches = (split_batch(batch, parts), jnp.arange(parts))
        (model_state, grads), stacked = jax.lax.scan(body, (model_state, zeros), microbatches)
        loss, sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)
        return (loss, (model_state, sums)), grads

    return accumulated_gradient


def make_eval_step(task: Task) -> Callable[[TrainState, Batch], tuple[Sums, Batch]]:
    """Returns `step(state, batch) -> ({name: (sum, count)}, rows)`, the loss among the names.

    Sums and counts add up over batches, so an evaluation is exact however ragged its last batch.
    The rows are what `Task.collect` gives, if any, with the `mask`.
    """
    check_metric_names(task)
    predict = task.predict or functools.partial(task.model.apply, train=False)

    def eval_step(state: TrainState, batch: Batch) -> Sums:
        batch = task.prepare(batch, None)
        prediction = predict(state.variables, batch)
        loss = masked_loss(task, prediction, batch)
        rows = task.collect(prediction, batch) | {"mask": batch["mask"]} if task.collect else {}
        return psum({"loss": loss} | metric_sums(task, prediction, batch)), all_gather(rows)

    return eval_step


def l2(tree: Any) -> jax.Array:
    """Returns the norm of all the arrays of a tree taken together."""
    squares = (jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree))
    return jnp.sqrt(sum(squares))


def masked_loss(task: Task, prediction: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the loss over the examples that `mask` keeps, and their number."""
    mask = batch["mask"]
    losses = task.loss(prediction, batch)
    chex.assert_shape(losses, mask.shape)
    kept = jnp.where(mask, losses.astype(jnp.float32), 0.0)
    return jnp.sum(kept), jnp.sum(mask, dtype=jnp.float32)


def metric_sums(task: Task, prediction: Any, batch: Batch) -> Sums:
    """Returns every metric's (sum, count), as float32."""
    return {
        name: tuple(jnp.asarray(value, jnp.float32) for value in metric(prediction, batch))
        for name, metric in task.metrics.items()
    }


def split_batch(batch: Batch, parts: int) -> Batch:
    """Cuts each array `[B, ...]` into `[parts, B / parts, ...]`.

    Row `i` goes to part `i % parts`. Where each device has consecutive rows, it keeps them all: no
    row is sent to another device.

    Raises:
      ValueError: an array's leading axis does not divide by `parts`.
    """

    def split(path, x):
        if x.ndim == 0 or x.shape[0] % parts:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} of shape {x.shape} does not divide into "
                f"{parts} microbatches: make config.batch_size a multiple of config.accumulate"
            )
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree_util.tree_map_with_path(split, batch)


def check_metric_names(task: Task) -> None:
    """Raises ValueError if a metric has a name that every step reports, or `collect` is missing."""
    names = [*VITALS, *task.metrics, *task.whole_metrics]
    taken = sorted({name for name in names if names.count(name) > 1})
    if taken:
        raise ValueError(f"Task.metrics: {taken} are reported by every step already; rename them")
    if task.whole_metrics and task.collect is None:
        raise ValueError(f"Task.whole_metrics {sorted(task.whole_metrics)} need Task.collect")


def divide(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns sum / count by name; nan where nothing was counted."""
    return {n: float(s) / float(c) if c else float("nan") for n, (s, c) in sums.items()}
