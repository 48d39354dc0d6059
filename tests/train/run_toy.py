"""Trains the toy task: `python run_toy.py WORKDIR STEPS`. Killed and run again by test_kill."""

import sys

import toy

from perceiver_jax.train.loop import train
from perceiver_jax.train.stop import Preempted


def task_and_config(steps):
    """Wide enough that a save takes a moment; a part is frozen, a part slower, all averaged."""
    net = {"width": 160, "depth": 4, "dropout": 0.2, "noise": 0.1, "batch_norm": True}
    config = toy.make_config(
        steps=steps,
        eval_every=7,
        checkpoint_every=3,
        optimizer__learning_rate=0.01,
        optimizer__multipliers=(("layers", 0.0), ("layers/norm", 0.5)),
        optimizer__ema=0.9,
    )
    return toy.make_task(**net), config


if __name__ == "__main__":
    try:
        train(*task_and_config(int(sys.argv[2])), sys.argv[1])
    except Preempted as stopped:
        sys.exit(stopped.exit_code)
