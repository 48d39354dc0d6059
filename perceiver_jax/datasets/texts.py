"""Text as bytes: local files as one stream, or the documents of a TFDS dataset, joined.

An example is `text`, any number of bytes; `data.text_transforms` cuts windows out of it.
"""

import bisect
import codecs
import functools
import itertools
import pathlib
from typing import Any

import numpy as np
from etils import epath

from perceiver_jax.config_types import Count, Size, Whole
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.files.paths import check_utf8, user_path


class Texts:
    """Files one after another, sorted by path, as one stream of bytes in overlapping pieces.

    Piece i begins at byte i `length` and has 2 `length` bytes, unless the stream ends before. So
    every window of `length` bytes lies within a piece, and the first `length` bytes of all pieces
    are the whole text once.

    With `context` a piece is instead its own `length` bytes behind so many of those before them.
    `num_new` says how many are its own: all pieces' own bytes are the whole text once.
    """

    in_memory = False

    def __init__(
        self, split: str, data_dir: str, *, length: Size, context: Whole = 0, utf8: bool = True
    ):
        """Reads the sizes of the files and the beginning of each.

        Args:
          split: which files of the folder, as a pattern: 'train.txt', 'train/**/*.txt'.
          data_dir: the folder.
          length: bytes of the longest window that transforms will cut out; with `context`, bytes
            of a piece's own.
          context: bytes before these, to predict them from; 0 is none.
          utf8: whether the files must be UTF-8; else they may be any bytes.

        Raises:
          FileNotFoundError: no such file.
          ValueError: they are all empty, or one is not UTF-8; a `length` below 1.
        """
        self.name, self.length, self.context = f"texts[{split}]", length, context
        self.utf8 = utf8
        if length < 1:
            raise ValueError(f"{self.name}: source_options.length={length} is below 1 byte")
        if not data_dir:
            raise FileNotFoundError(
                f"{self.name}: config.data.data_dir is not set: name a folder with text files, and "
                "those to train and to evaluate on, as config.data.train_split='train/*.txt' and "
                "config.data.eval_split='test/*.txt'"
            )
        folder = user_path(data_dir)
        if "://" in data_dir and "**" in split:
            raise ValueError(f"{self.name}: '**' matches no folders in a bucket: write one * each")
        self.paths = sorted(path for path in folder.glob(split) if path.is_file())
        if not self.paths:
            raise FileNotFoundError(f"{self.name}: no file of {data_dir} matches {split!r}")
        self.starts = [_start_of_text(path) if utf8 else 0 for path in self.paths]
        sizes = [_size(path) - s for path, s in zip(self.paths, self.starts, strict=True)]
        self.ends = list(itertools.accumulate(sizes))
        if not self.ends[-1]:
            raise ValueError(f"{self.name}: all files of {data_dir} that match are empty")

    def __len__(self) -> int:
        return (self.ends[-1] + self.length - 1) // self.length

    def __getitem__(self, index: int) -> Example:
        own = start = index * self.length
        stop = start + (1 if self.context else 2) * self.length
        start, stop = max(start - self.context, 0), min(stop, self.ends[-1])
        count = {"num_new": np.int32(stop - own)} if self.context else {}
        parts, number = [], bisect.bisect_right(self.ends, start)
        while start < stop:
            end = min(stop, self.ends[number])
            begin = self.ends[number - 1] if number else 0
            with self.paths[number].open("rb") as file:
                file.seek(self.starts[number] + start - begin)
                parts.append(file.read(end - start))
            if self.utf8:
                check_utf8(parts[-1], self.paths[number])
            if len(parts[-1]) != end - start:
                raise ValueError(f"{self.paths[number]} became shorter since the run began")
            start, number = end, number + 1
        return {"text": b"".join(parts), **count}

    def __repr__(self) -> str:
        return self.name


def _start_of_text(path: pathlib.Path) -> int:
    """How many bytes of a byte order mark to leave out; refuses files that are not UTF-8."""
    with path.open("rb") as file:
        beginning = file.read(4096)
    check_utf8(beginning, path)
    return len(codecs.BOM_UTF8) if beginning.startswith(codecs.BOM_UTF8) else 0


def _size(path: pathlib.Path) -> int:
    return epath.Path(path).stat().length


check_options = functools.partial(check_reader, Texts)


def load(split: str, *, data_dir: str = "", **options) -> Texts:
    """Opens the files of the folder `data_dir` that match `split`; `options` are of `Texts`."""
    return Texts(split, data_dir, **options)


def spec(**_) -> Example:
    """An example of fake text."""
    return {"text": fake.TEXT}


class Documents:
    """`join` documents of a source at a time, a blank line between them.

    Perceiver IO joins ten before it cuts, so that short ones leave little padding.
    """

    in_memory = False

    def __init__(self, source: Any, *, field: str = "text", join: Count = 1):
        """`field` of the source's examples is the text."""
        if join < 1:
            raise ValueError(f"{source!r}: source_options.join={join} is below 1 document")
        self.source, self.field, self.join = source, field, join

    def __len__(self) -> int:
        return (len(self.source) + self.join - 1) // self.join

    def __getitem__(self, index: int) -> Example:
        rows = range(index * self.join, min((index + 1) * self.join, len(self.source)))
        return {"text": b"\n\n".join(map(self._text, self.source.__getitems__(list(rows))))}

    def _text(self, example: Example) -> bytes:
        if not isinstance(example.get(self.field), bytes):
            texts = sorted(name for name, value in example.items() if isinstance(value, bytes))
            raise ValueError(
                f"{self.source!r} has no text {self.field!r}: set config.data.source_options.field "
                f"to one of {texts}"
            )
        return example[self.field]

    def __repr__(self) -> str:
        return f"{self.source!r} by {self.join}"
