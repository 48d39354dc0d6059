"""Image files with fields of their own."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.data.transforms import Encoded, Example
from perceiver_jax.datasets import fake
from perceiver_jax.groups import Groups

SUFFIXES = {".jpg", ".jpeg", ".png"}


class ImageFiles:
    """A source of image files, read one at a time.

    Args:
      name: for messages.
      paths: of the files.
      fields: int32 arrays [N] by name.
      conditions, groups: of the source.
    """

    in_memory = False

    def __init__(
        self,
        name: str,
        paths: Sequence[pathlib.Path],
        fields: Mapping[str, np.ndarray],
        *,
        conditions: Conditions,
        groups: Groups | None = None,
    ):
        self.name, self.paths = name, paths
        self.fields = {field: np.asarray(values, np.int32) for field, values in fields.items()}
        self.conditions, self.groups = conditions, groups

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        image = Encoded(self.paths[index].read_bytes(), 3)
        return {"image": image, **{field: values[index] for field, values in self.fields.items()}}

    def __repr__(self) -> str:
        return self.name


def spec_with(*fields: str) -> Example:
    """An example of zeros with an image and these fields."""
    image = fake.encoded((fake.IMAGE_SIZE, fake.IMAGE_SIZE, 3))
    return {"image": image, **dict.fromkeys(fields, np.int32(0))}
