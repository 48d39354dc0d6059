"""Paths and texts that users give: `~`, buckets, and files in other encodings than UTF-8."""

import codecs
import os
import pathlib

from etils import epath


def user_path(path: str | os.PathLike) -> pathlib.Path:
    """A path with `~` expanded; an address such as `gs://bucket/folder` is an `epath.Path`."""
    text = os.fspath(path)
    return epath.Path(text) if "://" in text else pathlib.Path(text).expanduser()


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
