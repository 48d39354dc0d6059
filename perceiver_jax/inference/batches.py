"""Predictions for many files: read in the background, in batches of one size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver_jax.data import checks, pipeline
from perceiver_jax.data.transforms import Example
from perceiver_jax.inference.programs import Progress, silent


class Results(NamedTuple):
    """What `predict_each` gives: `rows` by example, None where `unreadable` has the reason."""

    rows: list[Any]
    unreadable: dict[int, str]


def predict_each(
    read: Callable[[int], Example],
    predict: Callable[[dict[str, np.ndarray]], Any],
    count: int,
    *,
    blank: Example,
    batch_size: int,
    progress: Progress = silent,
) -> Results:
    """Reads `count` examples by number and predicts them in their order.

    All batches have one size, so one program is compiled; the last one repeats examples.

    Args:
      read: gives an example by its number, called in other threads; all of one shape, unless
        `batch_size` is 1. One that raises an error of `checks.EXPECTED` is left out.
      predict: a batch of examples `[B, ...]` -> arrays `[B, ...]`.
      count: how many examples.
      blank: stands for an example that cannot be read.
      batch_size: B, or `count` if that is less.
      progress: called with (examples done, of how many).
    """
    unreadable: dict[int, str] = {}

    def read_one(example: Example, rng: np.random.Generator) -> Example:
        del rng
        index = example["position"] % count  # the last batch is filled up from the start
        try:
            return read(index)
        except checks.EXPECTED as error:
            unreadable[index] = " ".join(str(error).split()) or type(error).__name__
            return blank

    batches = pipeline.eval_batches(
        [{}] * count,
        read_one,
        batch_size=min(batch_size, count),
        readers="auto",
    )
    rows: list[Any] = []
    waiting = None  # the device computes while the next batch is read
    progress(0, count)

    def take(result, mask):
        result = jax.device_get(result)
        rows.extend(jax.tree.map(lambda x, i=i: x[i], result) for i in np.flatnonzero(mask))
        progress(len(rows), count)

    try:
        for batch in batches:
            mask = batch.pop("mask")
            result = predict(batch)
            if waiting is not None:
                take(*waiting)
            waiting = result, mask
        take(*waiting)
    finally:
        batches.close()
    return Results([None if i in unreadable else row for i, row in enumerate(rows)], unreadable)
