"""Cue conflict: the shape of one of 16 classes with the texture of another (Geirhos et al. 2019).

TFDS `geirhos_conflict_stimuli`, split `test`: 1,280 images. In 80 of them shape and texture are of
one class; these count as no conflict.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from perceiver_jax import conditions
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.shifts.files import spec_with
from perceiver_jax.datasets.tfds import Tfds
from perceiver_jax.groups import Groups

NAME = "geirhos_conflict_stimuli"
CLASSES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat", "chair", "clock", "dog",
    "elephant", "keyboard", "knife", "oven", "truck",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CueConflict(conditions.Conditions):
    """Images whose shape and texture agree, and those where they do not."""

    names: tuple[str, ...] = ("agree", "conflict")
    conflict: str = "conflict"

    def metrics(self, num_classes: int) -> dict[str, Callable[[conditions.Collected], float]]:
        """Of the images in conflict: `shape` and `texture`, the shares that are called by either.

        `shape_bias` is shape / (shape + texture). `shape_CLASS` and `texture_CLASS` are of the
        images with the shape of a class. A bias without both shares says nothing.
        """

        def rate(collected, *, field: str, label: int | None = None):
            chosen = collected["condition"] == self.names.index(self.conflict)
            if label is not None:
                chosen &= collected["label"] == label
            called = collected["guess"][chosen] == collected[field][chosen]
            return float(called.mean()) if len(called) else float("nan")

        def bias(collected):
            shape, texture = (rate(collected, field=name) for name in ("label", "ground"))
            return shape / (shape + texture) if shape + texture else float("nan")

        cues = {"shape": "label", "texture": "ground"}
        found = {cue: functools.partial(rate, field=field) for cue, field in cues.items()}
        found["shape_bias"] = bias
        for label, name in enumerate(CLASSES):
            for cue, field in cues.items():
                found[f"{cue}_{name}"] = functools.partial(rate, field=field, label=label)
        return found


class Stimuli:
    """The images: `label` is the shape's class, `ground` the texture's."""

    in_memory = False

    def __init__(self, split: str, data_dir: str):
        self.images = Tfds(NAME, split, data_dir)
        self.name = f"cue_conflict[{split}]"
        self.conditions = CueConflict()
        members: dict[int, tuple[int, ...]] = {}
        for example in self.images.records:
            for cue in ("shape", "texture"):
                found = np.atleast_1d(example[f"{cue}_imagenet_labels"]).tolist()
                members[int(example[f"{cue}_label"])] = tuple(found)
        if missing := sorted(set(range(len(CLASSES))) - set(members)):
            raise ValueError(f"{self.name} has no image of the class {CLASSES[missing[0]]!r}")
        self.groups = Groups(tuple(members[k] for k in range(len(CLASSES))), "mean")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        example = self.images[index]
        shape, texture = example["shape_label"], example["texture_label"]
        number = self.conditions.names.index("agree" if shape == texture else "conflict")
        fields = {"label": shape, "ground": texture, "condition": np.int32(number)}
        return {"image": example["image"], **fields}

    def __repr__(self) -> str:
        return self.name


def load(split: str, *, data_dir: str = "") -> Stimuli:
    """Opens the stimuli and reads all their labels."""
    return Stimuli(split, data_dir)


def spec() -> Example:
    """An example of zeros."""
    return spec_with("label", "ground", "condition")
