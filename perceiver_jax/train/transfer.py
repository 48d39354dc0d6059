"""Weights into a model that is not quite theirs: another head, another size of image.

`config.start.fresh` and `config.start.resize_positions`; see `docs/training.md`, "Fine-tuning".
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from perceiver_jax.config_types import ConfigError
from perceiver_jax.train.checkpoint import Mismatch
from perceiver_jax.train.log import say
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.task import Batch

POSITIONS = "params/input/positions"  # of `image.LearnedPositions`
NAMES_SAID = 6  # of each kind, in one line


def take(
    saved: Mapping[str, np.ndarray],
    target: TrainState,
    batch: Batch,
    section: ConfigDict,
    *,
    origin: str,
) -> dict[str, Any]:
    """Takes from saved weights what the model has and `section.fresh` does not match.

    Says in one line each what was loaded, what stays at its initial values, and what of the weights
    is left over.

    Args:
      saved: arrays by path, with the collection: 'params/encoder/latents'.
      target: shapes with shardings.
      batch: shapes of a prepared batch; `image` is the size for which positions are wanted.
      section: `config.start`.
      origin: what errors call the weights.

    Returns:
      `{'params': ..., 'model_state': ...}`, only what was loaded.

    Raises:
      Mismatch: an array that is not matched is missing, left over or of another shape.
      ConfigError: a pattern of `section.fresh` is found nowhere.
    """
    wanted = flatten_dict({"params": target.params, **target.model_state}, sep="/")
    saved = dict(saved)
    matched = search(section.fresh, wanted.keys() | saved.keys())
    fresh, left_over = matched & wanted.keys(), matched & saved.keys()
    loaded = wanted.keys() - fresh
    if section.resize_positions:
        resize_positions(saved, wanted, batch, origin)
    problems = [f"missing: {name} {wanted[name].shape}" for name in loaded - saved.keys()]
    extra = saved.keys() - loaded - left_over
    problems += [f"unexpected: {name} {saved[name].shape}" for name in extra]
    problems += [
        f"differs: {name} is {saved[name].shape}, the model has {wanted[name].shape}"
        for name in loaded & saved.keys()
        if saved[name].shape != wanted[name].shape
    ]
    if problems:
        raise Mismatch(
            f"{origin} does not fit the model:\n  "
            + "\n  ".join(sorted(problems))
            + "\nAdd to config.start.fresh what is to stay at its initial values; "
            "config.start.resize_positions=True interpolates learned positions."
        )
    say_names("loaded", {name: saved[name] for name in loaded})
    say_names("fresh", {name: wanted[name] for name in fresh})
    say_names("left over", {name: saved[name] for name in left_over})
    arrays = {
        name: jax.device_put(saved[name].astype(wanted[name].dtype), wanted[name].sharding)
        for name in loaded
    }
    variables = unflatten_dict(arrays, sep="/")
    return {"params": variables.pop("params", {}), "model_state": variables}


def search(patterns: Sequence[str], names: Collection[str]) -> set[str]:
    """Returns the names in which any of the patterns is found, as for `optimizer.no_decay`.

    Raises:
      ConfigError: a pattern is found in none.
    """
    for pattern in patterns:
        if not any(re.search(pattern, bare(name)) for name in names):
            parts = sorted({bare(name).partition("/")[0] for name in names})
            raise ConfigError(
                f"config.start.fresh: {pattern!r} is found in no parameter, neither of the model "
                f"nor of the weights; their parts are {parts}"
            )
    return {name for name in names if any(re.search(p, bare(name)) for p in patterns)}


def bare(name: str) -> str:
    """'params/encoder/latents' -> 'encoder/latents': collections are not part of the rule."""
    return name.partition("/")[2]


def resize_positions(
    saved: dict[str, np.ndarray], wanted: Mapping[str, Any], batch: Batch, origin: str
) -> None:
    """Replaces the saved positions of square images by those of the model's image size.

    In float32, bicubic: linear interpolation shrinks the norms of vectors between two old ones,
    which a trained model has not met (Touvron et al. 2021, arXiv:2012.12877, section 3). Reduced
    tables are antialiased.

    Raises:
      ConfigError: the model has no learned positions of an image, or the weights have none of a
        square one.
    """
    if POSITIONS not in wanted or "image" not in batch:
        raise ConfigError(
            "config.start.resize_positions=True, but the model has no learned positions of images "
            "(config.model.input.module='image.LearnedPositions'); Fourier positions need none: "
            "keep the config.model.input.max_resolution of the weights"
        )
    if POSITIONS not in saved:
        raise ConfigError(f"config.start.resize_positions=True: {origin} has no {POSITIONS}")
    table, shape = saved[POSITIONS], tuple(batch["image"].shape[1:3])
    side = math.isqrt(len(table))
    if side**2 != len(table):
        raise ConfigError(
            f"config.start.resize_positions=True: the {len(table)} positions of {origin} are not "
            "those of a square image, so their rows are not known"
        )
    if (side, side) != shape:
        grid = np.asarray(table, np.float32).reshape(side, side, -1)
        grid = jax.image.resize(grid, (*shape, grid.shape[-1]), "bicubic")
        saved[POSITIONS] = np.asarray(grid).reshape(-1, grid.shape[-1])
        say(f"start: positions interpolated from {side} x {side} to {shape[0]} x {shape[1]}")


def bands(section: Mapping[str, Any], batch: Batch) -> tuple[int, ...] | None:
    """Returns the `max_resolution` that Fourier positions of images have; None of other inputs.

    Args:
      section: `config.model.input`.
      batch: shapes of a prepared batch, for the resolution that () means.
    """
    shrinks = {"image.Pixels": 1, "image.ConvStem": 4}.get(section["module"])
    if not shrinks or "image" not in batch:
        return None
    own = (-(-side // shrinks) for side in batch["image"].shape[1:3])
    return tuple(section["max_resolution"] or own)


def say_names(what: str, arrays: Mapping[str, Any]) -> None:
    """Prints how many arrays and numbers there are, and the first of their names."""
    if not arrays:
        return
    names = sorted(map(bare, arrays))
    size = sum(math.prod(x.shape) for x in arrays.values())
    more = f" and {len(names) - NAMES_SAID} more" if len(names) > NAMES_SAID else ""
    say(f"start: {what} {len(names)} arrays, {size:,} numbers: "
        f"{', '.join(names[:NAMES_SAID])}{more}")  # fmt: skip
