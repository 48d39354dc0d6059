"""MPI-Sintel (Butler et al. 2012): optical flow, and stereo from its own archive."""

import functools
from collections.abc import Iterator

import numpy as np

from perceiver_jax import files
from perceiver_jax.datasets.pair_sets.layout import Path, Set, read_flo
from perceiver_jax.datasets.pairs import Pair, Truth

HOME = "sintel.is.tue.mpg.de"


def _flow(look: str, root: Path, split: str) -> Iterator[Pair]:
    folder = root / split
    for flow in sorted((folder / "flow").glob("*/*.flo")):
        scene, number = flow.parent.name, int(flow.stem.removeprefix("frame_"))
        frames = [folder / look / scene / f"frame_{n:04}.png" for n in (number, number + 1)]
        masks = [folder / m / scene / f"{flow.stem}.png" for m in ("occlusions", "invalid")]
        yield Pair(*frames, read_flo, (flow, *masks))


def _stereo(look: str, root: Path, split: str) -> Iterator[Pair]:
    folder = root / split
    for path in sorted((folder / "disparities").glob("*/*.png")):
        place = path.relative_to(folder / "disparities")
        frames = [folder / f"{look}_{side}" / place for side in ("left", "right")]
        masks = [folder / m / place for m in ("occlusions", "outofframe")]
        yield Pair(*frames, _read_disparity, (path, *masks))


def _read_disparity(disparity: Path, occlusions: Path, outside: Path) -> Truth:
    field = files.read_sintel_disparity(disparity)
    occluded = (files.read_mask(occlusions) > 0) | (files.read_mask(outside) > 0)
    return Truth(field, np.ones(occluded.shape, bool), occluded)


def _flow_set(look: str) -> Set:
    holds = f"training/{{{look},flow,occlusions,invalid}}/alley_1/frame_0001.png (flow: .flo)"
    return Set(functools.partial(_flow, look), ("training",), holds, HOME, channels=2)


def _stereo_set(look: str) -> Set:
    folders = f"{look}_left,{look}_right,disparities,occlusions,outofframe"
    holds = f"training/{{{folders}}}/alley_1/frame_0001.png"
    layout = functools.partial(_stereo, look)
    return Set(layout, ("training",), holds, f"{HOME}/stereo", channels=1)


SETS = {
    "sintel_clean": _flow_set("clean"),
    "sintel_final": _flow_set("final"),
    "sintel_clean_stereo": _stereo_set("clean"),
    "sintel_final_stereo": _stereo_set("final"),
}
