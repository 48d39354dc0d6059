"""Real processes on one machine: one run in all of them, and what becomes of it when one is hit."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
import run_flags

from perceiver_jax.train import checkpoint, distributed, sharding
from perceiver_jax.train.log import TIMING, read_metrics
from perceiver_jax.train.loop import train
from perceiver_jax.train.workdir import InUse

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE / "run_flags.py"
PEER_TIMEOUT = 20  # seconds; a busy machine may stand still for several
PATIENCE = 180  # seconds, for anything on a busy machine


class Processes:
    """Processes of one run, each with `devices`; what each says goes to its file.

    `{index}` in `workdir` is the process's own number.
    """

    def __init__(self, workdir, folder, *, count, devices, flags=(), **env):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        folder.mkdir()
        self.outputs = [folder / f"{index}.txt" for index in range(count)]
        flags = [f"--config={SCRIPT}", *flags, f"--coordinator=localhost:{port}"]
        flags += [f"--num_processes={count}", f"--peer_timeout={PEER_TIMEOUT}"]
        env = (
            os.environ
            | env
            | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "XLA_FLAGS": re.sub(r"--xla_force_host\S*", "", os.environ["XLA_FLAGS"]).strip(),
                "PYTHONPATH": f"{HERE.parent.parent}{os.pathsep}{HERE}",
            }
        )
        self.processes = []
        for index, output in enumerate(self.outputs):
            own = [f"--process_id={index}", f"--workdir={workdir}".format(index=index)]
            command = [sys.executable, SCRIPT, *flags, *own]
            with output.open("wb") as file:
                process = subprocess.Popen(command, env=env, stdout=file, stderr=file)
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, index=0):
        return self.outputs[index].read_text(errors="replace")

    def until(self, condition):
        """Waits until it holds, while all of them run."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            codes = [process.poll() for process in self.processes]
            assert codes == [None] * len(codes), (codes, self.said()[-3000:])
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def codes(self):
        """The exit codes, once all have ended."""
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(subprocess.TimeoutExpired):
            return [process.wait(deadline - time.monotonic()) for process in self.processes]
        return [process.poll() for process in self.processes]


def at_step(processes, step):
    return lambda: f"\nstep {step}/" in processes.said()


def steps_in(workdir):
    return [int(path.name) for path in checkpoint.checkpoints(workdir / "checkpoints")]


def lines(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{n: v for n, v in row.items() if n not in TIMING} for row in rows]


def check_same(workdir, reference):
    """The same curves to float32 rounding, and all of them."""
    for row, expected in zip(lines(workdir), lines(reference), strict=True):
        assert row.pop("kind") == expected.pop("kind")
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.fixture
def four_devices(monkeypatch):
    """This process trains as one process with four devices."""
    if jax.device_count() < 4:
        pytest.skip("needs several devices")
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda p, _: make_mesh(p, jax.devices()[:4]))
    config = run_flags.get_config()
    return lambda workdir: train(run_flags.make_task(config), config, workdir)


def test_one_run_in_two_then_four_then_one_process(tmp_path, four_devices):
    """Killed in two processes, stopped by a signal in four, finished in one."""
    four_devices(tmp_path / "calm")
    run = tmp_path / "run"
    with Processes(run, tmp_path / "two", count=2, devices=2, DELAY="0.1") as two:
        two.until(at_step(two, 9))
        with pytest.raises(InUse, match=rf"in use by process {two.processes[0].pid} on .* since"):
            four_devices(run)
        two.until(lambda: 8 in steps_in(run))
        two.processes[1].kill()
        killed = time.monotonic()
        code, killed_code = two.codes()
        assert killed_code == -signal.SIGKILL and code in (69, -signal.SIGABRT)
        assert time.monotonic() - killed < PATIENCE / 2
        assert re.search("another task died|One that ended before", two.said())
        assert "Fatal Python error" not in two.said()
    assert "4 x cpu in 2 processes, step 0 of 24" in two.said()

    shutil.copytree(run, tmp_path / "alone")
    four_devices(tmp_path / "alone")
    check_same(tmp_path / "alone", tmp_path / "calm")

    with Processes(run, tmp_path / "four", count=4, devices=1, DELAY="0.3") as four:
        four.until(at_step(four, 14))
        four.processes[2].terminate()
        assert four.codes() == [75] * 4
        said = [four.said(index) for index in range(4)]
    assert "start: going on from step" in said[0]
    stopped = {re.search(r"Preempted: .* at step (\d+) of 24", text)[1] for text in said}
    assert stopped == {str(steps_in(run)[0])} and 14 <= steps_in(run)[0] < 24
    assert [bool(re.search("Preempted: SIGTERM", text)) for text in said] == [
        index == 2 for index in range(4)
    ]

    four_devices(run)
    check_same(run, tmp_path / "calm")


def test_what_is_said_of_processes_that_do_not_fit(monkeypatch):
    distributed.join()  # nothing says so: one process
    assert jax.process_count() == 1
    with pytest.raises(ValueError, match="go together: num_processes, process_id not given"):
        distributed.join("localhost:1")
    with pytest.raises(ValueError, match="process_id=2 is not one of num_processes=2"):
        distributed.join("localhost:1", 2, 2)
    monkeypatch.setattr(jax.distributed, "initialize", raises_undefined)
    with pytest.raises(ValueError, match="start on Cloud TPU, by srun or by mpirun"):
        distributed.join(detect=True)
    monkeypatch.setattr(distributed, "same", lambda text: False)
    with pytest.raises(ValueError, match=r"process 0 sees the checkpoints .*another process sees"):
        checkpoint.agreed([pathlib.Path("8")])
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="no processes to join: give coordinator"):
        distributed.join()


def raises_undefined(*args, **kwargs):
    raise ValueError("coordinator_address should be defined.")


@pytest.mark.slow
def test_the_curves_are_the_same_in_two_four_and_one_process(tmp_path, four_devices):
    result = four_devices(tmp_path / "calm")
    for count, devices in ((2, 2), (4, 1)):
        run = tmp_path / f"{count}x{devices}"
        with Processes(run, tmp_path / f"out{count}", count=count, devices=devices) as processes:
            assert processes.codes() == [0] * count, processes.said()
        check_same(run, tmp_path / "calm")
        assert "Preempted" not in processes.said()
    # Evaluated by two processes, whose last batch is ragged: each example counts once.
    (run / "result.json").unlink()
    with Processes(run, tmp_path / "e", count=2, devices=2, flags=["--mode=eval"]) as processes:
        assert processes.codes() == [0, 0], processes.said()
    again = json.loads((run / "result.json").read_text())
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert again["accuracy"] == result["accuracy"]
    assert "toy\n" in processes.said() and "in 2 processes, evaluating step 24" in processes.said()


@pytest.mark.slow
def test_one_that_fails_alone_ends_the_others(tmp_path, four_devices, monkeypatch):
    """An error in one, the loss of the one that coordinates, a file that one cannot read."""
    monkeypatch.setenv("WIDTH", "64")  # enough for arrays in files of their own
    four_devices(tmp_path / "calm")
    run = tmp_path / "run"
    with Processes(tmp_path / "run{index}", tmp_path / "o", count=2, devices=2) as two:
        assert two.codes() == [1, 1]
        for index in (0, 1):
            assert "is not the same folder in all 2 processes: it must" in two.said(index)
            assert "Traceback" not in two.said(index)

    with Processes(run, tmp_path / "a", count=2, devices=2, DELAY="0.1", FAILS="1:7") as two:
        first, second = two.codes()
    assert second == 1 and "process 1: Traceback" in two.said(1)  # raised outside the packages
    assert "ValueError: batch 7 of process 1 is bad" in two.said(1)
    assert first in (69, -signal.SIGABRT)

    spread = ["--config.parallel.shard_params_above=1000"]
    with Processes(run, tmp_path / "b", count=2, devices=2, flags=spread, DELAY="0.1") as two:
        two.until(lambda: 12 in steps_in(run))
        two.processes[0].kill()
        assert two.codes()[1] in (69, -signal.SIGABRT)
    assert "start: going on from step" in two.said()

    newest, before, *_ = steps_in(run)
    files = [*(run / "checkpoints" / str(newest) / "weights/ocdbt.process_1/d").iterdir()]
    assert files
    for file in files:
        os.truncate(file, file.stat().st_size // 2)
    with Processes(run, tmp_path / "c", count=2, devices=2, flags=spread) as two:
        assert two.codes() == [0, 0], two.said()
    assert f"start: going on from step {before} of" in two.said()
    assert [path.name for path in (run / "damaged").iterdir()] == [str(newest)]
    check_same(run, tmp_path / "calm")
