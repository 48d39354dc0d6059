"""A real process, killed and stopped over and over, ends where an undisturbed one does."""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
import toy
from run_toy import task_and_config

from perceiver_jax.train import checkpoint
from perceiver_jax.train.log import TIMING, read_metrics
from perceiver_jax.train.start import build

HERE = pathlib.Path(__file__).parent


def launch(workdir, steps, output):
    """Starts a training process on one device."""
    env = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1",
        "PYTHONPATH": f"{HERE.parent.parent}{os.pathsep}{HERE}",
    }
    return subprocess.Popen(
        [sys.executable, HERE / "run_toy.py", workdir, str(steps)],
        env=env,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def half_written(workdir):
    """What a save under way has on disk."""
    return list((workdir / "checkpoints").glob("*tmp*"))


def hit(process, workdir, output, moment, chance):
    """Hits the process at a random time of a moment; returns its exit code.

    Moments: 'start' (anything before the first step), 'step' and 'save' are hit by SIGKILL; 'term'
    is SIGTERM in the steps. A process that ended before has exit code 0.
    """
    begun = pathlib.Path(output.name).stat().st_size
    deadline = time.monotonic() + 120
    steps = 1 if moment == "save" else chance.randint(1, 5)
    while process.poll() is None and time.monotonic() < deadline and moment != "start":
        done = pathlib.Path(output.name).read_bytes()[begun:].count(b"\nstep ")
        if done >= steps and (moment != "save" or half_written(workdir)):
            break
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 3.0 if moment == "start" else 0.01))
    process.send_signal(signal.SIGTERM if moment == "term" else signal.SIGKILL)
    return process.wait(timeout=120)


def hit_and_run_again(tmp_path, *, hits, steps, seed, moments):
    """Returns the undisturbed and the disturbed workdir, and the counts of what happened.

    Counts are of (moment, exit code), and of saves that a kill left half written.
    """
    chance = random.Random(seed)
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    counts, mid_save, code = collections.Counter(), 0, None
    with (tmp_path / "calm.txt").open("wb") as out, (tmp_path / "out.txt").open("wb") as output:
        reference = launch(calm, steps, out)
        while counts.total() < hits and code != 0:
            moment = moments[counts.total() % len(moments)]
            code = hit(launch(disturbed, steps, output), disturbed, output, moment, chance)
            counts[moment, code] += 1
            mid_save += bool(half_written(disturbed))
        assert launch(disturbed, steps, output).wait(timeout=300) == 0, output.name
        assert reference.wait(timeout=300) == 0
    print(f"\n{dict(counts)}, {mid_save} left a half-written checkpoint")
    return calm, disturbed, counts, mid_save


def check_equal(calm, disturbed, steps):
    program = build(*task_and_config(steps))
    states = [
        checkpoint.restore_newest(path / "checkpoints", program.target, warn=pytest.fail)[0]
        for path in (calm, disturbed)
    ]
    assert int(states[0].step) == steps
    toy.assert_equal(*states)
    rows = [
        [{n: v for n, v in row.items() if n not in TIMING} for row in read_metrics(path)]
        for path in (calm / "metrics.jsonl", disturbed / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]
    results = [json.loads((path / "result.json").read_text()) for path in (calm, disturbed)]
    for name in ("loss", "accuracy", "step"):
        assert results[0][name] == results[1][name]
    assert not half_written(disturbed) and not (disturbed / "damaged").exists()


def test_killed_and_run_again_ends_bit_equal(tmp_path):
    calm, disturbed, counts, _ = hit_and_run_again(
        tmp_path, hits=2, steps=60, seed=0, moments=["step", "save"]
    )
    assert sum(n for (_, code), n in counts.items() if code == -signal.SIGKILL) == 2
    check_equal(calm, disturbed, 60)


@pytest.mark.slow
def test_a_storm_of_a_hundred_signals(tmp_path):
    moments = ["start", "step", "step", "save", "save", "term"]
    calm, disturbed, counts, mid_save = hit_and_run_again(
        tmp_path, hits=100, steps=500, seed=1, moments=moments
    )
    ended = {code for _, code in counts}
    assert counts.total() == 100 and ended == {-signal.SIGKILL, 75}
    assert mid_save >= 10
    check_equal(calm, disturbed, 500)
