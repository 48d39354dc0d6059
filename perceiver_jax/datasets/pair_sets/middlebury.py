"""Middlebury (Scharstein and Szeliski 2002; Scharstein et al. 2014), ETH3D (Schöps et al. 2017)."""

import functools
from collections.abc import Iterator

import numpy as np

from perceiver_jax import files
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.pair_sets.layout import Path, Set, read_pfm
from perceiver_jax.datasets.pairs import Pair, Truth
from perceiver_jax.files.paths import user_path

HOME = "vision.middlebury.edu/stereo/data"


def _masked_pfm(root: Path, split: str) -> Iterator[Pair]:
    """ETH3D, and Middlebury's third evaluation: im0, im1, disp0GT.pfm, mask0nocc.png."""
    for path in sorted((root / split).glob("*/disp0GT.pfm")):
        frames = [path.with_name(name) for name in ("im0.png", "im1.png")]
        read = functools.partial(read_pfm, 1)
        yield Pair(*frames, read, (path, path.with_name("mask0nocc.png")))


def _middlebury_2014(root: Path, split: str) -> Iterator[Pair]:
    for path in sorted((root / split).glob("*/disp0.pfm")):
        frames = [path.with_name(name) for name in ("im0.png", "im1.png")]
        yield Pair(*frames, functools.partial(read_pfm, 1), (path,))


def _middlebury_grey(
    scale: float, left: str, right: str, truth: str, root: Path, split: str
) -> Iterator[Pair]:
    """The older sets: grey levels; `left` and so on are names without their ending."""
    for path in sorted((root / split).glob(f"*/{truth}.p[gpn][mg]")):
        frames = [_any_ending(path.with_name(name)) for name in (left, right)]
        yield Pair(*frames, functools.partial(_read_scaled, scale), (path,))


def _read_scaled(scale: float, path: Path) -> Truth:
    return Truth(*files.read_scaled_disparity(path, scale))


def _any_ending(path: Path) -> Path:
    found = [p for ending in (".png", ".ppm", ".pgm") if (p := path.with_suffix(ending)).exists()]
    return found[0] if found else path.with_suffix(".png")


def _grey_set(year: int, scale: float, left: str, right: str, truth: str) -> Set:
    sizes = {8: "as they come", 4: "of quarter size", 3: "of third size"}
    holds = f"<any folder>/<scene>/{{{left},{right},{truth}}} (png, ppm, pgm) {sizes[scale]}"
    layout = functools.partial(_middlebury_grey, scale, left, right, truth)
    return Set(layout, (), holds, f"{HOME}/scenes{year}", channels=1)


MASKED = "<scene>/{im0.png,im1.png,disp0GT.pfm,mask0nocc.png}"
SETS = {
    "eth3d": Set(_masked_pfm, (), f"<any folder>/{MASKED}", "www.eth3d.net/datasets", channels=1),
    "middlebury": Set(
        _masked_pfm,
        (),
        f"trainingQ (or F, H)/{MASKED}",
        "vision.middlebury.edu/stereo/submit3",
        channels=1,
    ),
    "middlebury2014": Set(
        _middlebury_2014,
        (),
        "<any folder>/<scene>/{im0.png,im1.png,disp0.pfm}",
        f"{HOME}/scenes2014",
        channels=1,
    ),
    "middlebury2001": _grey_set(2001, 8, "im2", "im6", "disp2"),
    "middlebury2003": _grey_set(2003, 4, "im2", "im6", "disp2"),
    "middlebury2005": _grey_set(2005, 3, "view1", "view5", "disp1"),
    "middlebury2006": _grey_set(2006, 3, "view1", "view5", "disp1"),
}


def write_middlebury(folder: Path, example: Example) -> None:
    """Writes a stereo pair as one scene of Middlebury's third evaluation, which `middlebury` reads.

    Args:
      folder: the scene's own, made where it is not there; that above it is the split.
      example: `frames`, `field` `[H, W, 1]`, `valid` and `occluded`, as a generator makes them.
    """
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(("im0.png", "im1.png"), example["frames"], strict=True):
        files.write_image(folder / name, view)
    known = example["valid"]
    files.write_pfm(folder / "disp0GT.pfm", np.where(known[..., None], example["field"], np.inf))
    kinds = np.where(example["occluded"], 128, 255) * known
    files.write_image(folder / "mask0nocc.png", kinds.astype(np.uint8))
