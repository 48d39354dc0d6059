"""Preprocessing as one line: `"decode | inception_crop(224) | flip | keep('image', 'label')"`.

`parse` turns the line into a `Pipeline`. Each name in it is a function marked with `@transform`,
here, in the other `*_transforms` files or in your own, called as `f(example, rng, *arguments)`. An
example is a dict; images are uint8 [H, W, C] throughout, grey ones with C = 1. Random transforms
draw from `rng` only, and no transform writes into its input arrays: they may be a source's memory.
"""

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from perceiver_jax.config_types import Count, check
from perceiver_jax.files.image import decode_image

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """A JPEG or PNG file's bytes, and the channels that its dataset promises (1 or 3)."""

    data: bytes
    channels: int


TRANSFORMS: dict[str, Callable[..., Example]] = {}


def transform(function: Callable[..., Example]) -> Callable[..., Example]:
    """Makes `function(example, rng, *arguments) -> example` usable in pipelines by its name."""
    TRANSFORMS[function.__name__] = function
    return function


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """Transforms with their arguments, applied left to right; `str` returns the line."""

    steps: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]
    functions: tuple[Callable[..., Example], ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for function, (_, args, kwargs) in zip(self.functions, self.steps, strict=True):
            example = function(example, rng, *args, **kwargs)
        return example

    def without(self, *names: str) -> "Pipeline":
        """The same without the transforms of these names."""
        kept = [i for i, (name, _, _) in enumerate(self.steps) if name not in names]
        steps, functions = ([x[i] for i in kept] for x in (self.steps, self.functions))
        return Pipeline(tuple(steps), tuple(functions))

    def __str__(self) -> str:
        return " | ".join(_step_text(*step) for step in self.steps)


def _step_text(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    arguments = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return f"{name}({', '.join(arguments)})" if arguments else name


def parse(line: str) -> Pipeline:
    """Reads `"name | name(argument, ...) | ... | keep('field', ...)"`; arguments are literals.

    Raises:
      ValueError: not such a line, an unknown name, arguments that do not fit or are not of the
        types that the transform declares, or no final `keep`.
    """
    try:
        tree = ast.parse(f"({line}\n)", mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the pipeline {line!r}: {error.msg}") from None
    steps = tuple(_read_step(node, line) for node in _alternatives(tree))
    if steps[-1][0] != "keep":
        raise ValueError(
            f"the pipeline {line!r} must end in keep(...), which names what a batch contains, "
            "for example keep('image', 'label')"
        )
    return Pipeline(steps, tuple(TRANSFORMS[name] for name, _, _ in steps))


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """`a | b | c` as [a, b, c]."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    return [node]


def _read_step(node: ast.expr, line: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    text = ast.unparse(node)
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise ValueError(f"{text!r} in the pipeline {line!r} is not a `name` or `name(arguments)`")
    name = call.func.id
    if name not in TRANSFORMS:
        raise ValueError(f"unknown transform {name!r} in {line!r}; known: {sorted(TRANSFORMS)}")
    try:
        args = tuple(ast.literal_eval(argument) for argument in call.args)
        kwargs = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except ValueError:
        raise ValueError(
            f"the arguments in {text!r} of {line!r} must be literal numbers, strings or tuples"
        ) from None
    signature = inspect.signature(TRANSFORMS[name])
    try:
        bound = signature.bind({}, None, *args, **kwargs)
    except TypeError as error:
        parameters = list(signature.parameters.values())[2:]
        takes = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
        raise ValueError(f"{text!r} in {line!r}: {error}; it takes {name}({takes})") from None
    hints = typing.get_type_hints(TRANSFORMS[name], include_extras=True)
    for argument, value in list(bound.arguments.items())[2:]:
        repeated = signature.parameters[argument].kind is inspect.Parameter.VAR_POSITIONAL
        for one in value if repeated else [value]:
            check(hints.get(argument, Any), one, f"{text} in the pipeline: {argument}")
    return name, args, kwargs


@transform
def decode(example: Example, rng: np.random.Generator) -> Example:
    """Decodes every `Encoded` field to uint8 [H, W, C] as `files.decode_image` does.

    Arrays pass through.
    """
    del rng
    return {
        field: _decode(value, field) if isinstance(value, Encoded) else value
        for field, value in example.items()
    }


def _decode(encoded: Encoded, field: str) -> np.ndarray:
    try:
        return decode_image(encoded.data, repr(field), encoded.channels)
    except ValueError as error:
        raise ValueError(
            f"{error}; the dataset's files may be damaged, prepare them again"
        ) from error


@transform
def label_ids(example: Example, rng: np.random.Generator, field: str, most: Count) -> Example:
    """Makes `label_ids` int32 [most], filled up with -1, of one label or several in `field`.

    A field within another has a point between them: 'objects.label'. Repeated labels count once.
    """
    del rng
    value: Any = example
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ValueError(
                f"label_ids: no field {field!r} in the example, which has {sorted(example)}"
            )
        value = value[name]
    found = np.unique(np.asarray(value))
    if found.size and (found.dtype.kind not in "iu" or found[0] < 0):
        raise ValueError(f"label_ids: {field!r} holds {found[0]}, which is no label from 0 on")
    if len(found) > most:
        raise ValueError(f"label_ids: {field!r} has {len(found)} labels, but room is for {most}")
    ids = np.full(most, -1, np.int32)
    ids[: len(found)] = found
    return {**example, "label_ids": ids}


@transform
def keep(example: Example, rng: np.random.Generator, *fields: str) -> Example:
    """Keeps only `fields`, which a batch then contains."""
    del rng
    missing = [field for field in fields if field not in example]
    if missing:
        raise ValueError(f"keep: no {missing} in the example, which has {sorted(example)}")
    return {field: example[field] for field in fields}


def with_channels(image: np.ndarray) -> np.ndarray:
    """Restores the axis of a single channel, which OpenCV drops."""
    return image[..., None] if image.ndim == 2 else image
