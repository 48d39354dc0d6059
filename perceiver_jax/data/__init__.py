"""Host-side data: `sources` -> `transforms` -> `pipeline`, all numpy; `device` runs inside jit.

    source = load("cifar10", "train[5000:]", in_memory=True)
    line = parse("decode | pad_crop(4) | flip | keep('image', 'label')")
    for batch in train_batches(source, line, batch_size=128, seed=0): ...

`device`, the only part that needs JAX, is imported by name.
"""

from perceiver_jax.data import (  # these add their transforms to those that `parse` knows
    pair_transforms,
    sound_transforms,
)
from perceiver_jax.data.pipeline import choose_readers, describe, eval_batches, train_batches
from perceiver_jax.data.sources import Arrays, load
from perceiver_jax.data.transforms import parse, transform

__all__ = [
    "Arrays",
    "choose_readers",
    "describe",
    "eval_batches",
    "load",
    "pair_transforms",
    "parse",
    "sound_transforms",
    "train_batches",
    "transform",
]
