"""`TrainState`: the whole of a training run as one pytree; what a checkpoint holds."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from perceiver_jax.train.multipliers import Multipliers, average, begin_average, split
from perceiver_jax.train.task import Batch, Task


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
      step: int32 `[]`, the number of steps done.
      params: the model's `params` collection.
      model_state: every other collection of the model (`batch_stats`, ...); `{}` if it has none.
      opt_state: the optimizer's state.
      key: typed random key `[]`. It never changes: step `n` uses `fold_in(key, n)`.
      ema: the exponential moving average of the parameters that are trained; None without one.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array
    ema: Any = None

    @property
    def variables(self) -> Any:
        """What is evaluated: the average of the parameters where there is one."""
        return {"params": average(self.params, self.ema), **self.model_state}


def create(
    task: Task,
    optimizer: optax.GradientTransformation,
    seed: int,
    *,
    multipliers: Multipliers = (),
    ema: float = 0.0,
) -> TrainState:
    """Returns the state at step 0. Pure: call it under `jax.jit` or `jax.eval_shape`.

    Args:
      task: its `model`, `example` and `prepare` are used.
      optimizer: the transformation that `optimizer.make_optimizer` returns.
      seed: the parameters and every later random number follow from it.
      multipliers: of `config.optimizer`; what is frozen has no state of the optimizer.
      ema: of `config.optimizer`; 0 is no average.
    """
    root = jax.random.key(seed)
    key = jax.random.fold_in(root, 0)
    variables = task.model.init({"params": key}, prepared_example(task), train=False)
    model_state = {name: value for name, value in variables.items() if name != "params"}
    trained, _ = split(variables["params"], multipliers)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state=model_state,
        opt_state=optimizer.init(trained),
        key=jax.random.fold_in(root, 1),
        ema=begin_average(variables["params"], multipliers) if ema else None,
    )


def prepared_example(task: Task) -> Batch:
    """`task.example` as zeros, prepared for the model."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), task.example)
    return task.prepare(zeros, None)
