"""`--profile=START:STOP`: a trace of some steps, for TensorBoard's profiler, XProf or Perfetto."""

import contextlib
import re
from collections.abc import Callable, Iterator

import jax
from etils import epath

from perceiver_jax.train.log import say, warn

FOLDER = "profile"


def parse_span(text: str) -> tuple[int, int] | None:
    """Reads 'START:STOP', two steps; '' is None.

    Raises:
      ValueError: it is something else, or empty.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(
            f"--profile={text!r}: write START:STOP, two numbers of steps with START < STOP, such "
            "as 10:15, which traces the five steps that follow the tenth"
        )
    return int(found[1]), int(found[2])


@contextlib.contextmanager
def tracing(workdir: epath.Path, span: tuple[int, int] | None) -> Iterator[Callable]:
    """Gives `trace(step, state)`, to be called before each step; it traces those of `span`.

    Args:
      workdir: the trace is written to its folder 'profile'.
      span: steps done when the trace starts and when it stops; None traces nothing.
    """
    if span is None:
        yield lambda step, state: None
        return
    begun = running = False

    def trace(step, state):
        nonlocal begun, running
        inside = span[0] <= step < span[1]
        if inside == running:
            return
        jax.block_until_ready(state)  # earlier steps are not part of the trace
        if inside:
            jax.profiler.start_trace(workdir / FOLDER)
            begun = running = True
        else:
            stop()

    def stop():
        nonlocal running
        running = False
        jax.profiler.stop_trace()
        say(f"profile: steps {span[0]} to {span[1]} are traced in {workdir / FOLDER}")

    try:
        yield trace
    finally:
        if running:  # the run ended within the span
            stop()
        if not begun:
            warn(f"--profile={span[0]}:{span[1]}: none of these steps was run, nothing is traced")
