"""A process for each contender: its memory is its own, and it sleeps while another one is timed.

The parent starts a `Worker`, which builds its program, and then asks for one timed turn after
another. Nothing a worker does can end the parent: an error, or a death, is an `Outcome`.
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

TURN = 0.2  # seconds that a turn lasts at least, in as many runs as that takes


class SkipError(Exception):
    """What is asked for does not apply here, or does not fit; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What a contender made of a case.

    Attributes:
      run: does the work once and returns when it is finished.
      facts: what is known without running, columns of the result.
      device_memory: the largest use of the accelerator's memory so far, bytes; None without one.
    """

    run: Callable[[], Any]
    facts: Mapping[str, Any]
    device_memory: Callable[[], int | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing to measure: a case of the table, what of it, and how."""

    case: str
    phase: str
    batch_size: int = 0  # 0: the case's own
    dtype: str = "float32"
    tiny: bool = False


class Worker:
    """The parent's end."""

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
        """Seconds of a run, timed now; None where it failed, for which `status` has the reason."""
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
        with contextlib.suppress(OSError):  # where it is dead the answer says so
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
    """The process's end: builds, then answers until the pipe closes."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # the time to compile is a result
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share an accelerator

    program: Program | None = None

    def build():
        nonlocal program
        program = contender(job)
        program.run()  # once untimed: what is done once only is done now
        gc.collect()
        return dict(program.facts)

    def facts():
        return {"peak_rss_bytes": peak_rss(), "peak_device_bytes": program.device_memory()}

    pipe.send(answer(build))
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(facts if question == "facts" else lambda: turn(program.run)))


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

    Unlike `getrusage`, whose figure a new process takes over from the one that started it.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None


def free_memory() -> int:
    """Bytes of the machine's memory that are free or can be freed; very many where unknown."""
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return 2**60
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()))
    return free
