"""Corrupted photographs: TFDS `imagenet2012_corrupted`, `cifar10_corrupted`, all in one evaluation.

Hendrycks and Dietterich 2019: 15 corruptions at 5 severities each. Every one is a set of TFDS:
`cifar10_corrupted/fog_3`.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from perceiver_jax.conditions import Collected, Conditions
from perceiver_jax.config_types import Range
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.datasets.tfds import Tfds

# The error of AlexNet on each corruption of ImageNet, the mean over severities: published by the
# benchmark's authors (github.com/hendrycks/robustness).
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
Corruption = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg_compression",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """What the source can be asked for.

    Attributes:
      images: `imagenet2012` or `cifar10`.
      corruptions: names; () is all 15.
      severities: 1 to 5.
    """

    images: Literal["imagenet2012", "cifar10"] = "imagenet2012"
    corruptions: tuple[Corruption, ...] = ()
    severities: tuple[Annotated[int, Range(1, 5)], ...] = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Corruptions(Conditions):
    """Conditions CORRUPTION_SEVERITY.

    Attributes:
      relative: whether errors are also reported relative to AlexNet's, which is of all severities.
    """

    relative: bool = False

    def metrics(self, num_classes: int) -> dict[str, Callable[[Collected], float]]:
        """The accuracy in each condition, and over all of them:

        - `error_CORRUPTION`: the mean error over its severities;
        - `mean_corruption_error`: the mean of these;
        - `mce`: the mean of these, each divided by AlexNet's, in per cent (ImageNet only).
        """
        accuracies = super().metrics(num_classes)
        by_corruption: dict[str, list] = {}
        for name in self.names:
            parts = by_corruption.setdefault(name.rpartition("_")[0], [])
            parts.append(accuracies[f"accuracy_{name}"])

        def error(collected, *, name: str):
            return 1 - float(np.mean([part(collected) for part in by_corruption[name]]))

        def mean(collected):
            return float(np.mean([error(collected, name=name) for name in by_corruption]))

        def relative(collected):
            return 100 * float(
                np.mean([error(collected, name=name) / ALEXNET[name] for name in by_corruption])
            )

        errors = {f"error_{name}": functools.partial(error, name=name) for name in by_corruption}
        found = accuracies | errors | {"mean_corruption_error": mean}
        return found | ({"mce": relative} if self.relative else {})


class Corrupted:
    """The sets of all corruptions one after the other: `image`, `label` and `condition`."""

    in_memory = False

    def __init__(self, split: str, data_dir: str, options: Options):
        corruptions = tuple(options.corruptions) or tuple(ALEXNET)
        pairs = itertools.product(corruptions, options.severities)
        names = tuple(f"{corruption}_{severity}" for corruption, severity in pairs)
        self.name = f"{options.images}_corrupted[{split}]"
        self.parts = [Tfds(f"{options.images}_corrupted/{n}", split, data_dir) for n in names]
        self.starts = [0, *itertools.accumulate(map(len, self.parts))]
        complete = len(names) == 5 * len(corruptions) and options.images == "imagenet2012"
        self.conditions = Corruptions(names, relative=complete)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self.starts, index) - 1
        example = self.parts[number][index - self.starts[number]]
        fields = {"image": example["image"], "label": example["label"]}
        return fields | {"condition": np.int32(number)}

    def __repr__(self) -> str:
        return self.name


check_options = functools.partial(check_reader, Options)


def load(split: str, *, data_dir: str = "", **options) -> Corrupted:
    """Opens the sets; `options` are those of `Options`."""
    return Corrupted(split, data_dir, Options(**options))


def spec(*, images: str = Options.images, **_) -> Example:
    """An example of zeros."""
    side = 32 if images == "cifar10" else 224
    zero = np.int32(0)
    return {"image": fake.encoded((side, side, 3)), "label": zero, "condition": zero}
