"""The folder of one run: its config, its lock, and files that are complete or absent.

A workdir may be in a bucket: `gs://bucket/folder`.

<workdir>/config.json      the config that made the folder; `parallel` as of the last start
<workdir>/lock             who uses the folder, or used it last
<workdir>/checkpoints/     one numbered folder per kept step
<workdir>/damaged/         checkpoints that could not be read, moved aside
<workdir>/metrics.jsonl    one object per line
<workdir>/result.json      the final evaluation; there when the run is finished
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

import perceiver_jax
from perceiver_jax.pretrained import formats
from perceiver_jax.train import distributed

CONFIG = "config.json"
LOCK = "lock"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
METRICS = "metrics.jsonl"
RESULT = "result.json"
EXPORTED = "model.safetensors"  # beside the config.json of an exported run

# Fields that configs have had for less long than there are workdirs, at what was so before.
ADDED = {
    "start": {"fresh": [], "resize_positions": False},
    "optimizer": {"multipliers": [], "ema": 0.0},
}


class InUse(RuntimeError):
    """Another run has the folder."""


def in_bucket(path: epath.Path) -> bool:
    """Whether the path is in a bucket, where files are written as a whole and not appended to."""
    return "://" in os.fspath(path)


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a file so that it is complete or absent, also after a crash."""
    if in_bucket(path):
        path.write_text(text)
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with naming(temporary), temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def naming(path: epath.Path) -> Iterator[None]:
    """Adds the file and the remedy to a system error that names no file, as in writing."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        what = f"{error.strerror}; make room there and run the same command again to go on"
        raise OSError(error.errno, what, os.fspath(path)) from error


def is_workdir(path: epath.Path) -> bool:
    """Whether a run was started there. A Hugging Face folder has another kind of `config.json`."""
    try:
        return "model" in json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def read_exported(path: epath.Path) -> dict[str, np.ndarray] | None:
    """Reads a run that was exported as safetensors: arrays by path, as 'params/encoder/latents'.

    Returns:
      None where the folder is none, as a workdir with checkpoints.

    Raises:
      ValueError: the file is damaged.
    """
    if (path / CHECKPOINTS).is_dir() or not (path / EXPORTED).is_file() or not is_workdir(path):
        return None
    return formats.read(pathlib.Path(path) / EXPORTED).tensors


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json())


@contextlib.contextmanager
def lock(workdir: epath.Path, *, warn: Callable[[str], None]) -> Iterator[None]:
    """Locks the folder against other runs; makes it if it is missing.

    Process 0 holds the lock for all processes. A killed process leaves no lock behind.

    Args:
      workdir: of this run.
      warn: called with a line if the file system cannot lock.

    Raises:
      InUse: another run has it.
      ValueError: some process does not see the folder that process 0 sees.
    """
    with contextlib.ExitStack() as stack:
        distributed.on_process_zero(lambda: stack.enter_context(lock_file(workdir, warn=warn)))
        if distributed.any_process(not (workdir / LOCK).exists()):
            raise ValueError(
                f"{workdir} is not the same folder in all {jax.process_count()} processes: it must "
                "be on a file system that they share, or in a bucket"
            )
        yield


@contextlib.contextmanager
def lock_file(workdir: epath.Path, *, warn: Callable[[str], None]) -> Iterator[None]:
    """As `lock`, for one process."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
    if in_bucket(path):
        if path.exists():
            warn(
                f"{workdir} was in use by {path.read_text().strip()}, and did not end in good "
                "order. If that run still goes, end this one: in a bucket nothing else keeps two "
                "apart."
            )
        path.write_text(holder)
        try:
            yield
        finally:
            path.unlink()
        return
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(
                f"{workdir} is in use by {file.read().strip()}. Wait for that run or end it, or "
                "choose another workdir."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            warn(f"{workdir} cannot be locked ({error.strerror}): do not start a second run in it")
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def load_config(workdir: epath.Path) -> ConfigDict:
    """Returns the config that made the folder; sequences are tuples, as in config files.

    Raises:
      FileNotFoundError: no run was started there.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no {CONFIG}")

    def tuples(value):
        if isinstance(value, dict):
            return {name: tuples(item) for name, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return ConfigDict(tuples(read_config(path)))


def read_config(path: epath.Path) -> dict[str, Any]:
    """Returns the content of a `config.json`, with the fields that are newer than it.

    Raises:
      ValueError: it is no JSON object; names the file.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): copy it from another run of the same command"
        ) from error
    for section, fields in ADDED.items():
        if section in config:
            config[section] = fields | config[section]
    return config


def check_config(workdir: epath.Path, config: ConfigDict, *, write: bool) -> None:
    """Checks that the folder belongs to this config, and records the config in a new folder.

    The `parallel` section may differ: it changes numbers only by rounding, and devices may differ
    from run to run. The folder keeps the last one; each checkpoint keeps its own.

    Args:
      workdir: need not exist.
      config: the whole config of the run.
      write: False only checks.

    Raises:
      ValueError: another config made the folder; the fields that differ are listed.
    """
    path = workdir / CONFIG
    ours = as_json(config)
    theirs = read_config(path) if path.exists() else None
    if theirs is not None:
        parallel = {name: ours[name] for name in ("parallel",) if name in ours}
        differences = compare({**theirs, **parallel}, ours)
        if differences:
            raise ValueError(
                f"{workdir} was made by another config (field: there -> here):\n  "
                + "\n  ".join(differences)
                + "\nChoose another workdir (with config.start.run or config.start.weights set to "
                "this one to go on from it), set the fields back, or delete the folder."
            )
    if write:
        distributed.on_process_zero(lambda: theirs == ours or make_ours(path, ours))


def make_ours(path: epath.Path, config: dict[str, Any]) -> None:
    """Writes the config into the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(config, indent=2) + "\n")


def compare(theirs: Any, ours: Any, name: str = "config") -> list[str]:
    """Returns a line 'config.a.b: theirs -> ours' for each leaf that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        lines = []
        for key in sorted(theirs.keys() | ours.keys()):
            absent = "(absent)"
            lines += compare(theirs.get(key, absent), ours.get(key, absent), f"{name}.{key}")
        return lines
    if theirs == ours:
        return []
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) + len(ours) > 10:
        gone = [value for value in theirs if value not in ours]
        new = [value for value in ours if value not in theirs]
        if gone or new:  # of long lists only these
            return [f"{name}: without {gone!r}, with {new!r}"]
    return [f"{name}: {theirs!r} -> {ours!r}"]


def git_commit() -> str:
    """Returns the hash of the checkout this package is imported from; '' if it is not in one."""
    root = pathlib.Path(perceiver_jax.__file__).parent.parent
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return ""
    try:
        return subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
