"""A process for each contender, with its own memory, which sleeps while others are timed.

The parent starts a `Worker`, which builds its program, and then asks for one timed turn after
another. No failure of a worker ends the parent: an error, or a killed worker, is an `Outcome`.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

TURN = 0.2  # the least seconds of a turn, which has as many runs as that takes


class SkipError(Exception):
    """A contender does not apply to a case, or does not fit; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A contender's program for a case.

    Attributes:
      run: does the work once and returns when it is finished.
      facts: columns of the result that are known without running.
      device_memory: the largest use of the accelerator's memory so far, bytes; None without one.
    """

    run: Callable[[], Any]
    facts: Mapping[str, Any]
    device_memory: Callable[[], int | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement: a case of the table, the phase, and how to run it."""

    case: str
    phase: str
    batch_size: int = 0  # 0: the case's own
    dtype: str = "float32"
    tiny: bool = False


class Worker:
    """The parent's side of a worker process."""

    def __init__(self, contender: Callable[[Job], Program], job: Job):
        """Starts the process; `contender(job)` is called there, and must be importable."""
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, contender, job), daemon=True)
        self._process.start()
        end.close()
        self.status = "ok"
        self.facts: dict[str, Any] = self._answer() or {}

    def turn(self) -> float | None:
        """Times a turn and returns seconds per run; None if it failed: `status` has the reason."""
        return self._ask("run")

    def close(self) -> None:
        """Ends the process; `facts` then holds its peak memory too."""
        self.facts |= self._ask("facts") or {}
        self._pipe.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, question: str):
        if self.status != "ok":
            return None
        with contextlib.suppress(OSError):  # of a dead process; the answer reports it
            self._pipe.send(question)
        return self._answer()

    def _answer(self):
        try:
            status, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            status, answer = f"failed: the process ended with exit code {code}", None
            if code == -signal.SIGKILL:
                status += " (killed, most likely for want of memory)"
        self.status = status
        return answer


def _serve(pipe, contender: Callable[[Job], Program], job: Job) -> None:
    """The worker's side: builds the program, then answers until the pipe closes."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # the time to compile is a result
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share an accelerator

    program: Program | None = None

    def build():
        nonlocal program
        program = contender(job)
        program.run()  # untimed: work that is done only once
        gc.collect()
        return dict(program.facts)

    processor = []

    def run():
        before, began = time.process_time(), time.perf_counter()
        seconds = turn(program.run)
        runs = (time.perf_counter() - began) / seconds
        processor.append((time.process_time() - before) / runs)
        return seconds

    def facts():
        return {
            "peak_rss_bytes": peak_rss(),
            "peak_device_bytes": program.device_memory(),
            "cpu_seconds": min(processor, default=None),
        }

    pipe.send(answer(build))
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(facts if question == "facts" else run))


def answer(function: Callable[[], Any]) -> tuple[str, Any]:
    """(status, value) of `function()`."""
    try:
        return "ok", function()
    except SkipError as error:
        return f"skipped: {error}", None
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return f"failed: {type(error).__name__}: {error}", None


def turn(run: Callable[[], Any]) -> float:
    """Mean seconds of `run`, over as many runs as fill a turn."""
    begin, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - begin < TURN:
        run()
        runs += 1
    return (time.perf_counter() - begin) / runs


def peak_rss() -> int | None:
    """The most memory this process ever had resident, bytes; None where Linux does not say.

    `getrusage` would not do: a new process starts with the figure of its parent.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None


def free_memory() -> int:
    """Bytes of memory that are free or can be freed; a very large number if unknown."""
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return 2**60
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()))
    return free
