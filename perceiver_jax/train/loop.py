"""The training loop of every task, and the evaluation of a run.

`train` is the entry: it starts or resumes a run, trains, saves and evaluates. The metrics of a step
are fetched after the next step has been dispatched, so the device never waits for the log. All
numbers are functions of the state and of `(seed, step)`, so a run that was killed and resumed ends
bit-equal to an uninterrupted one.

The file is long because `train` and `evaluate` share the record of a run: its config and result.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, TypedDict

import jax
from etils import epath
from ml_collections import ConfigDict

from perceiver_jax.config_types import Count, Whole
from perceiver_jax.machine import hardware
from perceiver_jax.train import checkpoint, distributed, multipliers, sharding
from perceiver_jax.train.compilation import FirstStep
from perceiver_jax.train.evaluation import Delayed, check_evaluation, evaluate_state
from perceiver_jax.train.log import Log, Timer, progress, say, show, warn
from perceiver_jax.train.optimizer import Optimizer
from perceiver_jax.train.profile import tracing
from perceiver_jax.train.sharding import Parallel
from perceiver_jax.train.start import Program, Start, build, start
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.step import VITALS
from perceiver_jax.train.stop import Diverged, Preempted, end_together, stop_on_signals
from perceiver_jax.train.task import Batch, Task, naming_fields
from perceiver_jax.train.workdir import (
    CHECKPOINTS,
    DAMAGED,
    RESULT,
    as_json,
    check_config,
    git_commit,
    lock,
    write_atomically,
)


class Config(TypedDict):
    """The fields of a config that every experiment has; experiments add `data` and their own."""

    experiment: str  # experiments/tasks/<experiment>.py makes the task
    seed: Whole
    batch_size: Count  # over all devices and processes
    steps: Whole  # 0 only evaluates
    accumulate: Count  # microbatches of a step
    eval_every: Whole  # steps; 0 is only at the end
    log_every: Whole  # steps; 0 is never
    checkpoint_every: Whole  # steps; 0 is only at the end
    checkpoints_kept: Count
    tensorboard: bool
    start: Start
    parallel: Parallel
    optimizer: Optimizer
    model: Mapping[str, Any]  # see `build`


def train(
    task: Task,
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    profile: tuple[int, int] | None = None,
    program: Program | None = None,
) -> dict[str, Any]:
    """Trains up to `config.steps`, from the start or from the workdir's checkpoint, and evaluates.

    Args:
      task: what to train.
      config: `seed`, `batch_size` (global), `steps`, `accumulate`, `optimizer`, `eval_every`,
        `log_every`, `checkpoint_every` (in steps, 0 is never), `checkpoints_kept`, `tensorboard`,
        `start` ('' for none; `model` too for released weights), `parallel`. The other fields are
        only recorded.
      workdir: the folder of this run alone, created if missing. All processes share it.
      profile: the steps to trace; see `profile.tracing`.
      program: what `start.build` made for a run that differs in its seed and data alone, so that
        nothing is compiled again; None builds it.

    Returns:
      The contents of `result.json`: every evaluation metric, 'step', 'seconds' (training, over all
      restarts), 'examples_per_second' (None if unknown), 'commit' and 'device'.

    Raises:
      ValueError: the config or the evaluation is wrong, or another config made the workdir.
      InUse: another run uses the workdir.
      Diverged: a loss or norm was not finite; the last good checkpoint stays.
      Preempted: SIGTERM or SIGINT reached a process; the state is saved.
      NotSaved: a checkpoint could not be written; the earlier ones stay.
    """
    first = FirstStep()
    workdir = epath.Path(workdir).expanduser()
    program = program or build(task, config)
    check_evaluation(task, program)
    check_config(workdir, config, write=False)
    with lock(workdir, warn=warn):
        state, meta = start(config, workdir, program, set_aside=workdir / DAMAGED)
        check_config(workdir, config, write=True)  # only now, so a failed start claims no folder
        with (
            stop_on_signals() as stop,
            checkpoint.open_manager(workdir / CHECKPOINTS, config.checkpoints_kept) as manager,
        ):
            timer = Timer(**meta["timer"])
            run = Run(task, config, workdir, program, timer, manager, stop, first)
            return run.train(state, profile)


class Run:
    """One call of `train`: the loop, with logging, saving and evaluation between its steps."""

    def __init__(self, task, config, workdir, program, timer, manager, stop, first):
        self.task, self.config, self.workdir, self.program = task, config, workdir, program
        self.timer, self.manager, self.stop, self.first = timer, manager, stop, first
        self.saved = manager.latest_step()
        self.frozen = any(factor == 0 for _, factor in config.optimizer.multipliers)

    def train(self, state: TrainState, profile: tuple[int, int] | None) -> dict[str, Any]:
        """Trains from `state`, whose arrays are donated; see the function `train`."""
        task, config, timer = self.task, self.config, self.timer
        step = int(jax.device_get(state.step))
        print_summary(task, state, config, f"step {step} of {config.steps}")
        if step >= config.steps:
            say("this run is finished: evaluating it again")
        with (
            contextlib.closing(Log(self.workdir, step=step, tensorboard=config.tensorboard)) as log,
            sharding.on_devices(task.train_data(step), self.program.layout) as batches,
            tracing(self.workdir, profile) as trace,
            jax.transfer_guard("disallow"),
            end_together(),
        ):
            lag = Delayed(lambda *result: self.record(log, *result))
            while step < config.steps and not self.stop():
                # Before the step, so that a run killed after a save makes up for the evaluation.
                if step and due(step, config.eval_every):
                    missing = distributed.any_process(not log.has(step, "eval"))
                    if missing and self.evaluate(state, log) is None:
                        break
                trace(step, state)
                with timer.waiting("input"):
                    batch = next(batches, None)
                if batch is None:
                    raise RuntimeError(f"Task.train_data ended at step {step}; it must never end")
                annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
                naming = naming_fields(batch, "config.data.train")
                with annotation, naming, self.first.compiling():
                    state, metrics = self.program.train_step(state, batch)
                step += 1
                lag.push(step, metrics, batch)
                saving = due(step, config.checkpoint_every)
                if saving or due(step, config.eval_every):
                    lag.flush()  # raises Diverged before a bad state is saved or evaluated
                if saving:
                    self.save(state)
            lag.flush()
            if self.saved != step:
                self.save(state)
            with timer.pause():
                checkpoint.finish(self.manager)
            metrics = self.evaluate(state, log) if step >= config.steps else None
        if metrics is None:
            raise Preempted(
                f"{self.stop.signal or 'a signal to another process'} at step {step} of "
                f"{config.steps}; the state is saved in {self.workdir}. Run the same command again "
                "to go on."
            )
        return write_result(self.workdir, metrics, step, timer, config)

    def record(self, log: Log, step: int, metrics: dict[str, jax.Array], batch: Batch) -> None:
        """Waits for a step's metrics and logs them if due; raises Diverged if one is not finite."""
        task, config, timer = self.task, self.config, self.timer
        with timer.waiting("device"):
            values = jax.device_get(metrics)
        timer.tick()
        if told := self.first.report():
            say(told)
        # `jit` sorts the names; a reader wants the loss first.
        metrics = {name: float(values[name]) for name in ("loss", *task.metrics, *VITALS)}
        bad = [name for name in VITALS if not math.isfinite(metrics[name])]
        if bad or due(step, config.log_every):
            recent = timer.recent()
            rate = recent.steps_per_second * config.batch_size
            times = {"seconds": timer.seconds, "examples_per_second": rate}
            shares = {f"{name}_share": share for name, share in recent.shares.items()}
            log.write(step, "train", metrics | times | shares)
            sizes = {
                "batch_size": config.batch_size,
                # What a step with frozen parts leaves out is not counted.
                "flops_per_example": 0.0 if self.frozen else task.flops_per_example,
            }
            say(progress(step, config.steps, metrics, recent=recent, **sizes))
        if bad:
            checkpoint.finish(self.manager)
            last = self.manager.latest_step()
            kept = "there is no checkpoint"
            if last is not None:
                kept = f"the last good checkpoint is {last}"
            raise Diverged(
                f"step {step}: {', '.join(bad)} not finite ({show(metrics)}); {kept} in "
                f"{self.manager.directory}. {cause(batch, self.program)}"
            )

    def save(self, state: TrainState) -> None:
        """Starts to save the state, and beside it the config, seed, timer and versions."""
        with self.timer.pause(), jax.transfer_guard("allow"):  # Orbax transfers implicitly
            meta = {
                "config": as_json(self.config),
                "seed": self.config.seed,
                "timer": self.timer.saved(),
                "versions": checkpoint.versions(),
            }
            self.saved = checkpoint.save(self.manager, state, meta)

    def evaluate(self, state: TrainState, log: Log) -> dict[str, float] | None:
        """Evaluates and logs; returns None if the run is asked to stop meanwhile."""
        with self.timer.pause():
            metrics = evaluate_state(self.task, self.program, state, stop=self.stop)
        if metrics is not None:
            log.write(int(jax.device_get(state.step)), "eval", metrics)
        return metrics


def evaluate(task: Task, config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Evaluates the newest intact checkpoint and writes `result.json`.

    Args:
      task: what to evaluate.
      config: as for `train`. If `workdir` has no checkpoint, `config.start` names the weights.
      workdir: of a run.

    Returns:
      The contents of `result.json`; see `train`.

    Raises:
      FileNotFoundError: there is nothing to evaluate.
      ValueError: another config made the workdir.
    """
    workdir = epath.Path(workdir).expanduser()
    check_config(workdir, config, write=False)
    directory = workdir / CHECKPOINTS
    if not (checkpoint.checkpoints(directory) or config.start.run or config.start.weights):
        raise FileNotFoundError(
            f"nothing to evaluate: no checkpoint in {directory}, and config.start.run and "
            "config.start.weights are empty"
        )
    program = build(task, config)
    check_evaluation(task, program)
    state, meta = start(config, workdir, program, set_aside=None)
    check_config(workdir, config, write=True)
    step = int(jax.device_get(state.step))
    print_summary(task, state, config, f"evaluating step {step}")
    with end_together():
        metrics = evaluate_state(task, program, state)
    return write_result(workdir, metrics, step, Timer(**meta["timer"]), config)


def cause(batch: Batch, program: Program) -> str:
    """Returns whether the batch of a step with metrics not finite was finite, and the remedy."""
    bad = sharding.rows_not_finite(batch, program.layout)
    if distributed.any_process(bool(bad)):
        found = "; ".join(f"batch[{name!r}] in rows {rows[:8]}" for name, rows in bad.items())
        return (
            f"The input of this step was not finite: {found or 'in rows of another process'}. "
            "Running again repeats this: correct these examples in the data."
        )
    return (
        "The input of this step was finite. Running again repeats this: lower "
        "config.optimizer.learning_rate or clip_norm, in a new workdir."
    )


def print_summary(task: Task, state: TrainState, config: ConfigDict, what: str) -> None:
    """Prints the task, the parameters and which are trained, the devices and `what` is to run."""
    for line in task.description:
        say(line)
    size = sum(x.size for x in jax.tree.leaves(state.params))
    devices = jax.devices()
    processes = f" in {jax.process_count()} processes" * (jax.process_count() > 1)
    kind = devices[0].device_kind
    for line in multipliers.describe(state.params, config.optimizer.multipliers):
        say(line)
    if ema := config.optimizer.ema:
        say(f"evaluated: the average of the parameters, config.optimizer.ema={ema}")
    say(f"{size:,} parameters, {len(devices)} x {kind}{processes}, {what}")


def due(step: int, every: int) -> bool:
    """Whether something done each `every` steps (0: never) is due after `step`."""
    return every > 0 and step % every == 0


def write_result(
    workdir: epath.Path, metrics: dict[str, float], step: int, timer: Timer, config: ConfigDict
) -> dict[str, Any]:
    """Writes `result.json` and returns its contents; None replaces numbers not finite."""
    rate = timer.overall() * config.batch_size
    numbers = metrics | {"step": step, "seconds": timer.seconds, "examples_per_second": rate}
    result = {
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "commit": git_commit(),
        "device": hardware(),
    }
    if jax.process_index() == 0:
        write_atomically(workdir / RESULT, json.dumps(result, indent=2) + "\n")
    return result
