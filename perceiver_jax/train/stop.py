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
import sysconfig
import threading
import traceback
import types
from collections.abc import Iterator

import jax

from perceiver_jax.train import distributed

# XLA's errors that this process causes itself, and not a lost peer.
OWN = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")

OURS = ("perceiver_jax", "experiments", "configs")  # the packages whose checks speak to users
LIBRARY = "a library"
LIBRARY_FOLDERS = ("<", *(sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")))
BUGS = (  # types of errors that code makes and data do not
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
)


class Stopped(RuntimeError):
    """A run that ended before its last step. `exit_code` is what the process should exit with."""

    exit_code: int


class Lost(Stopped):
    """A computation together with other processes failed."""

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
      signal: name of the signal that this process received, or ''.
      vote: with many processes, whether any had received a signal at the last call.
    """

    signal: str = ""
    vote: jax.Array | None = None

    def __call__(self) -> bool:
        """Whether to stop now; all processes get the same answer from the same call.

        With many processes it is the result of the vote that the previous call began. The vote is
        computed during the step in between, so no process waits for it.
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

    Closing files and checkpoints would wait for the others, which wait for this process. When it is
    gone, they notice. `Stopped` is raised in all processes alike and passes.
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

    What the system or a check of this project says is a message for the user. What a library says
    about data is one line too, with the line of this project that called it. The rest is a bug of
    this project or an error in a user's own module, and is printed with its traceback.
    """
    name = type(error).__name__
    if isinstance(error, Stopped):
        return f"{name}: {error}", error.exit_code
    frames = traceback.extract_tb(error.__traceback__)
    packages = [_package(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError):
        return f"{name}: {error}", 1
    checked = frames[-1].line.startswith("raise ") and packages[-1] in OURS
    if checked and (isinstance(error, ValueError) or not isinstance(error, BUGS)):
        return f"{name}: {error}", 1
    own = [i for i, package in enumerate(packages) if package != LIBRARY]
    if own and packages[own[-1]] in OURS and not isinstance(error, BUGS):
        text = " ".join(str(error).split())[:600]
        called = frames[own[-1]]
        return (
            f"{name}: {text} (raised below {called.filename}, line {called.lineno}; "
            "--verbosity=1 shows the traceback)"
        ), 1
    return "".join(traceback.format_exception(error)).rstrip(), 1


def _package(frame: types.FrameType) -> str:
    """The top package of a frame's module; `LIBRARY` for those of Python and of site-packages."""
    module = frame.f_globals.get("__package__") or frame.f_globals.get("__name__", "")
    package = module.partition(".")[0]
    path = frame.f_code.co_filename
    return LIBRARY if package not in OURS and path.startswith(LIBRARY_FOLDERS) else package
