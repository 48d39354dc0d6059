"""WordNet 3.0 from its own files: glosses, and the lexicographer file that each belongs to.

    DIR/data.noun, data.verb, data.adj, data.adv     or DIR/dict/, as the archive unpacks

A line of such a file begins with the synset's offset and the number of its lexicographer file
(`noun.animal`, `verb.motion`, ...) and ends with the gloss behind a bar: see the manual page
wndb(5WN), and lexnames(5WN) for the 45 names.

Reference: Fellbaum (1998), WordNet: An Electronic Lexical Database.
"""

import functools
import pathlib
import zlib
from typing import Annotated, Literal

import numpy as np

from perceiver_jax.config_types import Range
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.options import check_reader
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


class WordNet:
    """Glosses `text` with `label`, the number of the lexicographer file among those of `speech`.

    A tenth of the glosses is `validation`, another one `test`, eight are `train`, by a checksum of
    the gloss; so equal glosses are in one split. `all` is all of them.

    Attributes:
      label_names: of the classes, in the order of their numbers: 'noun.Tops', 'noun.act', ...
    """

    in_memory = True

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        speech: tuple[Literal["noun", "verb", "adj", "adv"], ...] = ("noun",),
        share: Annotated[float, Range(0, 1, above=True)] = 1.0,
    ):
        """Reads the files.

        Args:
          split: 'train', 'validation', 'test' or 'all'.
          data_dir: the folder of the database.
          speech: the parts of speech.
          share: of the examples, the same ones whenever they are asked for; a smaller share is part
            of a larger one.

        Raises:
          FileNotFoundError: a file is not there; says where to get it.
          ValueError: an unknown split, or a line that is not of this format.
        """
        if split not in SPLITS:
            raise ValueError(f"wordnet has the splits {[*SPLITS]}, so not {split!r}")
        if not data_dir:
            raise FileNotFoundError(
                f"config.data.data_dir is not set: name WordNet's folder; {OBTAIN}"
            )
        folder = user_path(data_dir)
        folder = folder / "dict" if (folder / "dict").is_dir() else folder
        self.name = f"wordnet[{split}] {' '.join(speech)}"
        numbers = {number: f"{s}.{name}" for s in speech for number, name in FILES[s].items()}
        self.label_names = tuple(numbers[number] for number in sorted(numbers))
        labels = {number: label for label, number in enumerate(sorted(numbers))}
        self.texts, found = [], []
        for part in speech:
            for number, gloss in _read(folder / f"data.{part}", FILES[part]):
                checksum = zlib.crc32(gloss)
                if checksum % 10 in SPLITS[split] and zlib.crc32(gloss, 1) < share * 2**32:
                    self.texts.append(gloss)
                    found.append(labels[number])
        self.labels = np.array(found, np.int32)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Example:
        return {"text": self.texts[index], "label": self.labels[index]}

    def __repr__(self) -> str:
        return self.name


def _read(path: pathlib.Path, numbers) -> list[tuple[int, bytes]]:
    """The number of the lexicographer file and the gloss of every synset."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} of WordNet: {OBTAIN}")
    rows = []
    for count, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line or line.startswith(b"  "):  # the licence
            continue
        head, bar, gloss = line.partition(b" | ")
        number = head[9:11]
        if not bar or not number.isdigit() or int(number) not in numbers or not gloss.strip():
            raise ValueError(
                f"{path}, line {count}: not a synset with a lexicographer file of "
                f"{min(numbers)} to {max(numbers)} and a gloss: {line[:60]!r}"
            )
        rows.append((int(number), gloss.strip()))
    return rows


check_options = functools.partial(check_reader, WordNet)


def load(split: str, *, data_dir: str = "", **options) -> WordNet:
    """Reads the files of `data_dir`; `options` are of `WordNet`."""
    return WordNet(split, data_dir, **options)


def spec(**_) -> Example:
    """An example of fake text."""
    return {"text": fake.TEXT, "label": np.int32(0)}
