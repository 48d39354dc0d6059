"""How a run begins: the compiled program, and the state it goes on from."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from perceiver_jax.train import checkpoint, sharding
from perceiver_jax.train.log import say, warn
from perceiver_jax.train.optimizer import make_optimizer
from perceiver_jax.train.state import TrainState, create
from perceiver_jax.train.step import make_eval_step, make_train_step
from perceiver_jax.train.task import Task
from perceiver_jax.train.workdir import CHECKPOINTS


class Program(NamedTuple):
    """A task and a config, compiled for a mesh."""

    mesh: Mesh
    init: Callable[[], TrainState]
    target: TrainState  # of jax.ShapeDtypeStruct with shardings
    train_step: Callable
    eval_step: Callable


def build(task: Task, config: ConfigDict) -> Program:
    """Checks the sizes and compiles (lazily) what the loop calls."""
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.batch_size, mesh, accumulate=config.accumulate)
    optimizer, schedule = make_optimizer(config)
    init = functools.partial(create, task, optimizer, config.seed)
    whole = sharding.replicated(mesh)
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(init)
    )
    train_step = make_train_step(task, optimizer, schedule, accumulate=config.accumulate)
    return Program(
        mesh=mesh,
        init=jax.jit(init, out_shardings=whole),
        target=target,
        train_step=sharding.compile_train_step(train_step, mesh),
        eval_step=sharding.compile_eval_step(make_eval_step(task), mesh),
    )


def start(
    config: ConfigDict, workdir: pathlib.Path, program: Program, *, set_aside: pathlib.Path | None
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state to go on from and the meta saved with it, from the first that applies."""
    run, weights = config.start.run, config.start.weights
    if run and weights:
        raise ValueError(
            f"set one of config.start.run={run!r} and config.start.weights={weights!r}"
        )

    # 1. This run, started before.
    directory = workdir / CHECKPOINTS
    own = checkpoint.restore_newest(directory, program.target, warn=warn, set_aside=set_aside)
    if own:
        say(f"start: going on from step {own[1]['step']} of {workdir}")
        return own

    # 2. Another run, continued with its whole state.
    if run:
        directory = pathlib.Path(run) / CHECKPOINTS
        given = checkpoint.restore_newest(directory, program.target, warn=warn)
        if not given:
            raise FileNotFoundError(f"config.start.run={run!r}: no checkpoint in {directory}")
        say(f"start: continuing the run {run} from its step {given[1]['step']}")
        return given

    state = program.init()
    meta = {"timer": {}}

    # 3. Weights only: a fresh optimizer, step 0.
    if weights:
        items, path = checkpoint.restore_weights(pathlib.Path(weights), program.target, warn=warn)
        say(f"start: weights from {path}, fresh optimizer")
        return state.replace(**items), meta

    # 4. Nothing.
    say(f"start: from scratch, seed {config.seed}")
    return state, meta
