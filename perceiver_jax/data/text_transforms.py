"""Transforms of text: a window of bytes, and the words to predict.

    "random_window(2048) | hide_words(0.15) | keep('text', 'text_mask', 'hidden')"

They make `text` uint8 [M], `text_mask` bool [M], False on padding, and `hidden` bool [M], the bytes
that the loss is on. `modalities.text` maps bytes to the model's ids.

Reference: Perceiver IO (Jaegle et al. 2022), section 4.1 and app. F.
"""

import re

import numpy as np

from perceiver_jax.config_types import Fraction, Size
from perceiver_jax.data.transforms import Example, transform

WORD = re.compile(rb"\s?\S+")  # with the space before it, as in the released notebook's example
CHARACTER = re.compile(rb"[^\x80-\xbf][\x80-\xbf]*|[\x80-\xbf]+")  # in UTF-8, perhaps cut
LONGEST = 32  # bytes of a word with the space before it; few are longer in alphabetic scripts


@transform
def random_window(example: Example, rng: np.random.Generator, length: Size) -> Example:
    """Cuts a random window of `length` bytes from `text`; a shorter text is padded."""
    text = example["text"]
    start = int(rng.integers(max(len(text) - length, 0) + 1))
    return _window(example, text[start : start + length], length)


@transform
def first_window(example: Example, rng: np.random.Generator, length: Size) -> Example:
    """Cuts the first `length` bytes of `text`; a shorter text is padded."""
    del rng
    return _window(example, example["text"][:length], length)


def _window(example: Example, text: bytes, length: int) -> Example:
    padded = np.frombuffer(text.ljust(length, b"\0"), np.uint8)
    return {**example, "text": padded, "text_mask": np.arange(length) < len(text)}


@transform
def hide_words(example: Example, rng: np.random.Generator, share: Fraction) -> Example:
    """Marks in `hidden` the bytes that a model has to predict: those of whole words.

    A word is a run without white space, with the space before it. A run longer than `LONGEST`
    bytes, as in Chinese, is split into characters, which count as words. Of a window's words the
    fraction `share`, at least one word, is drawn without replacement.
    """
    spans = _words(example["text"][example["text_mask"]].tobytes())
    hidden = np.zeros(example["text"].shape, bool)
    if spans:
        count = max(1, round(share * len(spans)))
        for number in rng.choice(len(spans), count, replace=False):
            hidden[slice(*spans[number])] = True
    return {**example, "hidden": hidden}


def _words(text: bytes) -> list[tuple[int, int]]:
    """(start, stop) of each word, or of each character of a run that is too long for one."""
    spans = []
    for word in WORD.finditer(text):
        if word.end() - word.start() <= LONGEST:
            spans.append(word.span())
        else:
            spans += [found.span() for found in CHARACTER.finditer(text, *word.span())]
    return spans
