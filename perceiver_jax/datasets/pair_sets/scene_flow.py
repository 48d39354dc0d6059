"""FlyingChairs (Dosovitskiy et al. 2015) and Scene Flow (Mayer et al. 2016)."""

import functools
from collections.abc import Iterator

from perceiver_jax.datasets.pair_sets.layout import Path, Set, read_flo, read_pfm
from perceiver_jax.datasets.pairs import Pair
from perceiver_jax.files.paths import read_text

HOME = "lmb.informatik.uni-freiburg.de/resources/datasets"


def _flying_chairs(root: Path, split: str) -> Iterator[Pair]:
    flows = sorted((root / "data").glob("*_flow.flo"))
    listed = root / "FlyingChairs_train_val.txt"
    kinds = read_text(listed).split() if listed.exists() else []
    if flows and len(kinds) != len(flows):
        raise ValueError(
            f"{listed} must have a line, 1 (train) or 2 (validation), for each of the {len(flows)} "
            f"flows in {root / 'data'}; it has {len(kinds)}"
        )
    wanted = {"train": "1", "validation": "2"}.get(split)
    for flow, kind in zip(flows, kinds, strict=True):
        if kind == wanted:
            stem = flow.name.removesuffix("_flow.flo")
            frames = [root / "data" / f"{stem}_img{i}.ppm" for i in (1, 2)]
            yield Pair(*frames, read_flo, (flow,))


def _scene_flow(look: str, root: Path, split: str) -> Iterator[Pair]:
    """FlyingThings3D has the folders TRAIN and TEST; in Driving and Monkaa all is `train`."""
    truths = root / "disparity"
    inside = truths / split.upper() if (truths / "TRAIN").exists() else truths
    if inside == truths and split != "train":
        return
    depths = range(6)  # no `rglob`, which buckets lack
    for path in sorted(p for n in depths for p in inside.glob("*/" * n + "left/*.pfm")):
        left = (root / look / path.relative_to(truths)).with_suffix(".png")
        right = left.parent.with_name("right") / left.name
        yield Pair(left, right, functools.partial(read_pfm, 1), (path,))


def _flying_things(look: str, root: Path, split: str) -> Iterator[Pair]:
    """The flow of FlyingThings3D; that of a scene's last frame leads to none and is left out."""
    folder = root / "optical_flow" / split.upper()
    for path in sorted(folder.glob("*/*/into_future/left/OpticalFlowIntoFuture_*_L.pfm")):
        scene = path.parents[2].relative_to(folder)
        number = int(path.stem.split("_")[1])
        place = root / look / split.upper() / scene / "left"
        frames = [place / f"{n:04}.png" for n in (number, number + 1)]
        if frames[1].exists():
            yield Pair(*frames, functools.partial(read_pfm, 2), (path,))


def _scene_flow_set(look: str) -> Set:
    holds = f"{look}/.../{{left,right}}/0006.png and disparity/.../left/0006.pfm"
    layout = functools.partial(_scene_flow, look)
    return Set(layout, ("train", "test"), holds, HOME, channels=1)


def _flying_things_set(look: str) -> Set:
    truth = "into_future/left/OpticalFlowIntoFuture_0006_L.pfm"
    holds = f"{look}/TRAIN/A/0000/left/0006.png and optical_flow/TRAIN/A/0000/{truth}"
    layout = functools.partial(_flying_things, look)
    return Set(layout, ("train", "test"), holds, HOME, channels=2)


SETS = {
    "flying_chairs": Set(
        _flying_chairs,
        ("train", "validation"),
        "FlyingChairs_train_val.txt and data/00001_{img1.ppm,img2.ppm,flow.flo}",
        HOME,
        channels=2,
    ),
    "sceneflow_clean": _scene_flow_set("frames_cleanpass"),
    "sceneflow_final": _scene_flow_set("frames_finalpass"),
    "flyingthings_clean": _flying_things_set("frames_cleanpass"),
    "flyingthings_final": _flying_things_set("frames_finalpass"),
}
