"""The files that `--input` names: one, a folder or a pattern; for pairs two of each."""

import collections
import glob
import os
import pathlib
from collections.abc import Sequence

from perceiver_jax.datasets.images import some
from perceiver_jax.files.image import IMAGES, natural_key
from perceiver_jax.files.mesh import MESHES
from perceiver_jax.files.paths import read_text, user_path, walk_files

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv")
ENDINGS = {
    "image": IMAGES,
    "sound": (".wav",),
    "video": VIDEOS,
    "text": (".txt",),
    "mesh": (*MESHES, ".npy"),
}


def find_inputs(
    values: Sequence[str], kinds: Sequence[str], *, needed: int | None = None
) -> list[tuple[str, ...]]:
    """The files of each input.

    Args:
      values: of `--input`. Where an input has several files, each is `FILE,FILE`, or two folders
        or patterns whose files of one name belong together; a pair may also be two values.
      kinds: of the files of an input; the last word is that of `ENDINGS`, such as `left image`.
      needed: how many files an input has at least, if not all kinds.

    Raises:
      ValueError: nothing is there, a file lacks its partner, or an input is named twice.
    """
    needed = needed or len(kinds)
    if len(values) == len(kinds) == 2 and not any("," in value for value in values):
        second = values[1].lower().endswith(ENDINGS[kinds[1].split()[-1]])
        values = [",".join(values)] if needed == 2 or second else values
    found = []
    for value in values:
        parts = value.split(",") if len(kinds) > 1 else [value]
        if not needed <= len(parts) <= len(kinds):
            raise ValueError(
                f"--input={value} names {len(parts)} file; an input of this model has "
                f"{len(kinds)}, {' and '.join(kinds)}: --input=FILE,FILE"
            )
        found += _together([_files(*pair) for pair in zip(parts, kinds, strict=False)], parts)
    if twice := [x for x, count in collections.Counter(found).items() if count > 1]:
        raise ValueError(f"--input names {','.join(twice[0])} twice")
    return found


def find_texts(values: Sequence[str]) -> list[tuple[str, str]]:
    """The texts, each with its name: a .txt file's path, or the text itself.

    What holds `[MASK` or `[SEP]` is a text. Else it is a file, a folder or a pattern if it ends in
    .txt or is there.

    Raises:
      ValueError: a file that is not there or not UTF-8.
    """
    texts = []
    for value in values:
        marked = "[MASK" in value or "[SEP]" in value
        if not marked and (value.lower().endswith(".txt") or _exists(value)):
            paths = _files(value, "text").values()
            texts += [(path, read_text(path).removesuffix("\n")) for path in paths]
        else:
            texts.append((value, value))
    return texts


def output_folders(inputs: Sequence[tuple[str, ...]], output: pathlib.Path) -> list[pathlib.Path]:
    """Where the results of each input go: of several, a folder in `output` named as a first file.

    Raises:
      ValueError: two inputs have one name.
    """
    if len(inputs) == 1:
        return [output]
    names: dict[str, str] = {}
    for path, *_ in inputs:
        name = pathlib.PurePath(path).stem
        if name in names:
            raise ValueError(
                f"the results of {names[name]} and {path} have one name, {name!r}: rename one, or "
                "give each a call of its own with another --output"
            )
        names[name] = path
    return [output / name for name in names]


def check_output(path: os.PathLike) -> None:
    """Refuses a folder that cannot be made or written into; makes nothing.

    Raises:
      OSError: names it.
    """
    if "://" in os.fspath(path):
        return
    path = pathlib.Path(path)
    place = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"--output={path}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"--output={path}: {place} is not writable")


def _exists(value: str) -> bool:
    try:
        return user_path(value).exists()
    except (OSError, ValueError):  # a text that is too long for a path, or an address of nothing
        return False


def _files(value: str, kind: str) -> dict[str, str]:
    """The paths that a value names, by their names without endings, in natural order."""
    if not value:
        raise ValueError("--input is empty: write a file, a folder or a pattern")
    _, _, kind = kind.rpartition(" ")
    path, endings = user_path(value), ENDINGS[kind]
    if path.is_dir():
        names = [name for name, _ in walk_files(path) if name.lower().endswith(endings)]
        if (
            kind == "video"
            and not names
            and any(p.suffix.lower() in IMAGES for p in path.iterdir())
        ):
            return {path.name: value}  # the frames of one video
        if not names:
            raise ValueError(f"--input={value} is a folder without {kind} ({' '.join(endings)})")
        paths = {name: os.fspath(path / name) for name in names}
    elif path.exists():
        return {path.stem: value}
    elif glob.has_magic(value):
        parts = path.parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        base = path.parents[len(parts) - fixed - 1] if fixed else pathlib.Path()
        matches = base.glob(os.path.join(*parts[fixed:]))
        folders = kind == "video"  # the frames of one
        paths = {os.fspath(p): os.fspath(p) for p in matches if folders or not p.is_dir()}
        if not paths:
            raise ValueError(f"no file matches --input={value}")
        start = len(os.path.commonpath([os.path.dirname(p) for p in paths]))
        paths = {name[start:].lstrip("/"): p for name, p in paths.items()}
    else:
        if "," in value:
            raise ValueError(
                f"{value} does not exist: an input of this model is one file; --input may repeat"
            )
        raise ValueError(
            f"{value} does not exist: write {'an' if kind == 'image' else 'a'} {kind} file "
            f"({' '.join(endings)}), a folder or a pattern"
        )
    ordered = sorted(paths, key=natural_key)
    named = {name.rpartition(".")[0] or name: paths[name] for name in ordered}
    # Of two files that differ in their endings only, both are inputs.
    return named if len(named) == len(paths) else {name: paths[name] for name in ordered}


def _together(lists: Sequence[dict[str, str]], parts: Sequence[str]) -> list[tuple[str, ...]]:
    """The files of one name in each list; where each list is one file, these."""
    if all(len(paths) == 1 for paths in lists):
        return [tuple(path for paths in lists for path in paths.values())]
    for paths, part in zip(lists, parts, strict=True):
        for others in lists:
            if alone := [path for name, path in others.items() if name not in paths]:
                raise ValueError(
                    f"--input={','.join(parts)}: in {part} no file is named as {some(alone)}"
                )
    return [tuple(paths[name] for paths in lists) for name in lists[0]]
