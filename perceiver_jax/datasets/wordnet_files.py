"""WordNet 3.0's own files: synsets with their glosses, lexicographer files and hypernyms.

    DIR/data.noun, data.verb, data.adj, data.adv     or DIR/dict/, as the archive unpacks

A line of such a file begins with the synset's offset and the number of its lexicographer file
(`noun.animal`, `verb.motion`, ...), goes on with its words and its pointers to other synsets, and
ends with the gloss behind a bar: see the manual page wndb(5WN), and lexnames(5WN) for the 45 names.

Reference: Fellbaum (1998), WordNet: An Electronic Lexical Database.
"""

import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from perceiver_jax.files.paths import user_path

NOUNS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group "
    "location motive object person phenomenon plant possession process quantity relation shape "
    "state substance time"
)
VERBS = (
    "body change cognition communication competition consumption contact creation emotion motion "
    "perception possession social stative weather"
)
# By part of speech, the numbers and names of the lexicographer files.
FILES = {
    "noun": dict(enumerate(NOUNS.split(), 3)),
    "verb": dict(enumerate(VERBS.split(), 29)),
    "adj": {0: "all", 1: "pert", 44: "ppl"},
    "adv": {2: "all"},
}
SPLITS = {"train": range(2, 10), "validation": range(1, 2), "test": range(1)}  # tenths
SPLITS["all"] = range(10)
OBTAIN = (
    "unpack https://wordnetcode.princeton.edu/3.0/WNdb-3.0.tar.gz there, or install Debian's "
    "wordnet-base and write /usr/share/wordnet"
)


class Synset(NamedTuple):
    """A line of a file.

    Attributes:
      offset: its number.
      file: the number of its lexicographer file.
      gloss: without the spaces around it.
      head: the fields before the gloss, which `hypernyms` reads.
      place: the file and the number of the line.
    """

    offset: int
    file: int
    gloss: bytes
    head: bytes
    place: str


def check_split(split: str) -> None:
    """Raises ValueError where there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"wordnet has the splits {[*SPLITS]}, so not {split!r}")


def read(data_dir: str, speech: str) -> Iterator[Synset]:
    """The synsets of a part of speech, in the order of the file.

    Raises:
      FileNotFoundError: the file is not there; says where to get it.
      ValueError: a line is not of this format.
    """
    if not data_dir:
        raise FileNotFoundError(f"config.data.data_dir is not set: name WordNet's folder; {OBTAIN}")
    folder = user_path(data_dir)
    folder = folder / "dict" if (folder / "dict").is_dir() else folder
    path = folder / f"data.{speech}"
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} of WordNet: {OBTAIN}")
    return _lines(path, FILES[speech])


def read_split(data_dir: str, speech: Iterable[str], split: str) -> Iterator[Synset]:
    """The synsets of several parts of speech whose glosses are in a split, by their checksums.

    Raises:
      FileNotFoundError, ValueError: as of `read`; also ValueError where there is no such split.
    """
    check_split(split)
    for part in speech:
        for synset in read(data_dir, part):
            if zlib.crc32(synset.gloss) % 10 in SPLITS[split]:
                yield synset


def _lines(path: pathlib.Path, numbers) -> Iterator[Synset]:
    for count, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line or line.startswith(b"  "):  # the licence
            continue
        head, bar, gloss = line.partition(b" | ")
        offset, number, place = head[:8], head[9:11], f"{path}, line {count}"
        digits = offset.isdigit() and number.isdigit()
        if not bar or not digits or int(number) not in numbers or not gloss.strip():
            raise ValueError(
                f"{place}: not a synset with a lexicographer file of {min(numbers)} to "
                f"{max(numbers)} and a gloss: {line[:60]!r}"
            )
        yield Synset(int(offset), int(number), gloss.strip(), head, place)


def hypernyms(synset: Synset) -> list[int]:
    """The offsets of its hypernyms, also of those that it is an instance of.

    Raises:
      ValueError: its words or pointers are not those that it announces.
    """
    fields = synset.head.split()
    try:
        begin = 4 + 2 * int(fields[3], 16)  # a word has two fields
        end = begin + 1 + 4 * int(fields[begin])  # a pointer has four
        symbols, offsets = fields[begin + 1 : end : 4], fields[begin + 2 : end : 4]
        if len(fields) < end:
            raise ValueError("too few pointers")
        pairs = zip(symbols, offsets, strict=True)
        return [int(offset) for symbol, offset in pairs if symbol in (b"@", b"@i")]
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{synset.place}: words or pointers are missing: {synset.head[:60]!r}"
        ) from error
