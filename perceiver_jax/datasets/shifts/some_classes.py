"""TFDS sets with ImageNet's labels but some of its classes only: `imagenet_a`, `imagenet_r`.

A model of all classes is asked which of these an image shows, as the sets' authors do (Hendrycks et
al. 2021).
"""

import dataclasses
import functools
from typing import Annotated

import numpy as np

from perceiver_jax.config_types import Pattern
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.datasets.shifts.files import spec_with
from perceiver_jax.datasets.tfds import Tfds
from perceiver_jax.groups import Groups


@dataclasses.dataclass(frozen=True)
class Options:
    """What the source can be asked for.

    Attributes:
      images: the TFDS name.
    """

    images: Annotated[str, Pattern("[a-z0-9_/]+", "that is a TFDS name")] = "imagenet_a"


class SomeClasses:
    """The images; `label` counts the classes of the set only, in ImageNet's order."""

    in_memory = False

    def __init__(self, split: str, data_dir: str, options: Options):
        self.images = Tfds(options.images, split, data_dir)
        self.name = self.images.name
        found = np.array([int(example["label"]) for example in self.images.records])
        classes, self.label = np.unique(found, return_inverse=True)
        self.groups = Groups(tuple((k,) for k in classes.tolist()), "among")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {**self.images[index], "label": np.int32(self.label[index])}

    def __repr__(self) -> str:
        return self.name


check_options = functools.partial(check_reader, Options)


def load(split: str, *, data_dir: str = "", **options) -> SomeClasses:
    """Opens a set and reads all its labels; `options` are those of `Options`."""
    return SomeClasses(split, data_dir, Options(**options))


def spec(**_) -> Example:
    """An example of zeros."""
    return spec_with("label")
