"""Which config file a run is from, in what it differs from it, and the command that runs it again.

A workdir holds the whole config and not the command. The file is the one of `configs` with the
fewest fields that differ.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import configs
from perceiver_jax.train.workdir import as_json

TINY_STEPS = 2  # of every config with `:tiny`
FROM_DATA = ("data.classes", "model.output.num_classes")  # None or () until the data are opened
ABSENT = "(absent)"


class Difference(NamedTuple):
    """A field, its value in the file, and its value in the run; `ABSENT` where there is none."""

    field: str
    default: Any
    value: Any


class Origin(NamedTuple):
    """A file with its variant, as `configs/digits.py:permuted`, and what the run changed."""

    file: str
    differences: list[Difference]

    def command(self, workdir: str) -> str:
        """The command that makes such a run, a setting a line."""
        settings = [f"--config={self.file}", f"--workdir={workdir}"]
        settings += [
            f"--config.{field}={value if isinstance(value, str) else _literal(value)}"
            for field, default, value in self.differences
            if ABSENT not in (default, value)
        ]
        return " \\\n    ".join(["python -m experiments.run", *map(shlex.quote, settings)])


def find(config: Mapping[str, Any]) -> Origin | None:
    """The origin of a run's config, as plain values; None if most of it is in no file of ours."""
    ours, best = _flat(config), None
    for file, default in _candidates(config):
        theirs = _flat(default)
        fields = [
            Difference(name, theirs.get(name, ABSENT), ours.get(name, ABSENT))
            for name in sorted(ours | theirs)
            if not (name in FROM_DATA and theirs.get(name, ABSENT) in (None, []))
        ]
        found = Origin(file, [x for x in fields if x.default != x.value])
        if best is None or len(found.differences) < len(best.differences):
            best = found
        if not found.differences:
            break
    return best if best and len(best.differences) < len(ours) / 3 else None


def _candidates(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every file and variant for the run's experiment, as plain values."""
    size = ":tiny" if config.get("steps", 0) <= TINY_STEPS else ""
    for info in pkgutil.iter_modules(configs.__path__):
        module = importlib.import_module(f"configs.{info.name}")
        for variant in getattr(module, "VARIANTS", ()):
            default = as_json(module.get_config(f"{variant}{size}"))
            name = size if variant == "standard" else f":{variant}{size}"
            if default["experiment"] == config.get("experiment"):
                yield f"configs/{info.name}.py{name}", default


def _flat(config: Any, name: str = "") -> dict[str, Any]:
    """Values by full name; an empty section is a value."""
    if not isinstance(config, Mapping) or not config:
        return {name: config}
    parts = (_flat(value, f"{name}.{key}".lstrip(".")) for key, value in config.items())
    return {key: value for part in parts for key, value in part.items()}


def _literal(value: Any) -> str:
    """A value as the command line takes it: lists are tuples there."""

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return repr(tuples(value))
