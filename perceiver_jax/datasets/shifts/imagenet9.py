"""ImageNet-9: objects of 9 classes on their own and on other grounds (Xiao et al. 2020).

    DATA_DIR/mixed_same/val/00_dog/*.JPEG, ...      a folder for each variation, as released
    DATA_DIR/in_to_in9.json                         of the authors' repository

The file says which of ImageNet's 1,000 classes belong to which of the 9. A model of 9 classes needs
none.
"""

import json
import pathlib

import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.shifts.files import SUFFIXES, ImageFiles, spec_with
from perceiver_jax.files.paths import read_text, user_path
from perceiver_jax.groups import Groups

VARIATIONS = (
    "original",
    "mixed_same",
    "mixed_rand",
    "mixed_next",
    "only_fg",
    "no_fg",
    "only_bg_b",
    "only_bg_t",
)
MAP = "in_to_in9.json"
ADDRESS = "github.com/MadryLab/backgrounds_challenge"


def load(split: str, *, data_dir: str = "") -> ImageFiles:
    """Opens `val`, all variations that are there, or a folder such as `in9l/train`.

    Fields are `image`, `label` (0 to 8, in the order of the folders' names) and `condition`.

    Raises:
      FileNotFoundError: there are no such folders; says where to get them.
      ValueError: the folders of classes differ, or the map is not one.
    """
    root = user_path(data_dir)
    variations = VARIATIONS if "/" not in split else (split.partition("/")[0],)
    part = split.rpartition("/")[2]
    found = {name: root / name / part for name in variations if (root / name / part).is_dir()}
    if not found:
        raise FileNotFoundError(
            f"ImageNet-9 is not in config.data.data_dir={data_dir!r}: no folder "
            f"{variations[0]}/{part} in it. Unpack the release of {ADDRESS} there"
        )
    paths: list[pathlib.Path] = []
    label, condition, classes = [], [], {}
    for number, (name, folder) in enumerate(found.items()):
        classes[name] = sorted(path.name for path in folder.iterdir() if path.is_dir())
        for k, folder_name in enumerate(classes[name]):
            files = sorted((folder / folder_name).iterdir())
            files = [path for path in files if path.suffix.lower() in SUFFIXES]
            paths += files
            label += [k] * len(files)
            condition += [number] * len(files)
    first = next(iter(classes))
    if differ := [name for name in classes if classes[name] != classes[first]]:
        raise ValueError(
            f"{found[differ[0]]} has the classes {classes[differ[0]]}, {found[first]} "
            f"{classes[first]}"
        )
    return ImageFiles(
        f"imagenet9[{split}]",
        paths,
        {"label": np.array(label), "condition": np.array(condition)},
        conditions=conditions(tuple(found)),
        groups=read_groups(root / MAP, len(classes[first])),
    )


def conditions(names: tuple[str, ...]) -> Conditions:
    """The conditions of the variations that are there; `bg_gap` needs both mixed ones."""
    pair = ("mixed_same", "mixed_rand")
    return Conditions(names, gaps={"bg_gap": pair} if set(pair) <= set(names) else {})


def read_groups(path: pathlib.Path, num_classes: int) -> Groups | None:
    """The groups of a file {ImageNet's class: class or -1}; None where there is no file."""
    if not path.exists():
        return None
    members: list[list[int]] = [[] for _ in range(num_classes)]
    try:
        for name, group in json.loads(read_text(path)).items():
            if int(group) >= 0:
                members[int(group)].append(int(name))
    except (ValueError, AttributeError, TypeError, IndexError):
        members = [[]]
    if not all(members):
        raise ValueError(
            f"{path} is no map from ImageNet's classes to {num_classes} classes or -1: take it "
            f"from {ADDRESS}"
        )
    return Groups(tuple(tuple(sorted(group)) for group in members), "best")


def spec() -> Example:
    """An example of zeros."""
    return spec_with("label", "condition")
