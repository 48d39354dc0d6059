"""What the fields of a config may be: types with ranges, declared beside where a field is used.

A declaration is anything with type hints: a Flax module, a `TypedDict` for a section, a frozen
dataclass of options or a function with keyword arguments. `check_fields` compares plain values with
it and raises one line with the field's full name, the value and what is allowed.
"""

import collections
import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

LARGEST = 2**31 - 1  # what an int32 holds


class ConfigError(ValueError, TypeError):
    """A field of a config is unknown or missing, or its value is not allowed."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; the ends belong to it unless `above` or `below` is set."""

    low: float
    high: float = LARGEST
    above: bool = False  # without `low` itself
    below: bool = False  # without `high` itself

    def allows(self, value: float) -> bool:
        """Whether `value` is in the range; NaN never is."""
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:,}" if self.above else f"from {self.low:,}"
        high = f" to below {self.high:,}" if self.below else f" to {self.high:,}"
        return low + high


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Strings that match a regular expression as a whole; `text` describes them."""

    regex: str
    text: str

    def allows(self, value: str) -> bool:
        """Whether `value` matches."""
        return re.fullmatch(self.regex, value, re.DOTALL) is not None

    def __str__(self) -> str:
        return self.text


class Ascending:
    """A pair (low, high) with low <= high."""

    def allows(self, value: Sequence[float]) -> bool:
        """Whether the pair ascends."""
        return list(value) == sorted(value)

    def __str__(self) -> str:
        return "in ascending order"


class Regex:
    """Strings that Python's `re` compiles."""

    def allows(self, value: str) -> bool:
        """Whether `value` is a regular expression."""
        try:
            re.compile(value)
        except re.error:
            return False
        return True

    def __str__(self) -> str:
        return "that is a regular expression"


# The upper ends of sizes are far above any model, and keep a typo from exhausting the memory.
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Number = Annotated[float, Range(-1e30, 1e30)]
NonNegative = Annotated[float, Range(0, 1e30)]
Positive = Annotated[float, Range(0, 1e30, above=True)]
Fraction = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]  # of dropout: 1 would drop everything
Channels = Annotated[int, Range(1, 2**16)]  # widths of vectors
Padding = Annotated[int, Range(0, 2**16)]
Layers = Annotated[int, Range(1, 1024)]
Size = Annotated[int, Range(1, 2**24)]  # numbers of tokens, classes, samples
Widening = Annotated[int, Range(1, 64)]
Bands = Annotated[int, Range(0, 4096)]  # of Fourier features; 0 is the coordinates alone
Resolution = tuple[Size, ...]
Pixels = Annotated[int, Range(1, 2**16)]  # along one axis
Shape2 = tuple[Pixels, Pixels]
Shape3 = tuple[Pixels, Pixels, Pixels]
Odd = Annotated[int, Range(1, 63)]
DType = Literal["float32", "bfloat16", "float16"]


def check_fields(
    declaration: Any, values: Mapping[str, Any], name: str, *, given: Collection[str] = ()
) -> None:
    """Checks every field of a section, that none is missing and that there are no others.

    Args:
      declaration: a class or function whose type hints say what the fields may be.
      values: plain values by field; other sections are mappings.
      name: the section's full name, as `config.optimizer`.
      given: fields that the config does not hold.

    Raises:
      ConfigError: with one line.
    """
    hints, required = declared_fields(declaration)
    hints = {key: hint for key, hint in hints.items() if key not in given}
    check_known(hints, values, name)
    if missing := sorted(required - set(values) - set(given)):
        raise ConfigError(f"{name}.{missing[0]} is missing: write {describe(hints[missing[0]])}")
    for key, value in values.items():
        check(hints[key], value, f"{name}.{key}")


def check_known(hints: Collection[str], values: Collection[str], name: str) -> None:
    """Raises ConfigError for the first field of `values` that has no hint."""
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(f"{name} has no field {unknown[0]!r}: choose from {sorted(hints)}")


def import_name(field: str, value: str, module: str, name: str) -> Any:
    """Returns the attribute `name` of a module that the config's field names by `value`.

    Raises:
      ConfigError: there is no such module or attribute.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{field}={value!r} does not exist: {error}") from error


def declared_fields(declaration: Any) -> tuple[dict[str, Any], set[str]]:
    """Returns the type of each field, and the names of those without a default."""
    hints = typing.get_type_hints(declaration, include_extras=True)
    if typing.is_typeddict(declaration):
        hints = {key: _unwrapped(hint) for key, hint in hints.items()}
        return hints, set(declaration.__required_keys__)
    parameters = inspect.signature(declaration).parameters
    if hasattr(declaration, "init_with_output"):  # a Flax module
        parameters = {k: p for k, p in parameters.items() if k not in ("dtype", "parent", "name")}
    required = {key for key, p in parameters.items() if p.default is p.empty}
    return {key: hints.get(key, Any) for key in parameters}, required


def _unwrapped(hint: Any) -> Any:
    """The type within `NotRequired`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.NotRequired else hint


def check(hint: Any, value: Any, name: str) -> None:
    """Raises ConfigError unless `value` is what the type `hint` allows; sections by field."""
    if typing.is_typeddict(hint) and isinstance(value, Mapping):
        check_fields(hint, value, name)
    elif typing.get_origin(hint) is collections.abc.Mapping and isinstance(value, Mapping):
        for key, part in value.items():
            check(typing.get_args(hint)[1], part, f"{name}.{key}")
    elif not allows(hint, value):
        raise ConfigError(f"{name}={value!r} is not allowed: write {describe(hint)}")


def allows(hint: Any, value: Any) -> bool:
    """Whether a value is what a type hint says. Types that no config holds allow anything."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, *limits = args
        result = allows(base, value) and all(limit.allows(value) for limit in limits)
    elif origin in (Union, types.UnionType):
        result = any(allows(arg, value) for arg in args)
    elif origin is Literal:
        result = any(type(value) is type(arg) and value == arg for arg in args)
    elif origin is tuple and isinstance(value, tuple | list):
        args = args[:1] * len(value) if args[-1] is Ellipsis else args
        result = len(args) == len(value) and all(map(allows, args, value))
    elif origin is collections.abc.Mapping or typing.is_typeddict(hint):
        result = isinstance(value, Mapping)
    elif hint is float:  # finite: no field takes infinity or NaN
        result = type(value) in (int, float) and -1e300 < value < 1e300
    elif hint in (int, bool, str, type(None)):
        result = type(value) is hint
    else:
        result = origin is not tuple
    return result


def describe(hint: Any) -> str:
    """What `allows` allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([describe(args[0]), *map(str, args[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is tuple and args[-1] is Ellipsis:
        return f"a tuple, each value {describe(args[0])}"
    if origin is tuple:
        return f"({', '.join(map(describe, args))})"
    words = {int: "a whole number", float: "a finite number", str: "a string"}
    words |= {bool: "True or False", type(None): "None"}
    return words.get(hint, "a section of fields")
