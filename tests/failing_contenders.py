"""Contenders for `test_benchmark` that go wrong, each in a process of its own."""

import os
import signal

from experiments.benchmark.worker import Job, Program


def failing(job: Job) -> Program:
    """Fails after its first run."""
    runs = []

    def run():
        runs.append(1)
        if len(runs) > 1:
            raise ValueError("out of luck")

    return Program(run, {"inputs": 3, "compile_seconds": 0.0})


def dying(job: Job) -> Program:
    """Is killed, as a process without memory is."""
    os.kill(os.getpid(), signal.SIGKILL)
