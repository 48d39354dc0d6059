"""KITTI 2012 (Geiger et al. 2012) and 2015 (Menze and Geiger 2015): flow and stereo."""

import functools
from collections.abc import Callable, Iterator

from perceiver_jax import files
from perceiver_jax.datasets.pair_sets.layout import Path, Set
from perceiver_jax.datasets.pairs import Pair, Truth

HOMES = {
    2012: "www.cvlibs.net/datasets/kitti/eval_stereo_flow.php",
    2015: "www.cvlibs.net/datasets/kitti/eval_scene_flow.php",
}


def _flow(images: str, root: Path, split: str) -> Iterator[Pair]:
    read = functools.partial(_read, files.read_kitti_flow)
    for path in sorted((root / split / "flow_occ").glob("*_10.png")):
        folder, number = root / split / images, path.name.removesuffix("_10.png")
        frames = [folder / f"{number}_{time}.png" for time in (10, 11)]
        yield Pair(*frames, read, (path, root / split / "flow_noc" / path.name))


def _stereo(left: str, right: str, truth: str, root: Path, split: str) -> Iterator[Pair]:
    read = functools.partial(_read, files.read_kitti_disparity)
    visible = root / split / truth.replace("occ", "noc")
    for path in sorted((root / split / truth).glob("*_10.png")):
        frames = [root / split / side / path.name for side in (left, right)]
        yield Pair(*frames, read, (path, visible / path.name))


def _read(read: Callable, everything: Path, visible: Path) -> Truth:
    field, valid = read(everything)
    return Truth(field, valid, valid & ~read(visible)[1])


def _flow_set(images: str, year: int) -> Set:
    holds = f"training/{{{images},flow_occ,flow_noc}}/000000_10.png (and {images}/000000_11.png)"
    layout = functools.partial(_flow, images)
    return Set(layout, ("training",), holds, HOMES[year], channels=2)


def _stereo_set(left: str, right: str, truth: str, year: int) -> Set:
    noc = truth.replace("occ", "noc")
    holds = f"training/{{{left},{right},{truth},{noc}}}/000000_10.png"
    layout = functools.partial(_stereo, left, right, truth)
    return Set(layout, ("training",), holds, HOMES[year], channels=1)


SETS = {
    "kitti2012_flow": _flow_set("colored_0", 2012),
    "kitti2015_flow": _flow_set("image_2", 2015),
    "kitti2012_stereo": _stereo_set("colored_0", "colored_1", "disp_occ", 2012),
    "kitti2015_stereo": _stereo_set("image_2", "image_3", "disp_occ_0", 2015),
}
