"""Fake data: a dataset's fields, shapes and types without its files.

    registry.load("blank:imagenet2012", "train")

The source `blank:NAME` repeats one example of zeros, made by the dataset's own `spec`. A config
that reads it has all its shapes, so a step can be compiled and its speed measured without data:
`--config.data.source=blank:imagenet2012`.
"""

import re
from collections.abc import Sequence

import cv2
import numpy as np

from perceiver_jax.data.transforms import Encoded, Example

PREFIX = "blank:"
NUM_EXAMPLES = 1024
IMAGE_SIZE = 256  # stands for images of many sizes
TEXT = b"the quick brown fox jumps over the lazy dog. " * 400


class Fake:
    """The same example `NUM_EXAMPLES` times, fewer of a part such as `test[:16]`."""

    in_memory = False

    def __init__(self, name: str, example: Example):
        self.name, self.example = name, example
        part = re.search(r"\[(\d*):(\d+)\]", name)
        self.length = min(int(part[2]) - int(part[1] or 0), NUM_EXAMPLES) if part else NUM_EXAMPLES

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return dict(self.example)

    def __repr__(self) -> str:
        return self.name


def encoded(shape: Sequence[int]) -> Encoded:
    """A black image [H, W, C] as a PNG file."""
    return Encoded(cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes(), shape[-1])
