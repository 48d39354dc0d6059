"""The source `wordnet`: questions about WordNet's glosses; for the files see `wordnet_files`.

source_options = {"speech": ("noun",)}                          a gloss and its subject
source_options = {"speech": ("noun",), "question": "relation"}  how two glosses are related
source_options = {"speech": ("noun",), "question": "word"}      which word of a gloss is hidden
"""

from typing import Annotated, Literal

import numpy as np

from perceiver_jax.config_types import Range, Whole, check
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.datasets.wordnet_files import FILES, read_split
from perceiver_jax.datasets.wordnet_relations import Relations
from perceiver_jax.datasets.wordnet_words import Words


class Subjects:
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
        draw: Whole = 0,
    ):
        """Reads the files.

        Args:
          split: 'train', 'validation', 'test' or 'all'.
          data_dir: the folder of the database.
          speech: the parts of speech.
          share: of the examples; a smaller share of the same draw is part of a larger one.
          draw: which examples these are.

        Raises:
          FileNotFoundError: a file is not there; says where to get it.
          ValueError: an unknown split, or a line that is not of this format.
        """
        self.name = f"wordnet[{split}] {' '.join(speech)}"
        numbers = {number: f"{s}.{name}" for s in speech for number, name in FILES[s].items()}
        self.label_names = tuple(numbers[number] for number in sorted(numbers))
        labels = {number: label for label, number in enumerate(sorted(numbers))}
        found = [
            (synset.gloss, labels[synset.file]) for synset in read_split(data_dir, speech, split)
        ]
        kept = np.random.default_rng(draw).random(len(found)) < share
        self.texts = [found[row][0] for row in np.flatnonzero(kept)]
        self.labels = np.array([found[row][1] for row in np.flatnonzero(kept)], np.int32)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Example:
        return {"text": self.texts[index], "label": self.labels[index]}

    def __repr__(self) -> str:
        return self.name


READERS = {"subject": Subjects, "relation": Relations, "word": Words}
Question = Literal["subject", "relation", "word"]


def check_options(*, question: Question = "subject", **options) -> None:
    """Raises ConfigError where an option is unknown or its value not allowed; opens nothing."""
    check(Question, question, "config.data.source_options.question")
    check_reader(READERS[question], **options)


def load(
    split: str, *, data_dir: str = "", question: Question = "subject", **options
) -> Subjects | Relations | Words:
    """Reads the files of `data_dir`; the other options are those of the question's reader."""
    return READERS[question](split, data_dir, **options)


def spec(question: Question = "subject", **_) -> Example:
    """An example of fake text."""
    if question == "word":
        return {"text": fake.TEXT, "words": np.array([[0, len(fake.TEXT), 0]])}
    names = ("text",) if question == "subject" else ("first", "second")
    return dict.fromkeys(names, fake.TEXT) | {"label": np.int32(0)}
