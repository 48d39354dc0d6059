"""The one training loop, for every task, and the evaluation of what it made.

Start, loop, end: `train` reads top to bottom. A step's metrics are fetched after the next step has
been dispatched, so the device never waits for the log. Everything that decides the numbers is in
the state and in `(seed, step)`: a run that is killed and started again ends bit-equal.
"""

import contextlib
import functools
import json
import math
import os
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict

from perceiver_jax.train import checkpoint, distributed, sharding
from perceiver_jax.train.checkpoint import open_manager
from perceiver_jax.train.log import Log, Timer, progress, say, show, warn, with_prefix
from perceiver_jax.train.profile import tracing
from perceiver_jax.train.start import Program, build, start
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.step import VITALS, divide
from perceiver_jax.train.stop import Diverged, Preempted, StopRequest, end_together, stop_on_signals
from perceiver_jax.train.task import Task
from perceiver_jax.train.workdir import (
    CHECKPOINTS,
    DAMAGED,
    RESULT,
    as_json,
    claim,
    git_commit,
    held,
    write_atomically,
)

EVALUATION_SAYS = 10.0  # seconds between two lines of progress


def train(
    task: Task,
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    profile: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Trains to `config.steps`, or goes on from where the workdir is, and evaluates.

    Args:
      task: what to train.
      config: `seed`, `batch_size` (global), `steps`, `accumulate`, `optimizer`, `eval_every`,
        `log_every`, `checkpoint_every` (in steps, 0 is never), `checkpoints_kept`, `tensorboard`,
        `start` ('' for none; `model` too for released weights), `parallel`. The rest is only
        recorded.
      workdir: of this run alone; made if it is not there. Many processes share it.
      profile: the steps to trace, see `profile.tracing`.

    Returns:
      What is written to `result.json`: every evaluation metric, 'step', 'seconds' (training, over
      all restarts), 'examples_per_second' (None if unknown), 'commit' and 'device'.

    Raises:
      ValueError: the config is wrong, or another one made the workdir.
      InUse: another run has the workdir.
      Diverged: something was not finite; the last good checkpoint stays.
      Preempted: SIGTERM or SIGINT came, to any process; the state is saved.
      NotSaved: a checkpoint could not be written; those before stay.
    """
    workdir = epath.Path(workdir)
    program = build(task, config)
    claim(workdir, config, write=False)
    with held(workdir, warn=warn):
        state, meta = start(config, workdir, program, set_aside=workdir / DAMAGED)
        claim(workdir, config, write=True)  # after a start that failed, it is still anybody's
        return go_on(task, config, workdir, program, state, meta, profile)


def go_on(
    task: Task,
    config: ConfigDict,
    workdir: epath.Path,
    program: Program,
    state: TrainState,
    meta: dict[str, Any],
    profile: tuple[int, int] | None,
) -> dict[str, Any]:
    """Trains from `state`, which is given away, and `meta` on; see `train`."""
    step = int(jax.device_get(state.step))
    describe(task, state, f"step {step} of {config.steps}")
    if step >= config.steps:
        say("this run is finished: evaluating it again")
    timer = Timer(**meta["timer"])

    with (
        stop_on_signals() as stop,
        contextlib.closing(Log(workdir, step=step, tensorboard=config.tensorboard)) as log,
        open_manager(workdir / CHECKPOINTS, config.checkpoints_kept) as manager,
        sharding.on_devices(task.train_data(step), program.layout) as batches,
        tracing(workdir, profile) as trace,
        jax.transfer_guard("disallow"),
        end_together(),
    ):
        record = functools.partial(
            report, task=task, config=config, timer=timer, log=log, manager=manager
        )
        measure = functools.partial(evaluate_state, task, program, timer=timer, log=log, stop=stop)
        saved, pending = manager.latest_step(), None

        while step < config.steps and not stop():
            # At the top, so that a run killed between a save and its evaluation makes up for it.
            wanted = step and due(step, config.eval_every)
            if wanted and distributed.anywhere(not log.has(step, "eval")) and not measure(state):
                break
            trace(step, state)
            with timer.waiting("input"):
                batch = next(batches, None)
            if batch is None:
                raise RuntimeError(f"Task.train_data ended at step {step}; it must never end")
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = program.train_step(state, batch)
            step += 1
            if pending:
                record(*pending)
            pending = step, metrics
            save_now = due(step, config.checkpoint_every)
            if save_now or due(step, config.eval_every):
                record(*pending)
                pending = None
            if save_now:
                save(state, config, timer, manager)
                saved = step

        if pending:
            record(*pending)
        if saved != step:
            save(state, config, timer, manager)
        with timer.pause():
            checkpoint.finish(manager)
        metrics = measure(state) if step == config.steps else {}
        if not metrics:
            raise Preempted(
                f"{stop.signal or 'a signal to another process'} at step {step} of {config.steps}; "
                f"the state is saved in {workdir}. Run the same command again to go on."
            )

    return write_result(workdir, metrics, step, timer, config)


def evaluate(task: Task, config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Evaluates the newest whole checkpoint and writes `result.json`.

    Args:
      task: what to evaluate.
      config: as for `train`. Without checkpoints in `workdir` those of `config.start` are taken.
      workdir: of a run.

    Returns:
      What is written; see `train`.

    Raises:
      FileNotFoundError: there is nothing to evaluate.
      ValueError: another config made the workdir.
    """
    workdir = epath.Path(workdir)
    claim(workdir, config, write=False)
    directory = workdir / CHECKPOINTS
    if not (checkpoint.checkpoints(directory) or config.start.run or config.start.weights):
        raise FileNotFoundError(
            f"nothing to evaluate: no checkpoint in {directory}, and config.start.run and "
            "config.start.weights are empty"
        )
    program = build(task, config)
    state, meta = start(config, workdir, program, set_aside=None)
    claim(workdir, config, write=True)
    step = int(jax.device_get(state.step))
    describe(task, state, f"evaluating step {step}")
    with end_together():
        metrics = evaluate_state(task, program, state)
    return write_result(workdir, metrics, step, Timer(**meta["timer"]), config)


def report(
    step: int,
    metrics: dict[str, jax.Array],
    *,
    task: Task,
    config: ConfigDict,
    timer: Timer,
    log: Log,
    manager: ocp.CheckpointManager,
) -> None:
    """Waits for a step, logs it where that is due, and raises Diverged if it is not finite."""
    with timer.waiting("device"):
        values = jax.device_get(metrics)
    timer.tick()
    # `jit` sorts the names; a reader wants the loss first.
    metrics = {name: float(values[name]) for name in ("loss", *task.metrics, *VITALS)}
    bad = [name for name in VITALS if not math.isfinite(metrics[name])]
    if bad or due(step, config.log_every):
        recent = timer.recent()
        rate = recent.steps_per_second * config.batch_size
        times = {"seconds": timer.seconds, "examples_per_second": rate}
        shares = {f"{name}_share": share for name, share in recent.shares.items()}
        log.write(step, "train", metrics | times | shares)
        line = progress(
            step,
            config.steps,
            metrics,
            recent=recent,
            batch_size=config.batch_size,
            flops_per_example=task.flops_per_example,
        )
        say(line)
    if bad:
        checkpoint.finish(manager)
        last = manager.latest_step()
        kept = "there is no checkpoint" if last is None else f"the last good checkpoint is {last}"
        raise Diverged(
            f"step {step}: {', '.join(bad)} not finite ({show(metrics)}); {kept} in "
            f"{manager.directory}. Running again repeats this: lower "
            "config.optimizer.learning_rate or clip_norm, in a new workdir."
        )


def save(
    state: TrainState, config: ConfigDict, timer: Timer, manager: ocp.CheckpointManager
) -> None:
    """Starts saving the state, with all that is needed to understand it."""
    with timer.pause(), jax.transfer_guard("allow"):  # Orbax copies implicitly
        meta = {
            "config": as_json(config),
            "seed": config.seed,
            "timer": timer.saved(),
            "versions": checkpoint.versions(),
        }
        checkpoint.save(manager, state, meta)


def evaluate_state(
    task: Task,
    program: Program,
    state: TrainState,
    *,
    timer: Timer | None = None,
    log: Log | None = None,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """Returns every metric over the whole evaluation data, each example counted once.

    Says it and how far it is, and logs it where there is a `log`. If `stop` says so meanwhile:
    `{}`, nothing logged.
    """
    totals, collected = {}, []
    began = said = time.monotonic()

    def add(result):
        sums, rows = jax.device_get(result)
        for name, (total, count) in sums.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + float(total), before[1] + float(count))
        if rows:
            mask = rows.pop("mask")
            collected.append({name: values[mask] for name, values in rows.items()})

    pending = None
    with (
        timer.pause() if timer else contextlib.nullcontext(),
        sharding.on_devices(task.eval_data(), program.layout) as batches,
    ):
        for batch in batches:
            if stop and stop():
                return {}
            result = program.eval_step(state, batch)
            if pending:
                add(pending)
                now = time.monotonic()
                if now - said >= EVALUATION_SAYS:
                    done, said = totals["loss"][1], now
                    rate = with_prefix(done / (now - began))
                    say(f"evaluation | {done:,.0f} examples | {rate} examples/s")
            pending = result
        if pending is None:
            raise ValueError("Task.eval_data yielded no batch")
        add(pending)
    metrics, step = divide(totals), int(jax.device_get(state.step))
    metrics = {name: metrics[name] for name in ("loss", *task.metrics)}
    if collected:
        whole = {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}
        metrics |= {name: float(metric(whole)) for name, metric in task.whole_metrics.items()}
    say(f"step {step} evaluation | {show(metrics)}")
    if log:
        log.write(step, "eval", metrics)
    return metrics


def describe(task: Task, state: TrainState, what: str) -> None:
    """Prints what is about to run."""
    for line in task.description:
        say(line)
    size = sum(x.size for x in jax.tree.leaves(state.params))
    devices = jax.devices()
    processes = f" in {jax.process_count()} processes" * (jax.process_count() > 1)
    kind = devices[0].device_kind
    say(f"{size:,} parameters, {len(devices)} x {kind}{processes}, {what}")


def due(step: int, every: int) -> bool:
    """Whether something done each `every` steps (0: never) is due after `step`."""
    return every > 0 and step % every == 0


def write_result(
    workdir: epath.Path, metrics: dict[str, float], step: int, timer: Timer, config: ConfigDict
) -> dict[str, Any]:
    """Writes `result.json` and returns what it holds; None for what is not a number."""
    rate = timer.overall() * config.batch_size
    numbers = metrics | {"step": step, "seconds": timer.seconds, "examples_per_second": rate}
    devices = jax.devices()
    kind = devices[0].device_kind
    result = {
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "commit": git_commit(),
        "device": f"{len(devices)} x {kind}" + f", {os.cpu_count()} cores" * (kind == "cpu"),
    }
    if jax.process_index() == 0:
        write_atomically(workdir / RESULT, json.dumps(result, indent=2) + "\n")
    return result
