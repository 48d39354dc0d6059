"""A real process, killed with SIGKILL over and over, ends where an undisturbed one does."""

import json
import os
import pathlib
import random
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


def kill_at_random(process, workdir, output, chance):
    """Kills within the training steps, every other time within a save. False if it ended first."""
    begun = pathlib.Path(output.name).stat().st_size
    in_save = chance.random() < 0.5
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        training = b"\nstep " in pathlib.Path(output.name).read_bytes()[begun:]
        if training and (not in_save or half_written(workdir)):
            time.sleep(chance.uniform(0, 0.01 if in_save else 0.4))
            break
        time.sleep(0.001)
    process.kill()
    return process.wait() == -9


def kill_and_run_again(tmp_path, *, kills, steps, seed):
    """Returns the undisturbed and the disturbed workdir, and the counts of what happened."""
    chance = random.Random(seed)
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    killed = mid_save = 0
    with (tmp_path / "calm.txt").open("wb") as out, (tmp_path / "out.txt").open("wb") as output:
        reference = launch(calm, steps, out)
        while killed < kills:
            process = launch(disturbed, steps, output)
            if not kill_at_random(process, disturbed, output, chance):
                break
            killed += 1
            mid_save += bool(half_written(disturbed))
        assert launch(disturbed, steps, output).wait(timeout=300) == 0, output.name
        assert reference.wait(timeout=300) == 0
    print(f"\n{killed} kills of {kills}, {mid_save} of them left a half-written checkpoint")
    return calm, disturbed, killed, mid_save


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
    calm, disturbed, killed, _ = kill_and_run_again(tmp_path, kills=4, steps=60, seed=0)
    assert killed >= 2
    check_equal(calm, disturbed, 60)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    calm, disturbed, killed, mid_save = kill_and_run_again(tmp_path, kills=20, steps=600, seed=1)
    assert killed == 20 and mid_save >= 3
    check_equal(calm, disturbed, 600)
