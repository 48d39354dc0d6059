"""Photographs whose middle stands for the object: pasted on other grounds, filled, or alone.

A proxy where a set has no masks: objects reach beyond the disc, and grounds into it. The conditions
are those of ImageNet-9 (Xiao et al. 2020), and so is the gap `bg_gap`.
"""

import dataclasses
import functools
from typing import Annotated

import cv2
import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.config_types import Count, Pattern, Range, Whole
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.generated.in_conditions import images_in_memory, in_turn, labelled
from perceiver_jax.datasets.generated.source import check_generated, configured, part_of

NAMES = ("original", "mixed_same", "mixed_rand", "ground_only", "object_only")
TRAINING = "training"  # the condition of images that the model was trained on
RADIUS = 0.35  # of the disc, in sides: 38 % of the area
SHIP = 8  # of CIFAR-10


@dataclasses.dataclass(frozen=True)
class Centre:
    """What the source can be asked for.

    Attributes:
      images: TFDS name of a set with `image`, all of one size, and `label`; splits train and test.
      size: (H, W) to resize to, by area; (32, 32) is that of CIFAR-10.
      per_condition: test images of each condition. They show the same discs, or their grounds.
      seen: not 0: the test has one more condition, `training`, of the images of `train[:seen]`.
    """

    images: Annotated[str, Pattern("[a-z0-9_]+", "that is a TFDS name")] = "cifar10"
    size: tuple[Annotated[int, Range(8, 512)], Annotated[int, Range(8, 512)]] = (32, 32)
    per_condition: Count = 2000
    seen: Whole = 0


check_options = functools.partial(check_generated, Centre)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Arrays:
    """The source `centre`; `options` are those of `Centre`, `data_dir` is TFDS's.

    `train` holds the set's own images; `test` each of its images in all conditions in turn. Both
    are in an order of the seed, the classes one after the other: `train[:500]` is a part of
    `train[:2000]`, with as many images of each class where the set has them.

    Returns:
      Arrays of `image` uint8 [H, W, 3]; `label`; `ground`, the class of the ground's image, -1 for
      none; `condition`, a position in `conditions.names`.
    """
    centre = configured(Centre, options)
    size = tuple(centre.size)
    images = images_in_memory(
        centre.images, "test" if split.startswith("test") else "train", data_dir
    )
    picture, label = images.arrays["image"], images.arrays["label"]
    names = (*NAMES, *[TRAINING] * bool(centre.seen))
    count = len(names)
    if centre.per_condition > len(images) and split.startswith("test"):
        raise ValueError(
            f"source_options.per_condition={centre.per_condition:,}, but {images!r} has only "
            f"{len(images):,} images"
        )
    lengths = {"train": len(images), "test": count * centre.per_condition}
    part, rows = part_of("centre", split, lengths)
    rng = np.random.default_rng((seed, list(lengths).index(part)))
    order = balanced_order(rng, label)
    if part == "train":
        chosen = order[rows.start : rows.stop]
        found = resized(picture[chosen], size)
        arrays = labelled(found, label[chosen], label[chosen], NAMES.index("original"))
    else:
        grounds = partners(rng, label, order)
        first = rows.start // count
        objects = slice(first, -(-rows.stop // count))
        found = conditions_of(
            *(resized(picture[i[objects]], size) for i in (order, *grounds)),
            *(label[i[objects]] for i in (order, grounds[1])),
            fill=np.round(picture.mean((0, 1, 2))),
        )
        if centre.seen:
            found[TRAINING] = seen_in_training(centre, seed, objects, data_dir)
        examples = in_turn(found, names)
        start = rows.start - first * count
        arrays = {name: values[start : start + len(rows)] for name, values in examples.items()}
    return Arrays(arrays, name=f"centre[{split}]", conditions=conditions(centre.images, names))


def seen_in_training(centre: Centre, seed: int, numbers: slice, data_dir: str):
    """Examples of `train[:seen]` by number; after the last one comes the first again."""
    images = images_in_memory(centre.images, "train", data_dir)
    if centre.seen > len(images):
        raise ValueError(
            f"source_options.seen={centre.seen:,}, but {images!r} has only {len(images):,} images"
        )
    label = images.arrays["label"]
    order = balanced_order(np.random.default_rng((seed, 0)), label)[: centre.seen]
    chosen = order[np.arange(numbers.start, numbers.stop) % centre.seen]
    found = resized(images.arrays["image"][chosen], tuple(centre.size))
    return labelled(found, label[chosen], label[chosen], len(NAMES))


def conditions(images: str, names: tuple[str, ...] = NAMES) -> Conditions:
    """The conditions; in CIFAR-10 there are ships, and one may call them so by their sea."""
    return Conditions(
        names=names,
        gaps={"bg_gap": ("mixed_same", "mixed_rand")},
        conflict="mixed_rand",
        by_class="original",
        single={"ship_by_sea": ("ground_only", SHIP)} if images == "cifar10" else {},
    )


def spec(*, size: tuple[int, int] = Centre.size, **_) -> Example:
    """An example of zeros."""
    zero = np.int32(0)
    image = np.zeros((*size, 3), np.uint8)
    return {"image": image, "label": zero, "ground": zero, "condition": zero}


def balanced_order(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """A random order of images whose every beginning has as many of each class as there are."""
    order = rng.permutation(len(label))
    rank = np.empty(len(label), int)  # within the class
    for k in np.unique(label):
        own = order[label[order] == k]
        rank[own] = np.arange(len(own))
    return np.lexsort((label, rank))


def partners(
    rng: np.random.Generator, label: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each image in an order, another one of its class, and one of another class."""
    same, other = np.empty_like(order), np.empty_like(order)
    for k in np.unique(label):
        own = label[order] == k
        same[own] = np.roll(order[own], 1)
        other[own] = rng.choice(order[~own], own.sum())
    return same, other


def conditions_of(image, same, other, label, other_label, *, fill: np.ndarray):
    """The examples of images uint8 [N, H, W, 3] by condition.

    Args:
      image: whose disc is the object.
      same, other: whose grounds are taken, of the same class and of another one.
      label, other_label: of `image` and of `other`, [N].
      fill: the colour [3] of what is missing.
    """
    disc = disc_of(image.shape[1:3])[:, :, None]
    plain = fill.astype(np.uint8)
    made = {
        "original": (image, label),
        "mixed_same": (np.where(disc, image, same), label),
        "mixed_rand": (np.where(disc, image, other), other_label),
        "ground_only": (np.where(disc, plain, image), label),
        "object_only": (np.where(disc, image, plain), np.full_like(label, -1)),
    }
    return {
        name: labelled(found, label, ground, NAMES.index(name))
        for name, (found, ground) in made.items()
    }


def disc_of(size: tuple[int, int]) -> np.ndarray:
    """The middle of an image: bool [H, W], its radius a share of the shorter side."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in size)
    return y[:, None] ** 2 + x**2 < (RADIUS * min(size)) ** 2


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images uint8 [N, h, w, 3] at a size, by area."""
    if image.shape[1:3] == size:
        return image
    return np.stack([cv2.resize(i, size[::-1], interpolation=cv2.INTER_AREA) for i in image])
