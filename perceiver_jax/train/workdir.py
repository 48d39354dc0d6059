"""The folder of one run: whose it is, and files that are whole or absent.

<workdir>/config.json      the config that made the folder
<workdir>/checkpoints/     one numbered folder per kept step
<workdir>/damaged/         checkpoints that could not be read, moved aside
<workdir>/metrics.jsonl    one object per line
<workdir>/result.json      the final evaluation; there when the run is finished
"""

import json
import os
import pathlib
import subprocess
from typing import Any

import jax
from ml_collections import ConfigDict

import perceiver_jax

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
METRICS = "metrics.jsonl"
RESULT = "result.json"


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file that a reader, or a process killed meanwhile, sees whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def load_config(workdir: pathlib.Path) -> ConfigDict:
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

    return ConfigDict(tuples(json.loads(path.read_text(encoding="utf-8"))))


def claim(workdir: pathlib.Path, config: ConfigDict, *, write: bool) -> None:
    """Checks that the folder belongs to this config; a new folder is made its own.

    Args:
      workdir: need not exist.
      config: the whole config of the run.
      write: False only checks (evaluation).

    Raises:
      ValueError: another config made the folder; the fields that differ are listed.
    """
    path = workdir / CONFIG
    ours = as_json(config)
    if path.exists():
        differences = compare(json.loads(path.read_text(encoding="utf-8")), ours)
        if differences:
            raise ValueError(
                f"{workdir} was made by another config (field: there -> here):\n  "
                + "\n  ".join(differences)
                + "\nChoose another workdir (with config.start.run or config.start.weights set to "
                "this one to go on from it), set the fields back, or delete the folder."
            )
    elif write and jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(ours, indent=2) + "\n")


def compare(theirs: Any, ours: Any, name: str = "config") -> list[str]:
    """Returns a line 'config.a.b: theirs -> ours' for each leaf that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        lines = []
        for key in sorted(theirs.keys() | ours.keys()):
            absent = "(absent)"
            lines += compare(theirs.get(key, absent), ours.get(key, absent), f"{name}.{key}")
        return lines
    return [] if theirs == ours else [f"{name}: {theirs!r} -> {ours!r}"]


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
