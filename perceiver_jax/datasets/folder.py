"""A folder of images in which each class has a folder of its own.

    DIR/train/CLASS/*, DIR/val/CLASS/*      two parts; the second may be named test
    DIR/CLASS/*                             one part; a seed holds out some images

Images may lie at any depth below their class. `data_dir` is DIR.
"""

import itertools
import os
import pathlib
from collections.abc import Sequence

from perceiver_jax.datasets import images
from perceiver_jax.datasets.clip_lists import CLASSES, read_class_file
from perceiver_jax.datasets.images import Images, Item, Listing, Options, check_options, spec
from perceiver_jax.files.image import IMAGES
from perceiver_jax.files.paths import walk_files

__all__ = ["check_options", "load", "spec"]

PARTS = {"train", "training", "test", "testing", "dev", "eval", *images.EVALUATION}


def load(split: str, *, data_dir: str = "", lists: Sequence[str] = (), **options) -> Images:
    """Opens a part of the folder `data_dir`; reads names and sizes of files only.

    Args:
      split: the name of a part; "val" is also looked for as validation, valid and test.
      data_dir: the folder, with `~`, or in a bucket.
      lists: the names of all parts, the training part first, whose classes are numbered together.
      options: those of `Options`.

    Raises:
      FileNotFoundError: the folder or a part is not there.
      ValueError: a class is empty, alone, or in the evaluation only; there are no classes or no
        readable images; or the folders are not those of classes.txt.
    """
    options = Options(**options)
    root = images.existing_dir(data_dir)
    if not root.is_dir():
        raise ValueError(f"config.data.data_dir={data_dir!r} is no folder; a list is source=table")
    lists = tuple(lists) or (split,)
    parts = {name: _find_part(root, name) for name in {*lists, split}}
    notes: list[str] = []
    if any(parts.values()):
        if missing := [name for name, part in parts.items() if part is None]:
            raise FileNotFoundError(
                f"{root} has no folder {missing[0]!r} with folders of classes, but "
                f"{images.some(_folders(root))}: set config.data.train_split and eval_split to the "
                "names of the parts"
            )
        names = {name: _folders(part) for name, part in parts.items()}
        trained = names[lists[0]] if len(lists) > 1 else ()
        evaluated = [] if split == lists[0] else names[split]
        classes, fixed = _classes(root, [x for part in names.values() for x in part])
        images.check_classes(classes, trained, evaluated, root)
        part = parts[split]
        items = _items(part, names[split], notes)
        items = [item._replace(path=f"{part.name}/{item.path}") for item in items]
        if absent := images.in_order(set(classes) - set(names[split])):
            notes.append(f"no image in {part} has the class {images.some(absent)}")
        name = f"folder[{root.name}/{part.name}]"
    else:
        found = _folders(root)
        if inside := sorted(PARTS & {name.lower() for name in found}):
            raise ValueError(
                f"{root} holds {images.some(inside)}, which look like parts and not classes: set "
                "config.data.train_split and eval_split to the names of the parts"
            )
        classes, fixed = _classes(root, found)
        images.check_classes(classes, (), (), root)
        items, share = images.take_part(_items(root, found, notes), split, lists, options, root)
        name = f"folder[{root.name}, {share}]"
    return Images(name, Listing(root, items, classes, fixed, notes), options)


def _find_part(root: pathlib.Path, split: str) -> pathlib.Path | None:
    """The folder of a part: it holds folders. One with images only is a class of that name."""
    candidates = (root / name for name in images.names_of_part(split))
    return next((part for part in candidates if part.is_dir() and _folders(part)), None)


def _folders(folder: pathlib.Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones."""
    if isinstance(folder, pathlib.Path):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    else:
        names = next((folders for _, folders, _ in folder.walk()), [])
    return images.in_order(name for name in names if not name.startswith((".", "__")))


def _classes(root: pathlib.Path, found: Sequence[str]) -> tuple[list[str], bool]:
    """The names of the classes, and whether they are from `classes.txt`."""
    if not found:
        loose = sum(path.lower().endswith(IMAGES) for path, _ in walk_files(root))
        raise ValueError(
            f"{root} holds {loose:,} images but no folders of classes: put the images of each "
            f"class into a folder with its name, {root / 'CLASS'}, or list them in a table"
        )
    if names := read_class_file(root):
        if unknown := images.in_order(set(found) - set(names)):
            raise ValueError(f"{root / CLASSES} does not name the folder {images.some(unknown)}")
        return names, True
    return images.in_order(set(found)), False


def _items(part: pathlib.Path, classes: Sequence[str], notes: list[str]) -> list[Item]:
    """The images of a part; others are noted.

    The classes take turns, so that the first images, which are drawn, are of many.

    Raises:
      ValueError: a class has none.
    """
    by_class, others, empty = [], [], []
    for name in classes:
        files = sorted((f"{name}/{path}", size) for path, size in walk_files(part / name))
        own = [Item(path, size, (name,)) for path, size in files if path.lower().endswith(IMAGES)]
        others += [path for path, _ in files if not path.lower().endswith(IMAGES)]
        by_class.append(own)
        if not own:
            empty.append(name)
    if empty:
        raise ValueError(
            f"{part}: the class folder {images.some(empty)} holds no image ({' '.join(IMAGES)}): "
            "remove it or fill it"
        )
    if others:
        notes.append(f"{part}: {len(others):,} other files, left out: {images.some(others)}")
    turns = itertools.zip_longest(*by_class)
    return [item for turn in turns for item in turn if item]
