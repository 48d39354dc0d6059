"""Data sets that are not there: their fields, types and sizes, and nothing in them.

    registry.load("blank:imagenet2012", "train")

The source `blank:NAME` has the fields of the source NAME, which need not be on this machine. A
config that reads it has all its shapes, so a step can be compiled, or its speed measured, without
data: `--config.data.source=blank:imagenet2012`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from perceiver_jax.data.transforms import Encoded, Example
from perceiver_jax.datasets import pair_sets, registry
from perceiver_jax.datasets.generated.source import GENERATED

PREFIX = "blank:"
NUM_EXAMPLES = 1024
FLOW = (  # of pair_sets.SETS; the others tell disparity
    "sintel_clean",
    "sintel_final",
    "kitti2012_flow",
    "kitti2015_flow",
    "flying_chairs",
    "flyingthings_clean",
    "flyingthings_final",
)
IMAGE_SIZE = 256  # of images that come in many sizes
TEXT = b"the quick brown fox jumps over the lazy dog. " * 400


class Blank:
    """The same example `NUM_EXAMPLES` times."""

    in_memory = False

    def __init__(self, name: str, example: Example):
        self.name, self.example = name, example

    def __len__(self) -> int:
        return NUM_EXAMPLES

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < NUM_EXAMPLES:
            raise IndexError(index)
        return dict(self.example)

    def __repr__(self) -> str:
        return self.name


def stand_in(name: str) -> str:
    """The source that needs no files in `name`'s place: a blank one, or itself if it reads none."""
    needs_none = name == "digits" or name.startswith(PREFIX)
    needs_none |= name in GENERATED and name != "av_digits"
    return name if needs_none else PREFIX + name


def load(name: str, split: str, options: Mapping[str, Any]) -> Blank:
    """The blank of a source.

    Args:
      name: `clips`, `texts`, `av_digits`, one of `pair_sets.SETS` or a TFDS name.
      split: only named.
      options: of the source, where it has any.

    Raises:
      ValueError: there is no such source, or it needs no blank.
    """
    if stand_in(name) == name:
        raise ValueError(f"the source {name!r} reads no files: use it as it is, without 'blank:'")
    if name == "clips":
        example = clip(**options)
    elif name == "av_digits":
        example = spoken_digit(**options)
    elif name == "texts" or "field" in options:  # of `texts.Documents`
        example = {"text": TEXT}
    elif name in pair_sets.SETS:
        example = pair(channels=2 if name in FLOW else 1)
    else:
        example = tfds_example(name)
    return Blank(f"{PREFIX}{name}[{split}]", example)


def clip(*, num_frames, frames_per_second, samples_per_second, short_side, **_) -> Example:
    """An example of `clips`."""
    samples = num_frames * samples_per_second // frames_per_second
    return {
        "video": np.zeros((num_frames, short_side, short_side, 3), np.uint8),
        "audio": np.zeros(samples, np.float32),
        "label": np.int32(0),
        "readable": np.bool_(True),
    }


def spoken_digit(*, num_samples, **_) -> Example:
    """An example of `av_digits`."""
    return {
        "image": encoded((28, 28, 1)),
        "audio": np.zeros(num_samples, np.float32),
        "label": np.int32(0),
    }


def pair(channels: int) -> Example:
    """An example of `pairs`: small, as crops and padding make windows of the size they need."""
    size = (16, 16)
    return {
        "frames": np.zeros((2, *size, 3), np.uint8),
        "field": np.zeros((*size, channels), np.float32),
        "valid": np.ones(size, bool),
        "occluded": np.zeros(size, bool),
        "size": np.array(size, np.int32),
    }


def tfds_example(name: str) -> Example:
    """An example of a TFDS set, by its builder's description: no file is read."""
    import tensorflow_datasets as tfds  # slow to import

    def value(feature):
        if isinstance(feature, tfds.features.Image):
            return encoded([n or IMAGE_SIZE for n in feature.shape])
        if isinstance(feature, tfds.features.Text):
            return TEXT.decode()
        info = feature.get_tensor_info()
        return np.zeros([n or 1 for n in info.shape], info.np_dtype)[()]

    features = registry.tfds_builder(name).info.features
    example = {field: value(feature) for field, feature in features.items()}
    # TFDS's labels are int64, which a source makes int32.
    return {f: np.int32(v) if isinstance(v, np.int64) else v for f, v in example.items()}


def encoded(shape: Sequence[int]) -> Encoded:
    """A black image `[H, W, C]` as a file."""
    return Encoded(cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes(), shape[-1])
