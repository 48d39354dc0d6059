"""Several sources as one: in given shares to train on, each example once to evaluate.

    source_options = {"parts": {
        "c4": {"source": "c4/en", "options": {"field": "text", "join": 10}},
        "wikipedia": {"source": "wikipedia/20230601.en", "splits": {"validation": ""}}}}
    train_source_options = {"shares": {"c4": 0.7, "wikipedia": 0.3}}

Which part an example is of, and which of its examples, is arithmetic on the position. So a batch is
still a function of the seed and the step. Parts, and the tasks that they name, are numbered in
alphabetical order.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from perceiver_jax.config_types import ConfigError, Positive, check
from perceiver_jax.data.pipeline import fetch
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.options import check_reader

PARTS = "config.data.source_options.parts"
SHARES = "config.data.train_source_options.shares"


class Part(TypedDict):
    """The fields of a part."""

    source: str  # as config.data.source
    options: NotRequired[Mapping[str, Any]]  # of that source
    splits: NotRequired[Mapping[str, str]]  # what this part calls a split; '' leaves the part out
    fields: NotRequired[Mapping[str, str]]  # other names: new to old; '' is a field without a value
    task: NotRequired[str]  # '' or none is the part's own name


class Mixture:
    """Examples of several sources, each with `part` and `task`, int32.

    With `shares`, a pass through the mixture holds every example of every part at least once, and
    those of the parts that are too short for their share several times.

    Attributes:
      parts: the names of those that have this split; `part` counts all parts.
      names: of all parts.
      tasks: the names of the tasks of all parts; `task` counts them.
      notes: lines of the description.
    """

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        parts: Mapping[str, Part],
        shares: Mapping[str, Positive] | None = None,
    ):
        """Opens the parts that have the split.

        Args:
          split: of the parts, which may call it otherwise.
          data_dir: of all parts.
          parts: by name.
          shares: of the examples, by part; they need not sum to 1. None reads each example once,
            one part after the other.

        Raises:
          ValueError: no part has the split, one is empty, or the shares are of other parts.
          FileNotFoundError: the data of a part are not there.
        """
        self.name, self.names, self.tasks = f"mixture[{split}]", sorted(parts), task_names(parts)
        splits = {name: parts[name].get("splits", {}).get(split, split) for name in self.names}
        self.parts = [name for name in self.names if splits[name]]
        if not self.parts:
            raise ValueError(f"{self.name}: no part of {self.names} has this split")
        self.sources = [
            registry.load(
                parts[name]["source"],
                splits[name],
                data_dir=data_dir,
                options=parts[name].get("options"),
            )
            for name in self.parts
        ]
        self.fields = [dict(parts[name].get("fields", {})) for name in self.parts]
        self.numbers = [_numbers(name, parts) for name in self.parts]
        self.in_memory = all(getattr(source, "in_memory", False) for source in self.sources)
        lengths = [len(source) for source in self.sources]
        for name, source, length in zip(self.parts, self.sources, lengths, strict=True):
            if not length:
                raise ValueError(f"{self.name}: the part {name!r} is empty: {source!r}")
        self.counts = lengths if shares is None else self._shared(shares, lengths)
        self.ends = list(itertools.accumulate(self.counts))
        self.notes = [
            f"{self.name}: {name} {source!r}, {length:,} examples, {count / len(self):.1%}"
            for name, source, length, count in zip(
                self.parts, self.sources, lengths, self.counts, strict=True
            )
        ]

    def _shared(self, shares: Mapping[str, float], lengths: Sequence[int]) -> list[int]:
        """How many examples of each part a pass holds: the least that holds all."""
        if sorted(shares) != self.parts:
            raise ConfigError(
                f"{SHARES}={dict(shares)}: write a share for each "
                f"of {self.parts}, the parts that have the split"
            )
        given = [shares[name] for name in self.parts]
        scale = max(length / share for length, share in zip(lengths, given, strict=True))
        return [
            max(length, round(share * scale)) for length, share in zip(lengths, given, strict=True)
        ]

    def __len__(self) -> int:
        return self.ends[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the part, of those that have the split, and the index of its example."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self.ends, index)
        begin = self.ends[part] - self.counts[part]
        return part, (index - begin) % len(self.sources[part])

    def __getitem__(self, index: int) -> Example:
        (example,) = self.__getitems__([index])
        return example

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Reads the examples of each part in one call, where its source can."""
        places = [self.locate(index) for index in indices]
        found = {}
        for part in {part for part, _ in places}:
            rows = [row for number, row in places if number == part]
            found[part] = iter(fetch(self.sources[part], rows))
        return [self._named(part, next(found[part])) for part, _ in places]

    def _named(self, part: int, example: Example) -> Example:
        missing = sorted({old for old in self.fields[part].values() if old} - set(example))
        if missing:
            raise ValueError(
                f"{self.sources[part]!r} has no field {missing[0]!r}, but {sorted(example)}: see "
                f"{PARTS}.{self.parts[part]}.fields"
            )
        names = {new: example[old] if old else None for new, old in self.fields[part].items()}
        return {**example, **names, **self.numbers[part]}

    def __repr__(self) -> str:
        return self.name


def task_names(parts: Mapping[str, Part]) -> list[str]:
    """The tasks of all parts, in the order of their numbers."""
    return sorted({_task(name, part) for name, part in parts.items()})


def _task(name: str, part: Part) -> str:
    return part.get("task") or name


def _numbers(name: str, parts: Mapping[str, Part]) -> Example:
    task = task_names(parts).index(_task(name, parts[name]))
    return {"part": np.int32(sorted(parts).index(name)), "task": np.int32(task)}


def check_options(**options) -> None:
    """Checks the options, and those of the sources of all parts."""
    check_reader(Mixture, **options)
    parts = options["parts"]
    if not parts:
        raise ConfigError(f"{PARTS} names no part")
    for name, part in parts.items():
        try:
            registry.check_options(part["source"], part.get("options", {}))
        except ConfigError as error:
            raise ConfigError(f"{PARTS}.{name}: {error}") from error
    shares = options.get("shares") or {}
    check(Mapping[str, Positive], shares, SHARES)
    if unknown := sorted(set(shares) - set(parts)):
        raise ConfigError(
            f"{SHARES} has a part {unknown[0]!r}, which {PARTS} has not: choose from "
            f"{sorted(parts)}"
        )


def load(split: str, *, data_dir: str = "", **options) -> Mixture:
    """Opens the parts; `options` are of `Mixture`."""
    return Mixture(split, data_dir, **options)


def spec(parts: Mapping[str, Part], **_) -> Example:
    """An example like one of the first part."""
    name = min(parts)
    dataset = registry.find(parts[name]["source"])
    if dataset.spec is None:
        raise ValueError(f"{PARTS}.{name}: {parts[name]['source']!r} reads no files")
    example = dataset.spec(**parts[name].get("options", {}))
    fields = parts[name].get("fields", {}).items()
    names = {new: example[old] if old else None for new, old in fields}
    return {**example, **names, **_numbers(name, parts)}
