"""What a run reports: messages, a timer that survives restarts, progress, metrics on disk.

One file, because the progress line and the log show the same metrics and times.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from etils import epath

from perceiver_jax.train.workdir import METRICS, in_bucket, naming, write_atomically

# The parts of a step's time that are measured: waiting for its batch, and for the device.
WAITS = ("input", "device")
INPUT_BOUND = 0.2  # the progress line mentions a larger share of waiting for data

# Fields of `metrics.jsonl` that differ from one run of the same thing to the next.
TIMING = ("seconds", "examples_per_second", "input_share", "device_share", "host_share")


def say(text: str) -> None:
    """Prints, in process 0 only."""
    if jax.process_index() == 0:
        print(text, flush=True)


def warn(text: str) -> None:
    """Prints a warning to stderr, in process 0 only."""
    if jax.process_index() == 0:
        print(f"WARNING: {text}", file=sys.stderr, flush=True)


class Recent(NamedTuple):
    """The rate of the last steps (nan: unknown) and the shares of their time.

    Device and host work at the same time. The `device` share of a device-bound run is near 1, and
    the `input` share of an input-bound run is near 1.
    """

    steps_per_second: float
    shares: dict[str, float]  # 'input', 'device', 'host'; empty where nothing is known


class Timer:
    """Training time over all restarts, apart from pauses; throughput apart from compiling.

    `tick` is called when a step has finished. The time before a process's first tick includes
    compiling: it counts as training time, but not for the throughput.
    """

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        timed_seconds: float = 0.0,
        timed_steps: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds = seconds
        self.timed_seconds = timed_seconds
        self.timed_steps = timed_steps
        self._clock = clock
        self._since = clock()
        self._first = True
        self._window = (0.0, 0)
        self._waits = dict.fromkeys(WAITS, 0.0)

    def tick(self) -> None:
        """Counts a finished step."""
        passed = self._pass()
        if not self._first:
            self.timed_seconds += passed
            self.timed_steps += 1
            self._window = (self._window[0] + passed, self._window[1] + 1)
        else:
            self._waits = dict.fromkeys(WAITS, 0.0)
        self._first = False

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Counts the time inside as waiting for one of `WAITS`."""
        start = self._clock()
        try:
            yield
        finally:
            self._waits[what] += self._clock() - start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out the time inside (evaluation, saving). No step may be running."""
        self._pass()
        try:
            yield
        finally:
            self._since = self._clock()

    def recent(self) -> Recent:
        """Returns rate and shares since the last call; the overall rate if no step was timed."""
        (seconds, steps), waits = self._window, self._waits
        self._window, self._waits = (0.0, 0), dict.fromkeys(WAITS, 0.0)
        if not seconds:
            return Recent(self.overall(), {})
        shares = {name: min(waited / seconds, 1.0) for name, waited in waits.items()}
        return Recent(steps / seconds, shares | {"host": max(1 - sum(shares.values()), 0.0)})

    def overall(self) -> float:
        """Returns steps per second over all restarts; nan before two steps of a process."""
        return self.timed_steps / self.timed_seconds if self.timed_seconds else math.nan

    def saved(self) -> dict[str, Any]:
        """Returns the arguments with which `Timer(**saved)` continues."""
        names = ("seconds", "timed_seconds", "timed_steps")
        return {name: getattr(self, name) for name in names}

    def _pass(self) -> float:
        now = self._clock()
        passed, self._since = now - self._since, now
        self.seconds += passed
        return passed


class Log:
    """Appends to `<workdir>/metrics.jsonl`, and to TensorBoard where asked.

    A line is an object with 'step', 'kind' ('train' or 'eval') and the metrics; a value that is not
    finite is null. A run resumed at `step` drops later lines, and no line is written twice, so the
    file ends equal to that of an uninterrupted run.
    """

    def __init__(self, workdir: epath.Path, *, step: int, tensorboard: bool):
        self._path = workdir / METRICS
        self._board = open_board(workdir, step) if tensorboard and is_writer() else None
        lines = [line for line in read_metrics(self._path) if line["step"] <= step]
        self._there = {(line["step"], line["kind"]) for line in lines}
        self._text = "".join(json.dumps(line) + "\n" for line in lines)
        if is_writer():
            write_atomically(self._path, self._text)

    def has(self, step: int, kind: str) -> bool:
        """Whether this line has been written."""
        return (step, kind) in self._there

    def write(self, step: int, kind: str, metrics: dict[str, float]) -> None:
        """Writes one line, handed to the operating system before returning."""
        if self.has(step, kind):
            return
        self._there.add((step, kind))
        if not is_writer():
            return
        values = {n: v if math.isfinite(v) else None for n, v in metrics.items()}
        self._append(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        if self._board:
            for name, value in metrics.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Closes the board."""
        if self._board:
            self._board.close()

    def _append(self, line: str) -> None:
        self._text += line
        if in_bucket(self._path):  # files in buckets cannot be appended to
            write_atomically(self._path, self._text)
            return
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line)


def is_writer() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`; a last line cut short by a crash is left out.

    Raises:
      ValueError: another line is no JSON; names the file and the line.
    """
    if not path.exists():
        return []
    records = []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # whole lines end in a newline
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is damaged ({error}): delete it") from error
    return records


def open_board(workdir: epath.Path, step: int) -> Any:
    """Opens a TensorBoard writer that discards earlier records of steps after `step`.

    Raises:
      ImportError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "config.tensorboard=True needs tensorboardX: pip install -e '.[tensorboard]', "
            "or set it to False (metrics.jsonl is always written)"
        ) from error
    return SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)


def progress(
    step: int,
    steps: int,
    metrics: dict[str, float],
    *,
    recent: Recent,
    batch_size: int,
    flops_per_example: float,
) -> str:
    """Returns the progress line.

    Args:
      step: steps done, of `steps`.
      metrics: name to value.
      recent: of the timer.
      batch_size: global.
      flops_per_example: of the forward pass; a training step is counted as three. 0 says none.
    """
    parts = [f"step {step}/{steps} {step / steps:.0%}", show(metrics)]
    if math.isfinite(recent.steps_per_second):
        rate = recent.steps_per_second * batch_size
        flops = 3 * flops_per_example * rate
        parts += [
            f"{with_prefix(rate)} examples/s",
            *([f"{with_prefix(flops, gap=' ')}FLOP/s model"] if flops else []),
            f"{duration((steps - step) / recent.steps_per_second)} left",
        ]
    waiting = recent.shares.get("input", 0.0)
    if waiting > INPUT_BOUND:
        parts.append(f"input-bound: {waiting:.0%} of the time waits for data")
    return " | ".join(parts)


def show(metrics: dict[str, float]) -> str:
    """Returns 'loss 0.123 accuracy 0.9'."""
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def with_prefix(value: float, *, gap: str = "") -> str:
    """Returns '5.4k' for 5400: three digits and the SI prefix, `gap` between them."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{gap}{prefix}"
    return f"{value:.3g}{gap}"


def duration(seconds: float) -> str:
    """Returns '2h05m', '1m20s' or '9s'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
