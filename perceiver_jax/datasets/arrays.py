"""Examples held in memory."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.data import checks
from perceiver_jax.data.pipeline import fetch
from perceiver_jax.data.transforms import Example, decode

# Attributes of a source that `Arrays` keeps.
KEPT = ("classes", "classes_fixed", "files", "paths", "notes", "conditions", "groups")


class Arrays:
    """A source made of a dict of arrays that share their leading axis [N, ...]."""

    in_memory = True

    def __init__(
        self,
        arrays: Mapping[str, Any],
        name: str = "arrays",
        *,
        conditions: Conditions | None = None,
    ):
        self.arrays = {field: np.asarray(array) for field, array in arrays.items()}
        self.name, self.conditions = name, conditions
        lengths = {field: len(array) for field, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{name}: the arrays need one common length, got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Example:
        return {field: array[index] for field, array in self.arrays.items()}

    def __repr__(self) -> str:
        return self.name


def into_memory(source: Any) -> Arrays:
    """Decodes every example of `source` into `Arrays`, with progress on stderr.

    Raises:
      ValueError: the examples differ in shape.
    """
    if isinstance(source, Arrays):
        return source
    arrays: dict[str, np.ndarray] = {}
    total = len(source)
    for start in range(0, total, 1000):
        stop = min(start + 1000, total)
        for index, encoded in enumerate(fetch(source, range(start, stop)), start):
            with checks.named(source, index):
                example = decode(encoded, np.random.default_rng(0))
            if not arrays:
                arrays = {field: _empty(total, value) for field, value in example.items()}
            for field, value in example.items():
                shape, first = np.shape(value), arrays[field].shape[1:]
                if shape != first:
                    raise ValueError(
                        f"{source!r}: in_memory needs every {field!r} of one shape, but example "
                        f"{index} has {list(shape)} and the first {list(first)}; load it with "
                        "in_memory=False"
                    )
                arrays[field][index] = value
        end = "\n" if stop == total else "\r"
        print(f"decoding {source!r}: {stop:,} of {total:,}", end=end, file=sys.stderr)
    result = Arrays(arrays, name=repr(source))
    for name in KEPT:
        if hasattr(source, name):
            setattr(result, name, getattr(source, name))
    return result


def _empty(count: int, value: Any) -> np.ndarray:
    """An empty array for `count` values like this one; texts differ in length, so as objects."""
    value = np.asarray(value)
    return np.empty((count, *value.shape), object if value.dtype.kind in "SU" else value.dtype)
