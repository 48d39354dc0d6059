"""Dominoes: a digit 0 or 1 above a photograph of an automobile or a truck (Shah et al. 2020).

In training both blocks tell the class. A digit is easy to learn and a photograph is not: the test
takes one or the other from a random class and shows which of them a model answers by.
"""

import dataclasses
import functools

import cv2
import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.config_types import Count, Fraction
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.generated.in_conditions import (
    BLOCK,
    images_in_memory,
    labelled,
    make_examples,
)
from perceiver_jax.datasets.generated.source import check_generated, configured, require_size

CONDITIONS = Conditions(
    names=("standard", "mnist_random", "cifar_random"),
    gaps={"gap": ("standard", "mnist_random")},
    conflict="mnist_random",
)
DIGITS, PHOTOGRAPHS = (0, 1), (1, 9)  # classes of MNIST; of CIFAR-10: automobile, truck


@dataclasses.dataclass(frozen=True)
class Dominoes:
    """What the source can be asked for.

    Attributes:
      size: (H, W) of an image; both blocks are [H / 2, W], the paper's [32, 32].
      rho: share of the training images whose digit is that of their class. 0.5 is a random digit:
        it shows whether a model can learn the photographs.
      per_condition: test images of each condition, which show the same blocks but for the random.
    """

    size: tuple[int, int] = (16, 16)
    rho: Fraction = 1.0
    per_condition: Count = 2000

    def __post_init__(self):
        require_size(self.size)
        if self.size[0] % 2:
            raise ValueError(f"source_options.size needs an even height, got {self.size}")


check_options = functools.partial(check_generated, Dominoes)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Arrays:
    """The source `dominoes`; `options` are those of `Dominoes`, `data_dir` is TFDS's.

    Splits are `train` (50,000 examples) and `test` (each class and photograph in all conditions in
    turn), made of the splits of MNIST and CIFAR-10, and parts of them. The seed decides every draw.

    Returns:
      Arrays of `image` uint8 [H, W, 3]; `label`; `ground`, the class of the digit; `condition`, a
      position in `conditions.names`.
    """
    dominoes = configured(Dominoes, options)
    part = "test" if split.startswith("test") else "train"
    size = dominoes.size[0] // 2, dominoes.size[1]
    digits = Blocks(images_in_memory("mnist", part, data_dir), DIGITS, size)
    photographs = Blocks(images_in_memory("cifar10", part, data_dir), PHOTOGRAPHS, size)

    def examples(drawn, condition: str, digit: np.ndarray, photograph: np.ndarray):
        above = digits(drawn["digit"], digit)
        below = photographs(drawn["photograph"], photograph)
        number = CONDITIONS.names.index(condition)
        return labelled(np.concatenate([above, below], axis=1), drawn["label"], digit, number)

    def train(drawn):
        label = drawn["label"]
        digit = np.where(drawn["follows"] < dominoes.rho, label, 1 - label)
        return examples(drawn, "standard", digit, label)

    def test(drawn):
        label, other = drawn["label"], drawn["any"]
        return {
            "standard": examples(drawn, "standard", label, label),
            "mnist_random": examples(drawn, "mnist_random", other, label),
            "cifar_random": examples(drawn, "cifar_random", label, other),
        }

    return make_examples(
        "dominoes",
        split,
        seed,
        conditions=CONDITIONS,
        per_condition=dominoes.per_condition,
        num_classes=2,
        draw=draw,
        train=train,
        test=test,
    )


def spec(*, size: tuple[int, int] = Dominoes.size, **_) -> Example:
    """An example of zeros."""
    zero = np.int32(0)
    return {
        "image": np.zeros((*size, 3), np.uint8),
        "label": zero,
        "ground": zero,
        "condition": zero,
    }


def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Everything random of a block of images."""
    return {
        "label": rng.integers(2, size=BLOCK),
        "any": rng.integers(2, size=BLOCK),  # the class of a random block
        "follows": rng.random(BLOCK),  # the digit is that of the class where this is below rho
        "digit": rng.random(BLOCK),  # where in the list of its class
        "photograph": rng.random(BLOCK),
    }


class Blocks:
    """The images of two classes of a source at one size."""

    def __init__(self, images: Arrays, classes: tuple[int, int], size: tuple[int, int]):
        self.images = [images.arrays["image"][images.arrays["label"] == k] for k in classes]
        self.size = size

    def __call__(self, where: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Images [N, h, w, 3] in 0..1 of labels 0 and 1, each at a place in [0, 1) of its list."""
        found = np.empty((len(label), *self.size, 3), np.float32)
        for i, (place, k) in enumerate(zip(where, label, strict=True)):
            image = self.images[k][int(place * len(self.images[k]))]
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
            found[i] = image.reshape(*self.size, -1) / np.float32(255)
        return found
