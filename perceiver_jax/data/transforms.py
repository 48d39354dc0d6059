"""Preprocessing as one line: `"decode | inception_crop(224) | flip | keep('image', 'label')"`.

`parse` turns the line into a `Pipeline`; each name in it is a function below (or one that a user
marks with `@transform`), called as `f(example, rng, *arguments)`. An example is a dict; images are
uint8 `[H, W, C]` throughout, grey ones with C = 1. The crops, `flip` and `resize` treat the frames
of a `video` uint8 `[T, H, W, C]`, where there is one, all alike. Random transforms draw from `rng`
only, and no transform writes into the arrays it is given: they may be a source's own memory.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from perceiver_jax.data import augmentation as randaugment_lib

Example = dict[str, Any]

# TF ignores the camera's rotation tag, so the published ImageNet results did too.
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
_READ_FLAGS = {1: cv2.IMREAD_GRAYSCALE | _AS_STORED, 3: cv2.IMREAD_COLOR_RGB | _AS_STORED}


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
    """Transforms with their arguments, applied left to right; `str` gives the line back."""

    steps: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]
    functions: tuple[Callable[..., Example], ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for function, (_, args, kwargs) in zip(self.functions, self.steps, strict=True):
            example = function(example, rng, *args, **kwargs)
        return example

    def __str__(self) -> str:
        return " | ".join(_step_text(*step) for step in self.steps)


def _step_text(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    arguments = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return f"{name}({', '.join(arguments)})" if arguments else name


def parse(line: str) -> Pipeline:
    """Reads `"name | name(argument, ...) | ... | keep('field', ...)"`; arguments are literals.

    Raises:
      ValueError: not such a line, an unknown name, arguments that do not fit, or no final `keep`.
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
        signature.bind({}, None, *args, **kwargs)
    except TypeError as error:
        takes = ", ".join(map(str, list(signature.parameters.values())[2:]))
        raise ValueError(f"{text!r} in {line!r}: {error}; it takes {name}({takes})") from None
    return name, args, kwargs


# --- The transforms --------------------------------------------------------------------------


@transform
def decode(example: Example, rng: np.random.Generator) -> Example:
    """Decodes every `Encoded` field to uint8 [H, W, C]; arrays pass through."""
    del rng
    return {
        field: _decode(value, field) if isinstance(value, Encoded) else value
        for field, value in example.items()
    }


def _decode(encoded: Encoded, field: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(encoded.data, np.uint8), _READ_FLAGS[encoded.channels])
    if image is None:
        raise ValueError(
            f"{field!r} is no readable image: {len(encoded.data)} bytes that start with "
            f"{encoded.data[:8]!r}; the dataset's files may be damaged, prepare them again"
        )
    return _with_channels(image)


@transform
def keep(example: Example, rng: np.random.Generator, *fields: str) -> Example:
    """Keeps `fields` alone: what a batch contains."""
    del rng
    missing = [field for field in fields if field not in example]
    if missing:
        raise ValueError(f"keep: no {missing} in the example, which has {sorted(example)}")
    return {field: example[field] for field in fields}


@transform
def inception_crop(example: Example, rng: np.random.Generator, size: int) -> Example:
    """A random crop at source resolution: area 8 to 100 %, aspect ratio 3/4 to 4/3.

    When no crop can be drawn, or it is the whole image, takes `central_crop(size)` as the
    official code does. `resize(size)` comes later, after flip and RandAugment.
    """
    field, frames = _frames(example)
    height, width = frames.shape[-3:-1]
    box = sample_box(height, width, rng)
    if box is None or box[2:] == (height, width):
        return central_crop(example, rng, size)
    top, left, box_height, box_width = box
    return {**example, field: frames[..., top : top + box_height, left : left + box_width, :]}


def sample_box(
    height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draws (top, left, height, width) as TF's `sample_distorted_bounding_box` does.

    The aspect ratio is uniform in [3/4, 4/3], then the *height* is uniform between those of the
    smallest and the largest area (so areas are not uniform). `min_object_covered=0.1` with the
    whole image as the object rejects areas under 10 %. None after 10 rejected attempts.
    """
    total = height * width
    for _ in range(10):
        aspect = rng.uniform(3 / 4, 4 / 3)  # width / height
        lowest = round((0.08 * total / aspect) ** 0.5)
        highest = min(round((total / aspect) ** 0.5), int((width + 0.5) / aspect), height)
        box_height = int(rng.integers(min(lowest, highest), highest + 1))
        box_width = round(box_height * aspect)
        if 0 < box_width <= width and 0.1 * total <= box_height * box_width <= total:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return None


@transform
def central_crop(
    example: Example, rng: np.random.Generator, size: int, border: int = 32
) -> Example:
    """The central square of side int(size / (size + border) * min(H, W)); `resize(size)` follows.

    For 224 that is 7/8 of the short side, all of it without a border. An odd margin's extra pixel
    goes before the crop: the offset is ((extent - side) + 1) // 2, as in the official evaluation.
    """
    del rng
    field, frames = _frames(example)
    height, width = frames.shape[-3:-1]
    side = max(int(size / (size + border) * min(height, width)), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return {**example, field: frames[..., top : top + side, left : left + side, :]}


@transform
def flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrors left and right with probability 1/2."""
    field, frames = _frames(example)
    if rng.random() < 0.5:
        frames = np.ascontiguousarray(np.flip(frames, axis=-2))
    return {**example, field: frames}


@transform
def resize(example: Example, rng: np.random.Generator, size: int) -> Example:
    """Bicubic, without antialiasing, to uint8 [size, size, C]; the aspect ratio is not kept.

    Rounded and clamped to 0..255: the official code resizes to float and lets overshoot through.
    OpenCV's cubic has a = -0.75 where TF's has -0.5.
    """
    del rng
    field, frames = _frames(example)
    resized = [
        _with_channels(cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC))
        for frame in frames.reshape(-1, *frames.shape[-3:])
    ]
    return {**example, field: np.stack(resized).reshape(*frames.shape[:-3], size, size, -1)}


@transform
def pad_crop(example: Example, rng: np.random.Generator, padding: int) -> Example:
    """Pads with `padding` zeros on each side and crops the old size at random.

    The CIFAR augmentation with 4; with 1 or 2, a small random shift for MNIST and digits.
    """
    image = _image(example)
    height, width = image.shape[:2]
    padded = _with_channels(
        cv2.copyMakeBorder(image, *[padding] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    )
    top, left = rng.integers(2 * padding + 1, size=2)
    return {**example, "image": padded[top : top + height, left : left + width]}


@transform
def affine(
    example: Example, rng: np.random.Generator, degrees: float, scale: float, shift: float
) -> Example:
    """Rotates, scales and shifts about the centre, bilinearly, zeros outside: for MNIST, digits.

    The angle is uniform in +-degrees, the factor in 1 +- scale, the shift of each axis in
    +-shift pixels.
    """
    image = _image(example)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        ((width - 1) / 2, (height - 1) / 2),
        rng.uniform(-degrees, degrees),
        1 + rng.uniform(-scale, scale),
    )
    matrix[:, 2] += rng.uniform(-shift, shift, size=2)
    return {**example, "image": _with_channels(cv2.warpAffine(image, matrix, (width, height)))}


@transform
def randaugment(
    example: Example, rng: np.random.Generator, layers: int, magnitude: float
) -> Example:
    """`layers` operations drawn uniformly from the 16 of `randaugment.py`, each always applied."""
    image = randaugment_lib.augment(_image(example), rng, layers=layers, magnitude=magnitude)
    return {**example, "image": image}


def _image(example: Example) -> np.ndarray:
    """The example's image, once it is sure to be uint8 [H, W, C]."""
    image = example["image"]
    if isinstance(image, Encoded):
        raise ValueError("the image is still encoded: put `decode` first in the pipeline")
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"need a uint8 image [H, W, C], got {image.dtype} {list(image.shape)}")
    return image


def _frames(example: Example) -> tuple[str, np.ndarray]:
    """(`video`, its frames) where there is one, else (`image`, it): uint8 `[..., H, W, C]`."""
    if "video" not in example:
        return "image", _image(example)
    video = example["video"]
    if video.dtype != np.uint8 or video.ndim != 4:
        raise ValueError(f"need a uint8 video [T, H, W, C], got {video.dtype} {list(video.shape)}")
    return "video", video


def _with_channels(image: np.ndarray) -> np.ndarray:
    """OpenCV drops a single channel's axis; this restores it."""
    return image[..., None] if image.ndim == 2 else image
