"""A set's layout: the splits it has, and where each keeps its pairs; readers that several share."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from perceiver_jax import files
from perceiver_jax.datasets.pairs import Pair, Truth

Path = pathlib.Path
UNKNOWN_FLOW = 1e9  # Middlebury's flow code: pixels from there on mean unknown


@dataclasses.dataclass(frozen=True)
class Set:
    """A dataset of pairs in a local directory.

    Attributes:
      layout: (directory, split) -> its pairs.
      splits: their names; () allows any folder of the directory.
      holds: the files that the directory must hold.
      home: where they are obtained.
      channels: of the field: 2 for flow, 1 for disparity.
    """

    layout: Callable[[Path, str], Iterator[Pair]]
    splits: tuple[str, ...]
    holds: str
    home: str
    channels: int


def read_flo(flow: Path, occlusions: Path | None = None, invalid: Path | None = None) -> Truth:
    """A flow in `.flo`; occluded and invalid pixels are the white ones of masks."""
    field = files.read_flo(flow)
    known = (np.abs(field) < UNKNOWN_FLOW).all(axis=-1)
    occluded = None if occlusions is None else files.read_mask(occlusions) > 0
    if invalid is None:
        return Truth(field, known, occluded)
    return Truth(field, known & (files.read_mask(invalid) == 0), occluded, known)


def read_pfm(channels: int, path: Path, mask: Path | None = None) -> Truth:
    """Disparity or flow; unknown where it is infinite or, in a mask, 0; 128 is occluded."""
    field = files.read_pfm(path)[..., :channels]
    if mask is None:
        return Truth(field, np.isfinite(field).all(axis=-1))
    kinds = files.read_mask(mask)
    return Truth(field, kinds > 0, kinds == 128)
