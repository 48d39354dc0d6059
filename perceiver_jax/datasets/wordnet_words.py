"""Glosses of WordNet with the words that a masked model is asked for.

Whole words are hidden, as in the masked pretraining of Perceiver IO, but the answer is one of 2,048
words instead of bytes: what a text is about says more about its words than about their spelling.
"""

import re
from typing import Literal

import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.wordnet_files import read_split
from perceiver_jax.datasets.wordnet_vocabulary import WORDS

WORD = re.compile(rb"[a-z]+")
NUMBER = {word.encode(): number for number, word in enumerate(WORDS)}


class Words:
    """Glosses `text` with `words` int `[n, 3]`, of which the transform `hide_one` hides one.

    A row of `words` is where a word starts and stops, and its number in `label_names`. Glosses
    without such a word are left out.

    Attributes:
      label_names: the words, in the order of their numbers.
    """

    in_memory = True
    label_names = WORDS

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        speech: tuple[Literal["noun", "verb", "adj", "adv"], ...] = ("noun",),
    ):
        """Reads the files.

        Args:
          split: 'train', 'validation', 'test' or 'all', the tenths of `Subjects`.
          data_dir: the folder of the database.
          speech: the parts of speech.

        Raises:
          FileNotFoundError: a file is not there; says where to get it.
          ValueError: an unknown split, a line that is not of this format, or no gloss with a word.
        """
        self.name = f"wordnet[{split}] words of {' '.join(speech)}"
        self.items = []
        for synset in read_split(data_dir, speech, split):
            found = [
                (*match.span(), NUMBER[match[0]])
                for match in WORD.finditer(synset.gloss.lower())
                if match[0] in NUMBER
            ]
            if found:
                self.items.append((synset.gloss, np.array(found, np.int32)))
        if not self.items:
            raise ValueError(f"{self.name}: no gloss has one of the {len(WORDS)} words")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        text, words = self.items[index]
        return {"text": text, "words": words}

    def __repr__(self) -> str:
        return self.name
