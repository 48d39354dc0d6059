"""Optical flow and stereo sets in local directories, one family a file.

    load("kitti2015_flow", "training[:160]", data_dir="/data/kitti2015")

Nothing is downloaded: `data_dir` holds the archives of the set's own page, unpacked, in their own
layout. Examples are those of `pairs`.
"""

import re

import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.pair_sets import autoflow, kitti, middlebury, scene_flow, sintel
from perceiver_jax.datasets.pair_sets.middlebury import write_middlebury
from perceiver_jax.datasets.pairs import Pairs
from perceiver_jax.files.paths import user_path

__all__ = ["SETS", "load", "spec", "write_middlebury"]

SETS = autoflow.SETS | sintel.SETS | kitti.SETS | scene_flow.SETS | middlebury.SETS


def load(name: str, split: str, *, data_dir: str = "") -> Pairs:
    """Opens one of `SETS`.

    Args:
      name: the set's.
      split: the set's own folder, or one of `Set.splits`; `training[:160]` is a part of it.
      data_dir: the folder that the set is unpacked in.

    Raises:
      FileNotFoundError: names the missing file, the files needed and where they are obtained.
      ValueError: no such split.
    """
    chosen = SETS[name]
    match = re.fullmatch(r"([^\[\]]+)(?:\[(-?\d*):(-?\d*)\])?", split)
    if not match or (chosen.splits and match[1] not in chosen.splits):
        known = " or ".join(map(repr, chosen.splits)) or "a folder of data_dir"
        raise ValueError(f"{name} has no split {split!r}: it is {known}, or a part of it as [a:b]")
    root = user_path(data_dir)
    remedy = (
        f"config.data.data_dir={data_dir!r} must be a folder that holds {chosen.holds}, unpacked "
        f"from {chosen.home}"
    )
    if not data_dir or not root.is_dir():
        raise FileNotFoundError(f"{name}: no folder {data_dir!r}; {remedy}")
    pairs = list(chosen.layout(root, match[1]))
    if not pairs:
        raise FileNotFoundError(f"{name}: nothing of {match[1]!r} in {root}; {remedy}")
    needed = (path for pair in pairs for path in (pair.first, pair.second, *pair.truth))
    for path in needed:
        if not path.exists():
            raise FileNotFoundError(f"{name}: {path} is missing; {remedy}")
    start, stop = (int(number) if number else None for number in match.groups()[1:])
    return Pairs(f"{name}[{split}]", pairs[start:stop])


def spec(name: str) -> Example:
    """An example of zeros, small: crops and padding make windows of the size that they need."""
    size = (16, 16)
    return {
        "frames": np.zeros((2, *size, 3), np.uint8),
        "field": np.zeros((*size, SETS[name].channels), np.float32),
        "valid": np.ones(size, bool),
        "occluded": np.zeros(size, bool),
        "size": np.array(size, np.int32),
    }
