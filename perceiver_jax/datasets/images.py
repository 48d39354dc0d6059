"""Image files with labels, as `folder` and `table` list them, read one at a time.

The file is long because both share its options, checks, held-out images and search for copies.
"""

import collections
import dataclasses
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np

from perceiver_jax.config_types import Count, Range, Whole, check_fields
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.copies import Files, digest
from perceiver_jax.files.image import check_pixels, decode_image, decode_small, natural_key
from perceiver_jax.files.paths import user_path

# The names of the evaluation's part, looked for in this order.
EVALUATION = ("val", "validation", "valid", "test")
TRIED = 8  # files, of which one at least must be an image
BYTES_PER_PIXEL = 16  # more than any format needs: a larger file has more pixels than allowed


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `folder` and `table`, `config.data.source_options`.

    Attributes:
      eval_fraction: fraction of each class that is held out, if the set has one part.
      split_seed: decides which images are held out.
      unreadable: what happens to files that are missing or not readable as images. "leave_out"
        reports them on stderr and leaves them out of loss and metrics; "refuse" ends the command.
      max_pixels: a larger image counts as unreadable: a few bytes may decode to gigabytes.
      short_side: images are shrunk to this many pixels along their shorter side when they are read,
        and kept in memory; 0 leaves them as they are. For large photographs and small models.
      cache_bytes: of the images kept in memory, in each reading process, with `short_side`.
      find_copies: whether to look for files that are in both training and evaluation; reads the
        files whose size equals another one's.
      multi_label: whether an image may have several labels, or none.
      path_column, label_column: of a table.
    """

    eval_fraction: Annotated[float, Range(0, 1, above=True)] = 0.2
    split_seed: Whole = 0
    unreadable: Literal["leave_out", "refuse"] = "leave_out"
    max_pixels: Count = 2**27
    short_side: Annotated[int, Range(0, 2**16)] = 0
    cache_bytes: Annotated[int, Range(0, 2**40)] = 2**30
    find_copies: bool = True
    multi_label: bool = False
    path_column: str = "path"
    label_column: str = "label"


class Item(NamedTuple):
    """An image file: its path within the set's folder, its bytes (-1: unknown) and its labels."""

    path: str
    size: int
    labels: tuple[str, ...]


class Listing(NamedTuple):
    """The files and classes of a part of a set.

    Attributes:
      folder: that all paths are in.
      items: the files.
      classes: the names of the set's classes in their order.
      classes_fixed: whether `classes.txt` says the order, and not only the names themselves.
      notes: lines for the user.
    """

    folder: pathlib.Path
    items: list[Item]
    classes: list[str]
    classes_fixed: bool
    notes: list[str]


class Images:
    """A source of image files; an example holds

        image     uint8 [H, W, 3], of any size
        label     int32, or `labels` float32 [K] of zeros and ones with `multi_label`
        row       int32, the number of the file
        readable  bool; where False, the image is black and the task leaves the example out

    Attributes:
      classes: names by number.
      classes_fixed: see `Listing`.
      files: all that are listed.
      paths: those of `files`.
      notes: lines for the user.
      unreadable: the reason by path, for files that this process has tried to read.
    """

    in_memory = False

    def __init__(self, name: str, listing: Listing, options: Options):
        """Leaves out the files that are already known to be missing or empty.

        Raises:
          ValueError: all are, or none of the first files can be read.
        """
        self.name, self.options = name, options
        self.classes, self.classes_fixed = listing.classes, listing.classes_fixed
        absent = [item.path for item in listing.items if item.size == 0]
        items = [item for item in listing.items if item.size != 0]
        self.notes = list(listing.notes)
        if absent:
            what = (
                f"{name}: {len(absent):,} of {len(listing.items):,} files are missing or empty: "
                f"{some(absent)} in {listing.folder}"
            )
            if options.unreadable == "refuse" or not items:
                raise ValueError(f"{what}: correct config.data.data_dir or the files")
            self.notes.append(f"{what}; left out")
        sizes = np.array([item.size for item in items], np.int64)
        self.files = Files(str(listing.folder), [item.path for item in items], sizes)
        self.paths = self.files.paths
        numbers = {label: number for number, label in enumerate(self.classes)}
        self.labels = [tuple(numbers[label] for label in item.labels) for item in items]
        self.cache: dict[int, np.ndarray] = {}
        self.cached_bytes = 0
        self.unreadable: dict[str, str] = {}
        self.black = np.zeros((64, 64, 3), np.uint8)
        first = range(min(TRIED, len(self)))
        if first and not any(self[index]["readable"] for index in first):
            raise ValueError(
                f"{name}: none of the first {len(first)} files can be read, for example "
                f"{next(iter(self.unreadable.values()))}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        path, labels = self.paths[index], self.labels[index]
        try:
            image = self._read(index)
        except (ValueError, OSError) as error:
            if self.options.unreadable == "refuse":
                raise
            self._leave_out(path, str(error))
            image = None
        example = {"row": np.int32(index), "readable": np.bool_(image is not None)}
        if image is None:
            image = self.black
        elif image.shape != self.black.shape:
            # Without a resize all images have one size, and so must the black one.
            self.black = np.zeros_like(image)
        if self.options.multi_label:
            hot = np.isin(np.arange(len(self.classes)), labels)
            return {"image": image, "labels": hot.astype(np.float32), **example}
        return {"image": image, "label": np.int32(labels[0]), **example}

    def _read(self, index: int) -> np.ndarray:
        if index in self.cache:
            return self.cache[index]
        path, size = f"{self.files.folder}/{self.paths[index]}", self.files.sizes[index]
        limit = self.options.max_pixels
        if size > BYTES_PER_PIXEL * limit:
            raise ValueError(f"{path} is too large for an image: {size:,} bytes")
        data = user_path(path).read_bytes()
        check_pixels(data, path, limit)
        if not self.options.short_side:
            return decode_image(data, path)
        image = decode_small(data, path, self.options.short_side)
        if self.cached_bytes + image.nbytes <= self.options.cache_bytes:
            self.cached_bytes += image.nbytes
            self.cache[index] = image
        return image

    def __getstate__(self) -> dict:
        """Without the images in memory: each reading process has its own."""
        return self.__dict__ | {"cache": {}, "cached_bytes": 0}

    def _leave_out(self, path: str, reason: str) -> None:
        if path not in self.unreadable:
            self.unreadable[path] = reason
            count = f"{len(self.unreadable)} of {len(self.paths)}"
            print(f"{self.name}: left out ({count}): {reason}", file=sys.stderr, flush=True)

    def __repr__(self) -> str:
        return self.name


def spec(*, multi_label: bool = False, **_) -> Example:
    """An example of zeros."""
    example = {"image": np.zeros((fake.IMAGE_SIZE, fake.IMAGE_SIZE, 3), np.uint8)}
    example |= {"row": np.int32(0), "readable": np.bool_(True)}
    if multi_label:
        return {**example, "labels": np.zeros(1, np.float32)}
    return {**example, "label": np.int32(0)}


def check_options(**options) -> None:
    """Raises ConfigError where an option is unknown or its value not allowed; opens nothing."""
    check_fields(Options, options, "config.data.source_options")


# --- Lists ---------------------------------------------------------------------------------------


def existing_dir(data_dir: str) -> pathlib.Path:
    """The path of `config.data.data_dir`.

    Raises:
      ValueError: it is empty.
      FileNotFoundError: nothing is there.
    """
    if not data_dir:
        raise ValueError("config.data.data_dir is empty: set it to the folder of the images")
    path = user_path(data_dir)
    if not path.exists():
        raise FileNotFoundError(f"config.data.data_dir={data_dir!r} does not exist")
    return path


def names_of_part(split: str) -> Sequence[str]:
    """The names under which a part is looked for: 'val' is also validation, valid or test."""
    return EVALUATION if split == EVALUATION[0] else (split,)


def check_classes(
    classes: Sequence[str],
    trained: Iterable[str],
    evaluated: Iterable[str],
    where: object,
    *,
    fewest: int = 2,
) -> None:
    """Refuses a set of too few classes, and classes that no training image has.

    Args:
      classes: all names.
      trained: names in training; none where nothing is trained.
      evaluated: names in the evaluation.
      where: the set.
      fewest: how many classes there must be.

    Raises:
      ValueError: names the classes.
    """
    if len(classes) < fewest:
        raise ValueError(f"{where} has {len(classes)} classes, [{some(classes)}], not {fewest}")
    trained = set(trained)
    if trained and (alone := in_order(set(evaluated) - trained)):
        raise ValueError(
            f"{where}: no training image has the class {some(alone)} of the evaluation: remove it "
            "there or add images to train on"
        )


def hold_out(items: Sequence[Item], options: Options, where: object) -> list[bool]:
    """Whether each file is held out for the evaluation: `eval_fraction` of each class.

    Holds out the files with the smallest hashes of seed and path: the same on every machine, and
    nearly the same when files are added. With `multi_label` the fraction is that of all files.

    Raises:
      ValueError: a class has a single image, which cannot be in both parts.
    """
    groups = collections.defaultdict(list)
    for index, item in enumerate(items):
        groups[() if options.multi_label else item.labels].append(index)
    held = [False] * len(items)
    for labels, members in groups.items():
        if options.eval_fraction < 1 and len(members) < 2:
            raise ValueError(
                f"{where}: the class {some(labels)} has one image, which cannot be both in "
                "training and in the evaluation: add more, or give the parts folders of their own"
            )
        members.sort(
            key=lambda index: digest(
                f"{options.split_seed}/{items[index].path}".encode("utf-8", "surrogateescape")
            )
        )
        count = round(options.eval_fraction * len(members))
        if options.eval_fraction < 1:
            count = min(max(count, 1), len(members) - 1)
        for index in members[:count]:
            held[index] = True
    return held


def take_part(
    items: Sequence[Item], split: str, lists: Sequence[str], options: Options, where: object
) -> tuple[list[Item], str]:
    """The files of one half of a set without parts, and a line about its division."""
    training = len(lists) > 1 and split == lists[0]
    held = hold_out(items, options, where)
    part = [item for item, out in zip(items, held, strict=True) if out != training]
    share = f"{1 - options.eval_fraction if training else options.eval_fraction:.0%}"
    return part, f"{share} by seed {options.split_seed}"


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted with numbers as numbers."""
    return sorted(names, key=natural_key)


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(map(repr, names[:count])) + more
