"""Reasons to stop before the end, each with the exit code of the command line.

70  `Diverged`: a loss or norm is not finite; running again repeats it
75  `Preempted`: asked to stop by SIGTERM or SIGINT, saved; run the same command again
"""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator


class Stopped(RuntimeError):
    """A run that ended before its last step. `exit_code` is what the process should exit with."""

    exit_code: int


class Diverged(Stopped):
    """The loss or a norm is not finite."""

    exit_code = 70  # EX_SOFTWARE


class Preempted(Stopped):
    """A signal asked the run to stop; everything is saved."""

    exit_code = 75  # EX_TEMPFAIL: try again


@dataclasses.dataclass
class StopRequest:
    """`signal` is the name of the signal received, '' while there is none."""

    signal: str = ""


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and the first SIGINT into a flag; a second SIGINT interrupts at once.

    The earlier handlers are put back at the end. Outside the main thread, where Python allows no
    handlers, the flag is never set.
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
