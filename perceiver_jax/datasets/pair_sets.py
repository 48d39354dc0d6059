"""Optical flow and stereo sets in local directories: where each keeps its pairs.

    load("kitti2015_flow", "training[:160]", "/data/kitti2015")

Nothing is downloaded: `data_dir` holds what is unpacked from the set's own page, in its own layout
(`SETS`). Examples are those of `pairs`.

References: MPI-Sintel (Butler et al. 2012), KITTI (Geiger et al. 2012; Menze and Geiger 2015),
FlyingChairs (Dosovitskiy et al. 2015), Scene Flow (Mayer et al. 2016), Middlebury (Scharstein and
Szeliski 2002; Scharstein et al. 2014), ETH3D (Schoeps et al. 2017).
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from perceiver_jax import files
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.pairs import Pair, Pairs, Truth

Path = pathlib.Path


# --- Truths ----------------------------------------------------------------------------------


def flo(flow: Path, occlusions: Path | None = None, invalid: Path | None = None) -> Truth:
    field = files.read_flo(flow)
    valid = np.ones(field.shape[:2], bool) if invalid is None else files.read_mask(invalid) == 0
    return field, valid, None if occlusions is None else files.read_mask(occlusions) > 0


def sintel_disparity(disparity: Path, occlusions: Path, outside: Path) -> Truth:
    field = files.read_sintel_disparity(disparity)
    hidden = (files.read_mask(occlusions) > 0) | (files.read_mask(outside) > 0)
    return field, np.ones(hidden.shape, bool), hidden


def kitti(read: Callable, everything: Path, visible: Path) -> Truth:
    field, valid = read(everything)
    return field, valid, valid & ~read(visible)[1]


def pfm(channels: int, path: Path, mask: Path | None = None) -> Truth:
    """Disparity or flow; unknown where it is infinite or, in a mask, 0; 128 is occluded."""
    field = files.read_pfm(path)[..., :channels]
    if mask is None:
        return field, np.isfinite(field).all(axis=-1), None
    kinds = files.read_mask(mask)
    return field, kinds > 0, kinds == 128


def scaled(scale: float, path: Path) -> Truth:
    return *files.read_scaled_disparity(path, scale), None


# --- Layouts: folder, split -> pairs ---------------------------------------------------------


def sintel_flow(look: str, root: Path, split: str) -> Iterator[Pair]:
    folder = root / split
    for flow in sorted((folder / "flow").glob("*/*.flo")):
        scene, number = flow.parent.name, int(flow.stem.removeprefix("frame_"))
        frames = [folder / look / scene / f"frame_{n:04}.png" for n in (number, number + 1)]
        masks = [folder / m / scene / f"{flow.stem}.png" for m in ("occlusions", "invalid")]
        yield Pair(*frames, flo, (flow, *masks))


def sintel_stereo(look: str, root: Path, split: str) -> Iterator[Pair]:
    folder = root / split
    for path in sorted((folder / "disparities").glob("*/*.png")):
        place = path.relative_to(folder / "disparities")
        frames = [folder / f"{look}_{side}" / place for side in ("left", "right")]
        masks = [folder / m / place for m in ("occlusions", "outofframe")]
        yield Pair(*frames, sintel_disparity, (path, *masks))


def kitti_flow(images: str, root: Path, split: str) -> Iterator[Pair]:
    read = functools.partial(kitti, files.read_kitti_flow)
    for path in sorted((root / split / "flow_occ").glob("*_10.png")):
        folder, number = root / split / images, path.name.removesuffix("_10.png")
        frames = [folder / f"{number}_{time}.png" for time in (10, 11)]
        yield Pair(*frames, read, (path, root / split / "flow_noc" / path.name))


def kitti_stereo(left: str, right: str, truth: str, root: Path, split: str) -> Iterator[Pair]:
    read = functools.partial(kitti, files.read_kitti_disparity)
    visible = root / split / truth.replace("occ", "noc")
    for path in sorted((root / split / truth).glob("*_10.png")):
        frames = [root / split / side / path.name for side in (left, right)]
        yield Pair(*frames, read, (path, visible / path.name))


def flying_chairs(root: Path, split: str) -> Iterator[Pair]:
    flows = sorted((root / "data").glob("*_flow.flo"))
    listed = root / "FlyingChairs_train_val.txt"
    kinds = listed.read_text().split() if listed.exists() else []
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
            yield Pair(*frames, flo, (flow,))


def scene_flow(look: str, root: Path, split: str) -> Iterator[Pair]:
    """FlyingThings3D has the folders TRAIN and TEST; in Driving and Monkaa all is `train`."""
    truths = root / "disparity"
    inside = truths / split.upper() if (truths / "TRAIN").exists() else truths
    if inside == truths and split != "train":
        return
    for path in sorted(inside.rglob("left/*.pfm")):
        left = (root / look / path.relative_to(truths)).with_suffix(".png")
        right = left.parent.with_name("right") / left.name
        yield Pair(left, right, functools.partial(pfm, 1), (path,))


def flying_things(look: str, root: Path, split: str) -> Iterator[Pair]:
    """The flow of FlyingThings3D; that of a scene's last frame leads to none and is left out."""
    folder = root / "optical_flow" / split.upper()
    for path in sorted(folder.glob("*/*/into_future/left/OpticalFlowIntoFuture_*_L.pfm")):
        scene = path.parents[2].relative_to(folder)
        number = int(path.stem.split("_")[1])
        place = root / look / split.upper() / scene / "left"
        frames = [place / f"{n:04}.png" for n in (number, number + 1)]
        if frames[1].exists():
            yield Pair(*frames, functools.partial(pfm, 2), (path,))


def masked_pfm(root: Path, split: str) -> Iterator[Pair]:
    """ETH3D, and Middlebury's third evaluation: im0, im1, disp0GT.pfm, mask0nocc.png."""
    for path in sorted((root / split).glob("*/disp0GT.pfm")):
        frames = [path.with_name(name) for name in ("im0.png", "im1.png")]
        read = functools.partial(pfm, 1)
        yield Pair(*frames, read, (path, path.with_name("mask0nocc.png")))


def middlebury_2014(root: Path, split: str) -> Iterator[Pair]:
    for path in sorted((root / split).glob("*/disp0.pfm")):
        frames = [path.with_name(name) for name in ("im0.png", "im1.png")]
        yield Pair(*frames, functools.partial(pfm, 1), (path,))


def middlebury_grey(
    scale: float, left: str, right: str, truth: str, root: Path, split: str
) -> Iterator[Pair]:
    """The older sets: grey levels; `left` and so on are names without their ending."""
    for path in sorted((root / split).glob(f"*/{truth}.p[gpn][mg]")):
        frames = [_any_ending(path.with_name(name)) for name in (left, right)]
        yield Pair(*frames, functools.partial(scaled, scale), (path,))


def _any_ending(path: Path) -> Path:
    found = [p for ending in (".png", ".ppm", ".pgm") if (p := path.with_suffix(ending)).exists()]
    return found[0] if found else path.with_suffix(".png")


# --- The sets --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Set:
    """A data set: its layout, its splits, what `data_dir` must hold and where that is obtained."""

    layout: Callable[[Path, str], Iterator[Pair]]
    splits: tuple[str, ...]
    holds: str
    home: str


SINTEL = "sintel.is.tue.mpg.de"
KITTI = {
    2012: "www.cvlibs.net/datasets/kitti/eval_stereo_flow.php",
    2015: "www.cvlibs.net/datasets/kitti/eval_scene_flow.php",
}
MIDDLEBURY = "vision.middlebury.edu/stereo/data"
SCENE_FLOW = "lmb.informatik.uni-freiburg.de/resources/datasets"


def _kitti_flow(images: str, year: int) -> Set:
    holds = f"training/{{{images},flow_occ,flow_noc}}/000000_10.png (and {images}/000000_11.png)"
    layout = functools.partial(kitti_flow, images)
    return Set(layout, ("training",), holds, KITTI[year])


def _kitti_stereo(left: str, right: str, truth: str, year: int) -> Set:
    noc = truth.replace("occ", "noc")
    holds = f"training/{{{left},{right},{truth},{noc}}}/000000_10.png"
    layout = functools.partial(kitti_stereo, left, right, truth)
    return Set(layout, ("training",), holds, KITTI[year])


def _sintel(kind: str, look: str) -> Set:
    if kind == "flow":
        holds = f"training/{{{look},flow,occlusions,invalid}}/alley_1/frame_0001.png (flow: .flo)"
        return Set(functools.partial(sintel_flow, look), ("training",), holds, SINTEL)
    folders = f"{look}_left,{look}_right,disparities,occlusions,outofframe"
    holds = f"training/{{{folders}}}/alley_1/frame_0001.png"
    return Set(functools.partial(sintel_stereo, look), ("training",), holds, f"{SINTEL}/stereo")


def _scene_flow(look: str) -> Set:
    holds = f"{look}/.../{{left,right}}/0006.png and disparity/.../left/0006.pfm"
    return Set(functools.partial(scene_flow, look), ("train", "test"), holds, SCENE_FLOW)


def _flying_things(look: str) -> Set:
    truth = "into_future/left/OpticalFlowIntoFuture_0006_L.pfm"
    holds = f"{look}/TRAIN/A/0000/left/0006.png and optical_flow/TRAIN/A/0000/{truth}"
    return Set(functools.partial(flying_things, look), ("train", "test"), holds, SCENE_FLOW)


def _middlebury(year: int, scale: float, left: str, right: str, truth: str) -> Set:
    sizes = {8: "as they come", 4: "of quarter size", 3: "of third size"}
    holds = f"<any folder>/<scene>/{{{left},{right},{truth}}} (png, ppm, pgm) {sizes[scale]}"
    layout = functools.partial(middlebury_grey, scale, left, right, truth)
    return Set(layout, (), holds, f"{MIDDLEBURY}/scenes{year}")


MASKED = "<scene>/{im0.png,im1.png,disp0GT.pfm,mask0nocc.png}"
SETS = {
    "sintel_clean": _sintel("flow", "clean"),
    "sintel_final": _sintel("flow", "final"),
    "sintel_clean_stereo": _sintel("stereo", "clean"),
    "sintel_final_stereo": _sintel("stereo", "final"),
    "kitti2012_flow": _kitti_flow("colored_0", 2012),
    "kitti2015_flow": _kitti_flow("image_2", 2015),
    "kitti2012_stereo": _kitti_stereo("colored_0", "colored_1", "disp_occ", 2012),
    "kitti2015_stereo": _kitti_stereo("image_2", "image_3", "disp_occ_0", 2015),
    "flying_chairs": Set(
        flying_chairs,
        ("train", "validation"),
        "FlyingChairs_train_val.txt and data/00001_{img1.ppm,img2.ppm,flow.flo}",
        SCENE_FLOW,
    ),
    "sceneflow_clean": _scene_flow("frames_cleanpass"),
    "sceneflow_final": _scene_flow("frames_finalpass"),
    "flyingthings_clean": _flying_things("frames_cleanpass"),
    "flyingthings_final": _flying_things("frames_finalpass"),
    "eth3d": Set(masked_pfm, (), f"<any folder>/{MASKED}", "www.eth3d.net/datasets"),
    "middlebury": Set(
        masked_pfm, (), f"trainingQ (or F, H)/{MASKED}", "vision.middlebury.edu/stereo/submit3"
    ),
    "middlebury2014": Set(
        middlebury_2014,
        (),
        "<any folder>/<scene>/{im0.png,im1.png,disp0.pfm}",
        f"{MIDDLEBURY}/scenes2014",
    ),
    "middlebury2001": _middlebury(2001, 8, "im2", "im6", "disp2"),
    "middlebury2003": _middlebury(2003, 4, "im2", "im6", "disp2"),
    "middlebury2005": _middlebury(2005, 3, "view1", "view5", "disp1"),
    "middlebury2006": _middlebury(2006, 3, "view1", "view5", "disp1"),
}


def load(name: str, split: str, data_dir: str) -> Pairs:
    """Opens one of `SETS`.

    Args:
      name: the set's.
      split: the set's own folder, or one of `Set.splits`; `training[:160]` is a part of it.
      data_dir: the folder that the set is unpacked in.

    Raises:
      FileNotFoundError: what is not there, what should be, and where it is obtained.
      ValueError: no such split.
    """
    chosen = SETS[name]
    match = re.fullmatch(r"([^\[\]]+)(?:\[(-?\d*):(-?\d*)\])?", split)
    if not match or (chosen.splits and match[1] not in chosen.splits):
        known = " or ".join(map(repr, chosen.splits)) or "a folder of data_dir"
        raise ValueError(f"{name} has no split {split!r}: it is {known}, or a part of it as [a:b]")
    root = Path(data_dir)
    remedy = (
        f"config.data.data_dir={data_dir!r} must be a folder that holds {chosen.holds}, unpacked "
        f"from {chosen.home}"
    )
    if not data_dir or not root.is_dir():
        raise FileNotFoundError(f"{name}: no folder {data_dir!r}; {remedy}")
    pairs = list(chosen.layout(root, match[1]))
    if not pairs:
        raise FileNotFoundError(f"{name}: nothing of {match[1]!r} in {root.resolve()}; {remedy}")
    needed = (path for pair in pairs for path in (pair.first, pair.second, *pair.truth))
    for path in needed:
        if not path.exists():
            raise FileNotFoundError(f"{name}: {path} is missing; {remedy}")
    start, stop = (int(number) if number else None for number in match.groups()[1:])
    return Pairs(f"{name}[{split}]", pairs[start:stop])


def write_middlebury(folder: Path, example: Example) -> None:
    """Writes a stereo pair as one scene of Middlebury's third evaluation, which `middlebury` reads.

    Args:
      folder: the scene's own, made where it is not there; that above it is the split.
      example: `frames`, `field` `[H, W, 1]`, `valid` and `occluded`, as a generator makes them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(("im0.png", "im1.png"), example["frames"], strict=True):
        files.write_image(folder / name, view)
    known = example["valid"]
    files.write_pfm(folder / "disp0GT.pfm", np.where(known[..., None], example["field"], np.inf))
    kinds = np.where(example["occluded"], 128, 255) * known
    files.write_image(folder / "mask0nocc.png", kinds.astype(np.uint8))
