"""Sources without files: example `index` is computed from (seed, split, index) at each access.

Most modules here pass a frozen dataclass to `Generated`. Its fields are the options, and calling it
with a random generator makes one example.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from perceiver_jax.config_types import Whole, check, check_fields
from perceiver_jax.data.transforms import Example

OPTIONS = "config.data.source_options"
LENGTHS = {"train": 1_000_000, "test": 10_000}
_SPLIT = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")


class Generated:
    """A source of examples `make(generator)`, each with its own random generator.

    Args:
      name: for messages.
      split: `train` (1,000,000 examples), `test` (10,000 others), or a part: `test[:500]`.
      seed: of everything random; two seeds share no example.
      make: a function of a `numpy.random.Generator` alone that returns an example.
    """

    in_memory = False

    def __init__(
        self, name: str, split: str, seed: int, make: Callable[[np.random.Generator], Example]
    ):
        self.name, self.seed, self.make = f"{name}[{split}]", seed, make
        part, self.indices = part_of(name, split, LENGTHS)
        self.split = list(LENGTHS).index(part)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        key = (self.seed, self.split, self.indices[index])
        return self.make(np.random.default_rng(key))

    def __repr__(self) -> str:
        return self.name


def part_of(name: str, split: str, lengths: Mapping[str, int]) -> tuple[str, range]:
    """Returns the name of the split that `test[:500]` is a part of, and the range of examples.

    Raises:
      ValueError: no such split or part.
    """
    match = _SPLIT.fullmatch(split)
    if not match or match[1] not in lengths:
        raise ValueError(
            f"{name} has the splits {list(lengths)} and parts as 'test[:500]', not {split!r}"
        )
    length = lengths[match[1]]
    start, stop = int(match[2] or 0), int(match[3] or length)
    if not start < stop <= length:
        raise ValueError(f"{name}[{split}] is no part of the {length:,} examples of {match[1]!r}")
    return match[1], range(start, stop)


def configured(maker: type, options: Mapping[str, Any]) -> Any:
    """`maker(**options)`; an option that the dataclass lacks is an error with those it has."""
    known = {field.name: field.default for field in dataclasses.fields(maker)}
    unknown = sorted(set(options) - set(known))
    if unknown:
        listed = ", ".join(f"{name}={default!r}" for name, default in known.items())
        raise ValueError(f"unknown source_options {unknown}; these and 'seed' are known: {listed}")
    check_fields(maker, options, OPTIONS)
    return maker(**options)


def check_generated(maker: type, /, *, seed: int = 0, **options) -> None:
    """Raises ValueError where an option is unknown or its value not allowed; opens nothing."""
    check(Whole, seed, f"{OPTIONS}.seed")
    configured(maker, options)


def require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises where a named choice is none of `choices`."""
    if value not in choices:
        raise ValueError(f"source_options.{option} is one of {list(choices)}, not {value!r}")


def require_range(option: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Raises where a number, or a (low, high) pair in ascending order, leaves [low, high].

    With `whole`, also where one is not an integer.
    """
    numbers = np.atleast_1d(value)
    if whole and numbers.dtype.kind != "i":
        raise ValueError(f"source_options.{option} is of whole numbers, got {value}")
    if numbers.min() < low or numbers.max() > high or np.any(np.diff(numbers) < 0):
        raise ValueError(f"source_options.{option} ascends within [{low}, {high}], got {value}")


def require_size(size: tuple[int, int]) -> None:
    """Raises where `size` is not (H, W) of 8 to 4,096 pixels."""
    if np.shape(size) != (2,):
        raise ValueError(f"source_options.size is (height, width), got {size}")
    require_range("size", sorted(size), 8, 4096, whole=True)
