"""The evaluation of a state over the whole evaluation data."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from perceiver_jax.train import checkpoint, sharding
from perceiver_jax.train.log import say, show, with_prefix
from perceiver_jax.train.start import Program
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.step import divide
from perceiver_jax.train.stop import StopRequest
from perceiver_jax.train.task import Batch, Task

EVALUATION_SAYS = 10.0  # seconds between two lines of progress


class Delayed:
    """Calls `use` with each result one step late, while the device computes the next step."""

    def __init__(self, use: Callable[..., None]):
        self._use = use
        self._held = None

    def push(self, *result: Any) -> None:
        """Uses the result pushed before, and holds this one."""
        self.flush()
        self._held = result

    def flush(self) -> None:
        """Uses the held result now."""
        held, self._held = self._held, None
        if held is not None:
            self._use(*held)


class Totals:
    """Sums of the results of evaluation steps; each example counts once."""

    def __init__(self):
        self._sums, self._rows = {}, []

    def add(self, sums: dict[str, tuple[jax.Array, jax.Array]], rows: Batch) -> None:
        """Waits for a step, adds its sums, and keeps the collected rows where its mask is True."""
        sums, rows = jax.device_get((sums, rows))
        for name, pair in sums.items():
            # In float64: float32 could not count beyond 2^24.
            self._sums[name] = np.add(self._sums.get(name, 0.0), pair, dtype=np.float64)
        if rows:
            mask = rows.pop("mask")
            self._rows.append({name: values[mask] for name, values in rows.items()})

    @property
    def examples(self) -> float:
        """How many examples were counted so far."""
        return self._sums["loss"][1] if self._sums else 0

    def metrics(self, task: Task) -> dict[str, float]:
        """Returns every metric by name, the loss first."""
        means = divide(self._sums)
        result = {name: means[name] for name in ("loss", *task.metrics)}
        if self._rows:
            whole = jax.tree.map(lambda *parts: np.concatenate(parts), *self._rows)
            result |= {name: float(metric(whole)) for name, metric in task.whole_metrics.items()}
        return result


def evaluate_state(
    task: Task, program: Program, state: TrainState, *, stop: StopRequest | None = None
) -> dict[str, float] | None:
    """Returns every metric over the whole evaluation data, each example counted once.

    Prints its progress and the result. Returns None as soon as `stop` asks to stop.
    """
    totals = Totals()
    began = said = time.monotonic()

    def add(result):
        nonlocal said
        totals.add(*result)
        if time.monotonic() - said >= EVALUATION_SAYS:
            said = time.monotonic()
            rate = with_prefix(totals.examples / (said - began))
            say(f"evaluation | {totals.examples:,.0f} examples | {rate} examples/s")

    lag = Delayed(add)
    with sharding.on_devices(task.eval_data(), program.layout, fill=True) as batches:
        for batch in batches:
            if stop and stop():
                return None
            lag.push(program.eval_step(state, batch))
        lag.flush()
    if not totals.examples:
        raise ValueError("Task.eval_data yielded no batch")
    metrics = totals.metrics(task)
    say(f"step {int(jax.device_get(state.step))} evaluation | {show(metrics)}")
    return metrics


def check_evaluation(task: Task, program: Program) -> None:
    """Traces the evaluation step on the shapes of an evaluation batch, without running it.

    Raises:
      ValueError: the step cannot be traced: no evaluation would work.
    """
    batch = sharding.batch_shapes(task.example, program.layout)
    try:
        jax.eval_shape(program.eval_step, program.target, batch)
    except Exception as error:  # any library that the task calls may raise
        *_, last = traceback.extract_tb(error.__traceback__)
        shapes = {name: f"{x.dtype}{list(x.shape)}" for name, x in task.example.items()}
        raise ValueError(
            f"evaluation would fail: {checkpoint.first_line(error)} ({last.filename}:{last.lineno},"
            f" for an example {shapes}); make config.data.eval give what the task reads"
        ) from error
