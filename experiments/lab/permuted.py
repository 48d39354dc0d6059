"""One function, two orders of its tokens: whether trained weights give the same in both."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from perceiver_jax.build import build
from perceiver_jax.train.start import Program, restore_weights
from perceiver_jax.train.task import Task

TOLERANCE = 1e-4  # of logits


def difference(task: Task, config: ConfigDict, program: Program) -> float:
    """The largest difference of logits with pixels permuted after their positions, and without.

    Args:
      task, config, program: of a model whose `input.permutation_seed` is set, with trained
        `config.start.weights`. The first batch of the evaluation is used.

    Raises:
      ValueError: they differ by more than `TOLERANCE`, so it is another function.
    """
    weights, _ = restore_weights(config.start.weights, config, program)
    variables = {"params": weights["params"], **weights.get("model_state", {})}
    batch = task.prepare(next(iter(task.eval_data())), None)
    plain = config.copy_and_resolve_references()
    plain.model.input.permutation_seed = None

    def logits(config):
        model = build(config.model.to_dict())
        run = jax.jit(functools.partial(model.apply, train=False))
        return np.asarray(run(variables, batch))

    found = float(np.abs(logits(config) - logits(plain)).max())
    if not found < TOLERANCE:
        raise ValueError(
            f"{config.start.weights}: permuted pixels change a logit by {found:.2g}, more than "
            f"{TOLERANCE:g}: positions no longer go with their pixels"
        )
    return found
