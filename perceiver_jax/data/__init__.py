"""Reading: `transforms` -> `pipeline`, all numpy; `on_device` runs inside jit.

    source = datasets.load("cifar10", "train[5000:]", in_memory=True)
    line = parse("decode | pad_crop(4) | flip | keep('image', 'label')")
    for batch in train_batches(source, line, batch_size=128, seed=0): ...

`on_device`, the only part that needs JAX, is imported by name. Sources are in `datasets`.
"""

# Importing them adds their transforms to those that `parse` knows.
from perceiver_jax.data import (
    image_transforms,
    pair_augmentation,
    pair_transforms,
    perturbations,
    point_transforms,
    sequence_transforms,
    sound_transforms,
    text_transforms,
)
from perceiver_jax.data.pipeline import describe, eval_batches, train_batches
from perceiver_jax.data.transforms import parse, transform

__all__ = [
    "describe",
    "eval_batches",
    "image_transforms",
    "pair_augmentation",
    "pair_transforms",
    "parse",
    "perturbations",
    "point_transforms",
    "sequence_transforms",
    "sound_transforms",
    "text_transforms",
    "train_batches",
    "transform",
]
