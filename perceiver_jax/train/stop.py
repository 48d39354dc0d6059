"""Reasons to stop before the end, each with the exit code of the command line.

69  `Lost`: another process of the run is gone; run all of them again
70  `Diverged`: a loss or norm is not finite; running again repeats it
75  `Preempted`: asked to stop by SIGTERM or SIGINT, saved; run the same command again
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

import jax

from perceiver_jax.train import distributed

# What the devices say about this program, whoever else is there.
OWN = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")

OURS = ("perceiver_jax", "experiments", "configs")  # the packages whose checks speak to users


class Stopped(RuntimeError):
    """A run that ended before its last step. `exit_code` is what the process should exit with."""

    exit_code: int


class Lost(Stopped):
    """What this process computes together with others failed."""

    exit_code = 69  # EX_UNAVAILABLE


class Diverged(Stopped):
    """The loss or a norm is not finite."""

    exit_code = 70  # EX_SOFTWARE


class Preempted(Stopped):
    """A signal asked the run to stop; everything is saved."""

    exit_code = 75  # EX_TEMPFAIL: try again


@dataclasses.dataclass
class StopRequest:
    """Calling it tells whether to stop.

    Attributes:
      signal: the name of the one that this process received, '' while there is none.
      vote: of many processes: whether any had received one at the last call.
    """

    signal: str = ""
    vote: jax.Array | None = None

    def __call__(self) -> bool:
        """Whether to stop now; of many processes all get the same answer from the same call.

        It is the outcome of the vote that the call before began, counted while the device worked
        on the step in between, so nothing waits.
        """
        if jax.process_count() == 1:
            return bool(self.signal)
        before, self.vote = self.vote, distributed.vote(bool(self.signal))
        return before is not None and bool(jax.device_get(before))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and the first SIGINT into a request; a second SIGINT interrupts at once.

    The earlier handlers are put back at the end. Outside the main thread, where Python allows no
    handlers, there is never a signal.
    """
    request = StopRequest()

    def handle(number, frame):
        del frame
        name = signal.Signals(number).name
        if name == request.signal == "SIGINT":
            raise KeyboardInterrupt
        request.signal = name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Of many processes, ends this one at once on an error that the others need not have.

    To close files and checkpoints in good order would wait for the others, which wait for this one.
    When it is gone, they notice. `Stopped` is raised by all alike and passes.
    """
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith(OWN):
            line = str(error).partition("\n")[0]
            error = Lost(
                f"computing together with {jax.process_count() - 1} other processes failed: {line}."
                " One that ended before says why. Run all of them again to go on from the last "
                "checkpoint."
            )
        text, exit_code = explain(error)
        print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)
        os._exit(exit_code)


def explain(error: BaseException) -> tuple[str, int]:
    """Returns what to print about an error that ends the process, and its exit code.

    What the system or a check of this project says is a message for the user; the rest, which
    nobody foresaw, is printed with its traceback.
    """
    if isinstance(error, Stopped):
        return f"{type(error).__name__}: {error}", error.exit_code
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_by = frame.f_globals["__name__"].partition(".")[0]
    foreseen = isinstance(error, (ValueError, RuntimeError, ImportError)) and raised_by in OURS
    if foreseen or isinstance(error, OSError):
        return f"{type(error).__name__}: {error}", 1
    return "".join(traceback.format_exception(error)).rstrip(), 1
