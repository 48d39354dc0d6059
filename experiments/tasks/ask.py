"""How the model of a run answers files: `ask(config)` of each task returns one of these records.

Nothing here opens the data of the run, only `config.json` and, where these say the shapes, what
stands for the data without files. The preprocessing is that of the run's own evaluation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from perceiver_jax.data import on_device, transforms
from perceiver_jax.data.transforms import Example, Pipeline
from perceiver_jax.datasets import fake, images, registry
from perceiver_jax.files.image import check_pixels, decode_image, existing

# What an evaluation reads and a person's file does not tell.
TRUTH = {
    "label": np.int32(0),
    "labels": np.zeros(1, np.float32),
    "row": np.int32(0),
    "readable": np.bool_(True),
    "position": 0,
}
PAIRING = ("label_pair", "cityscapes_pair")  # make a pair of a set's own fields; files are a pair


@dataclasses.dataclass(frozen=True)
class Scores:
    """A model of classes or tags.

    Attributes:
      kinds: what the files of one input are, such as ("image", "sound").
      read: `read(paths, part)` gives an example as the evaluation reads it, by field, on the host.
        Raises ValueError where a file cannot be read or does not fit.
      example: zeros of its shapes and types.
      logits: `logits(variables, batch)` of such examples `[B, ...]`; pure, for use in a compiled
        function. Images may be uint8: they are normalized in it.
      activation: logits to probabilities.
      names: of the classes; None if nothing tells.
      parts: clips of a file, whose probabilities are averaged.
    """

    kinds: tuple[str, ...]
    read: Callable[[Sequence[str], int], Example]
    example: Example
    logits: Callable[[Any, Mapping[str, Any]], jax.Array]
    activation: Callable[[jax.Array], jax.Array] = jax.nn.softmax
    names: tuple[str, ...] | None = None
    parts: int = 1


def stand_in(config: ConfigDict) -> Any:
    """What stands for the evaluation's source without files: the same fields, shapes and types."""
    data = config.data
    name = registry.stand_in(data.source)
    options = data.source_options.to_dict() if registry.find(name).takes_options else {}
    return registry.load(name, data.eval_split, data_dir=data.data_dir, options=options)


def evaluation_line(
    config: ConfigDict, *fields: str
) -> tuple[Callable[[Example], Example], Example]:
    """The run's evaluation line on fields that are given, and the example that it makes of zeros.

    Args:
      config: of the run.
      fields: what a model reads of an example: `image`, `frames`, `audio`, `video`.

    Returns:
      `prepare(given)`, which maps an example with (some of) these fields, such as `image` uint8
      `[H, W, C]`, to the fields of an evaluation's example; and the shapes and types of it.
    """
    whole = transforms.parse(config.data.eval)
    kept = [i for i, (name, _, _) in enumerate(whole.steps) if name not in PAIRING]
    line = Pipeline(tuple(whole.steps[i] for i in kept), tuple(whole.functions[i] for i in kept))

    def apply(pipeline, example):
        example = pipeline(TRUTH | example, np.random.default_rng(0))
        return {field: example[field] for field in fields}

    blank = stand_in(config)[0]
    example = apply(whole, blank)
    image = transforms.decode(blank, None).get("image")
    if np.shape(image)[:1] == (fake.IMAGE_SIZE,):  # stands for many sizes
        smaller = apply(whole, blank | {"image": image[:-8, :-8]})
        if any(np.shape(smaller[field]) != np.shape(example[field]) for field in fields):
            data = config.data  # only the data know the size
            options = data.source_options.to_dict()
            source = registry.load(
                data.source, data.eval_split, data_dir=data.data_dir, options=options
            )
            example = apply(whole, source[0])
    zeros = {field: np.zeros_like(value) for field, value in example.items()}
    return (lambda given: apply(line, blank | given)), zeros


def read_pixels(path: str, channels: int = 3) -> np.ndarray:
    """An image file -> uint8 `[H, W, channels]`, as the sources of images read it.

    Raises:
      ValueError: it is missing, too large or no image.
    """
    data = existing(path).read_bytes()
    check_pixels(data, path, images.Options.max_pixels)
    return decode_image(data, path, channels)


def stack_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two images `[H, W, C]` of one size -> `[2, H, W, C]`."""
    if first.shape != second.shape:
        sizes = [f"{image.shape[0]} x {image.shape[1]}" for image in (first, second)]
        raise ValueError(f"the two images differ in size: {' and '.join(sizes)}")
    return np.stack([first, second])


def require_shapes(example: Example, wanted: Example, line: str) -> Example:
    """The example, if it has the shapes that a run takes.

    Raises:
      ValueError: says what the run takes.
    """
    for field, value in example.items():
        shape, needed = np.shape(value), np.shape(wanted[field])
        if shape != needed:
            raise ValueError(
                f"{field} {' x '.join(map(str, shape))} where the run takes "
                f"{' x '.join(map(str, needed))}: config.data.eval={line!r} makes no other of it"
            )
    return example


def normalized(config: ConfigDict, field: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch whose images `field`, uint8 or float in 0..255, are normalized as in the run."""
    image = on_device.normalize(batch[field], config.data.mean, config.data.std)
    return {**batch, field: image}


def class_names(config: ConfigDict, num_classes: int) -> tuple[str, ...] | None:
    """The names of a run's classes: those saved with it, else those that its source knows."""
    names = tuple(config.data.get("classes", ()))
    if not names:
        names = tuple(getattr(stand_in(config), "classes", ()))
        names = names or registry.find(config.data.source).class_names(config.data.data_dir)
    if not names or len(names) > num_classes:
        return None
    return (*names, *(f"class {k}" for k in range(len(names), num_classes)))
