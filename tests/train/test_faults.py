"""Faults of disks and folders: one clear message, nothing lost, and the same command goes on."""

import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import run_flags
import toy
from etils import epath
from etils.epath import gpath
from matplotlib.figure import Figure

from experiments import plot
from perceiver_jax.train import checkpoint, workdir
from perceiver_jax.train.log import Log, read_metrics
from perceiver_jax.train.loop import train
from perceiver_jax.train.stop import Lost, Preempted, explain

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
pytestmark = pytest.mark.usefixtures("one_device")
CONFIG = {"steps": 6, "eval_every": 0, "checkpoints_kept": 1}


def steps_in(folder):
    return [int(path.name) for path in checkpoint.checkpoints(folder / "checkpoints")]


def test_a_full_disk_while_saving(tmp_path, monkeypatch):
    """The save of step 4 fails in the background; the checkpoint before is whole, and goes on."""
    calm = train(toy.make_task(), toy.make_config(**CONFIG), tmp_path / "calm")
    write_text = gpath.PosixGPath.write_text

    def no_space(path, *args, **kwargs):
        if "/4." in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *args, **kwargs)

    with monkeypatch.context() as full, pytest.raises(checkpoint.NotSaved) as raised:
        full.setattr(gpath.PosixGPath, "write_text", no_space)
        train(toy.make_task(), toy.make_config(**CONFIG), tmp_path / "run")
    text, code = explain(raised.value)
    assert code == 1 and "Traceback" not in text
    assert f"to {tmp_path}/run/checkpoints (checkpoint 2 is whole)" in text
    assert "No space left on device" in text and "run the same command again" in text
    assert steps_in(tmp_path / "run") == [2]
    result = train(toy.make_task(), toy.make_config(**CONFIG), tmp_path / "run")
    assert result["loss"] == calm["loss"] and steps_in(tmp_path / "run") == [6]


def test_a_full_disk_while_logging(tmp_path):
    log = Log(epath.Path(tmp_path), step=0, tensorboard=False)
    (tmp_path / "metrics.jsonl").unlink()
    os.symlink("/dev/full", tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"No space left on device; make room .*metrics.jsonl"):
        log.write(1, "train", {"loss": 1.0})


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as raised:
        train(toy.make_task(), toy.make_config(), tmp_path / "file" / "run")
    text, code = explain(raised.value)
    assert code == 1 and str(tmp_path / "file") in text and "\n" not in text


def test_a_folder_is_held_by_one_run(tmp_path):
    folder, warnings = epath.Path(tmp_path / "run"), []
    with workdir.lock(folder, warn=warnings.append):
        with pytest.raises(workdir.InUse) as raised:
            train(toy.make_task(), toy.make_config(), folder)
        text, code = explain(raised.value)
        assert code == 1
        assert f"{folder} is in use by process {os.getpid()} on " in text
        assert "choose another workdir" in text
        assert not (folder / "config.json").exists()
    train(toy.make_task(), toy.make_config(steps=2), folder)
    assert not warnings


def test_where_nothing_can_be_locked_a_warning(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    warnings = []
    with workdir.lock(epath.Path(tmp_path), warn=warnings.append):
        pass
    assert "cannot be locked (Operation not supported)" in warnings[0]


def test_other_devices_are_no_other_config(tmp_path):
    """`parallel` may change between a run and its resumption, and is written down; nothing else."""
    folder = epath.Path(tmp_path)
    workdir.check_config(folder, toy.make_config(), write=True)
    changed = toy.make_config(parallel__shard_params_above=7)
    workdir.check_config(folder, changed, write=False)
    assert workdir.load_config(folder).parallel.shard_params_above == 0
    workdir.check_config(folder, changed, write=True)
    assert workdir.load_config(folder).parallel.shard_params_above == 7
    with pytest.raises(ValueError, match=r"config.seed: 0 -> 1") as raised:
        workdir.check_config(folder, toy.make_config(seed=1), write=True)
    assert "parallel" not in str(raised.value)
    # A run from before there was such a section.
    old = {name: value for name, value in json.loads(toy.make_config().to_json()).items()}
    del old["parallel"]
    (folder / "config.json").write_text(json.dumps(old))
    workdir.check_config(folder, toy.make_config(), write=True)
    assert workdir.load_config(folder).parallel.mode == "jit"


class Bucket(type(epath.backend.os_backend)):
    """An object store in a folder: nothing is added to, locked, or renamed into place."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, path, mode):
        assert mode in ("r", "w", "rb", "wb"), f"an object cannot be opened with {mode!r}"
        return super().open(self.local(path), mode)

    def local(self, path):
        return self.folder / os.fspath(path).removeprefix("gs://")

    def exists(self, path):
        return self.local(path).exists()

    def isdir(self, path):
        return self.local(path).is_dir()

    def listdir(self, path):
        return os.listdir(self.local(path))

    def makedirs(self, path, **kwargs):
        self.local(path).mkdir(parents=True, exist_ok=True)

    def remove(self, path):
        self.local(path).unlink()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(tmp_path))
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    return epath.Path("gs://bucket/run")


def test_a_workdir_in_a_bucket(bucket, tmp_path):
    warnings = []
    with workdir.lock(bucket, warn=warnings.append):
        workdir.check_config(bucket, toy.make_config(), write=True)
        for step in (1, 2):
            log = Log(bucket, step=step - 1, tensorboard=False)
            log.write(step, "train", {"loss": 1.0 / step})
            log.write(step, "eval", {"loss": 2.0 / step})
            log.close()
    assert [row["loss"] for row in read_metrics(bucket / "metrics.jsonl")] == [1.0, 2.0, 0.5, 1.0]
    assert workdir.load_config(bucket).to_dict() == toy.make_config().to_dict()
    assert sorted(os.listdir(tmp_path / "bucket/run")) == ["config.json", "metrics.jsonl"]
    assert not warnings
    # A run that was killed, or goes on: nobody can tell.
    (tmp_path / "bucket/run/lock").write_text("process 7 on elsewhere since yesterday\n")
    with workdir.lock(bucket, warn=warnings.append):
        assert "in use by process 7 on elsewhere since yesterday" in warnings[0]
    assert os.fspath(checkpoint.absolute(bucket)) == "gs://bucket/run"
    # Its pictures.
    paths = plot.write(bucket / "plots", {"curve": Figure(), "table": [{"x": 1}]})
    assert [os.fspath(path) for path in paths] == [
        "gs://bucket/run/plots/curve.png",
        "gs://bucket/run/plots/table.csv",
    ]
    assert (tmp_path / "bucket/run/plots/curve.png").read_bytes().startswith(b"\x89PNG")
    assert (bucket / "plots/table.csv").read_text().split() == ["x", "1"]


def test_unfinished_checkpoints_in_a_bucket_are_none(bucket, tmp_path):
    for name in ("2", "4", "6.orbax-checkpoint-tmp"):
        (tmp_path / "bucket/run/checkpoints" / name).mkdir(parents=True)
    (tmp_path / "bucket/run/checkpoints/2/commit_success.txt").write_text("")
    assert [path.name for path in checkpoint.checkpoints(bucket / "checkpoints")] == ["2"]


def test_what_is_told_of_an_error():
    """Our own checks and the system speak for themselves; what nobody foresaw has its traceback."""

    def caught(action):
        with pytest.raises(Exception) as raised:
            action()
        return explain(raised.value)

    text, code = caught(lambda: toy.make_config().missing)
    assert code == 1 and "Traceback" in text and "AttributeError" in text
    text, code = caught(lambda: jax.numpy.zeros(3).reshape(2))
    assert code == 1 and "Traceback" in text
    text, code = caught(
        lambda: train(toy.make_task(), toy.make_config(parallel__mode="no"), "none")
    )
    assert code == 1 and text.startswith("ConfigError: config.parallel.mode=")
    assert "Traceback" not in text
    assert caught(lambda: os.stat("/none/here")) == (
        "FileNotFoundError: [Errno 2] No such file or directory: '/none/here'",
        1,
    )
    assert explain(Preempted("SIGTERM")) == ("Preempted: SIGTERM", 75)
    assert explain(Lost("gone"))[1] == 69


@pytest.mark.slow
def test_a_disk_that_is_full_and_one_that_is_read_only(tmp_path):
    """Real ones, at the command line, as far as this machine lets us mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=24m tmpfs {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False).returncode:
        pytest.skip("mounting is not permitted")
    run = f"{sys.executable} {HERE}/run_flags.py --config={HERE}/run_flags.py --workdir={disk}"
    script = f"""
        {mount}
        FILLS=9:{disk}/filler {run}/run --config.log_every=0 >{tmp_path}/1.txt 2>&1; echo $?
        ls {disk}/run/checkpoints
        rm {disk}/filler; {run}/run --config.log_every=0 >{tmp_path}/2.txt 2>&1; echo $?
        cp {disk}/run/result.json {tmp_path}
        mount -o remount,ro {disk}; {run}/new >{tmp_path}/3.txt 2>&1; echo $?
    """
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    out = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    codes = [line for line in out.stdout.split() if "tmp" not in line]
    assert codes == ["1", "4", "0", "1"], out
    said = [(tmp_path / f"{n}.txt").read_text() for n in (1, 2, 3)]
    assert f"NotSaved: a checkpoint could not be written to {disk}/run/checkpoints" in said[0]
    assert "checkpoint 4 is whole" in said[0]
    assert "No space left on device" in said[0] and "run the same command again" in said[0]
    assert "going on from step 4" in said[1]
    assert said[2] == f"OSError: [Errno 30] Read-only file system: '{disk}/new'\n"
    assert not any("Traceback" in text for text in said)
    config = run_flags.get_config()
    config.log_every = 0
    calm = train(run_flags.make_task(config), config, tmp_path / "calm")
    assert json.loads((tmp_path / "result.json").read_text())["loss"] == pytest.approx(
        calm["loss"], rel=1e-4
    )
