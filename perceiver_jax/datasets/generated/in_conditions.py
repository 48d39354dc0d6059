"""Labelled images made in memory: training images, and test images of objects in conditions."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.arrays import Arrays, into_memory
from perceiver_jax.datasets.generated.source import part_of

TRAIN_LENGTH = 50_000
BLOCK = 1000  # objects drawn with one generator, so that a part of a split is made alone

Fields = dict[str, np.ndarray]


@functools.lru_cache(maxsize=8)
def images_in_memory(name: str, split: str, data_dir: str) -> Arrays:
    """The images of another source, decoded once for all sources made of them in this process."""
    return into_memory(registry.load(name, split, data_dir=data_dir))


def make_examples(
    name: str,
    split: str,
    seed: int,
    *,
    conditions: Conditions,
    per_condition: int,
    num_classes: int,
    draw: Callable[[np.random.Generator], Fields],
    train: Callable[[Fields], Fields],
    test: Callable[[Fields], Mapping[str, Fields]],
) -> Arrays:
    """Makes the examples of `train` (50,000), of `test`, or of a part of one.

    Test objects are as many of each class, and come one after the other in every condition. An
    example depends on the seed and its number in the split, not on the part.

    Args:
      name, split, seed: of the source.
      conditions: of the test.
      per_condition: objects of the test.
      num_classes: of `label`.
      draw: makes everything random of `BLOCK` objects, `label` among it; arrays [BLOCK, ...].
      train: makes the training examples of what was drawn, one for each object.
      test: makes the test examples by condition, each [N, ...].
    """
    count = len(conditions.names)
    lengths = {"train": TRAIN_LENGTH, "test": count * per_condition}
    part, rows = part_of(name, split, lengths)
    per_object = 1 if part == "train" else count
    objects = range(rows.start // per_object, -(-rows.stop // per_object))
    blocks = []
    for number in range(objects.start // BLOCK, -(-objects.stop // BLOCK)):
        drawn = draw(np.random.default_rng((seed, list(lengths).index(part), number)))
        if part == "test":
            drawn["label"] = np.arange(BLOCK) % num_classes
        inside = slice(max(objects.start - number * BLOCK, 0), objects.stop - number * BLOCK)
        drawn = {field: values[inside] for field, values in drawn.items()}
        blocks.append(train(drawn) if part == "train" else in_turn(test(drawn), conditions.names))
    first = rows.start - objects.start * per_object
    arrays = {
        field: np.concatenate([block[field] for block in blocks])[first : first + len(rows)]
        for field in blocks[0]
    }
    return Arrays(arrays, name=f"{name}[{split}]", conditions=conditions)


def labelled(
    image: np.ndarray, label: np.ndarray, ground: np.ndarray, condition: int | np.ndarray
) -> Fields:
    """The fields of examples; `image` is uint8 or in 0..1."""
    if image.dtype != np.uint8:
        image = np.round(255 * image.clip(0, 1)).astype(np.uint8)
    return {
        "image": image,
        "label": label.astype(np.int32),
        "ground": ground.astype(np.int32),
        "condition": np.broadcast_to(condition, len(label)).astype(np.int32),
    }


def in_turn(parts: Mapping[str, Fields], names: Sequence[str]) -> Fields:
    """Examples by condition as one sequence: each object in all conditions, then the next one."""
    ordered = [parts[name] for name in names]
    return {
        field: np.stack([p[field] for p in ordered], 1).reshape(-1, *values.shape[1:])
        for field, values in ordered[0].items()
    }
