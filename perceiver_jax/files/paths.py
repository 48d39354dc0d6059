"""Paths, folders and text files of users: `~`, buckets, and encodings other than UTF-8."""

import codecs
import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from etils import epath


def user_path(path: str | os.PathLike) -> pathlib.Path:
    """A path with `~` expanded; an address such as `gs://bucket/folder` is an `epath.Path`."""
    text = os.fspath(path)
    return epath.Path(text) if "://" in text else pathlib.Path(text).expanduser()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a folder to write into, which has the name `path` once all of it is written.

    After an error nothing is left.

    Raises:
      ValueError: `path` is there already, or is in a bucket, where folders cannot be renamed.
    """
    goal = user_path(path)
    if not isinstance(goal, pathlib.Path) or "://" in os.fspath(goal):
        raise ValueError(f"{goal} is in a bucket: write a local folder, then copy it there")
    if goal.exists() or goal.is_symlink():
        raise ValueError(f"{goal} is there already: choose another folder, or delete it")
    goal.parent.mkdir(parents=True, exist_ok=True)
    temporary = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(goal)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def walk_files(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """The files below a folder, at any depth: path within it and bytes, -1 in a bucket.

    Leaves out hidden files and folders. Follows links, except to a folder around them. A broken
    link has 0 bytes.
    """
    if not isinstance(folder, pathlib.Path):
        top = _without_scheme(folder)
        for directory, _, names in folder.walk():
            within = _without_scheme(directory).removeprefix(top).lstrip("/")
            files = (f"{within}/{name}".lstrip("/") for name in names)
            yield from ((path, -1) for path in files if not f"/{path}".count("/."))
        return
    rest = [""]
    while rest:
        within = rest.pop()
        with os.scandir(folder / within) as entries:
            for entry in entries:
                path = f"{within}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    yield path, _size(entry)
                elif not (entry.is_symlink() and _around(entry.path)):
                    rest.append(f"{path}/")


def _without_scheme(path: os.PathLike) -> str:
    """`bucket/folder` of `gs://bucket/folder`, as some libraries name it."""
    return os.fspath(path).rpartition("://")[2].rstrip("/")


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _around(link: str) -> bool:
    """Whether a link leads to a folder that the link is in."""
    place = os.path.realpath(os.path.dirname(link))
    target = os.path.realpath(link)
    return os.path.commonpath([place, target]) == target


def read_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
      ValueError: the file has another encoding; names it.
    """
    data = user_path(path).read_bytes()
    check_utf8(data, path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, f"byte {error.start:,}") from None


def check_utf8(data: bytes, path: str | os.PathLike) -> None:
    """Refuses a piece of a text file that is not UTF-8; it may begin and end within a character.

    Raises:
      ValueError: names the file.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise _not_utf8(path, "it looks like UTF-16 or a binary file")
    start = 0
    while start < min(len(data), 3) and data[start] & 0xC0 == 0x80:  # the rest of a character
        start += 1
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[start:], final=False)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, f"at byte {data[start + error.start]:#x}") from None


def _not_utf8(path: str | os.PathLike, where: str) -> ValueError:
    return ValueError(
        f"{os.fspath(path)} is not UTF-8 text ({where}): save it as UTF-8, for example with "
        "iconv -f UTF-16 (or LATIN1) -t UTF-8"
    )
