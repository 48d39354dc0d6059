"""Transforms of text: a window of bytes, and the words to predict.

    "random_window(2048) | hide_words(0.15) | keep('text', 'text_mask', 'hidden')"

They make `text` uint8 [M], `text_mask` bool [M], False on padding, and `hidden` bool [M], the bytes
that the loss is on. `modalities.text` maps bytes to the model's ids.

Reference: Perceiver IO (Jaegle et al. 2022), section 4.1 and app. F.
"""

import re

import numpy as np

from perceiver_jax.data.transforms import Example, transform

WORD = re.compile(rb"\s?\S+")  # with the space before it, as in the released notebook's example


@transform
def random_window(example: Example, rng: np.random.Generator, length: int) -> Example:
    """`length` bytes from anywhere in the `text`; a shorter one is padded."""
    text = example["text"]
    start = int(rng.integers(max(len(text) - length, 0) + 1))
    return _window(example, text[start : start + length], length)


@transform
def first_window(example: Example, rng: np.random.Generator, length: int) -> Example:
    """The first `length` bytes of the `text`; a shorter one is padded."""
    del rng
    return _window(example, example["text"][:length], length)


def _window(example: Example, text: bytes, length: int) -> Example:
    padded = np.frombuffer(text.ljust(length, b"\0"), np.uint8)
    return {**example, "text": padded, "text_mask": np.arange(length) < len(text)}


@transform
def hide_words(example: Example, rng: np.random.Generator, share: float) -> Example:
    """Says in `hidden` which bytes of the window a model has to fill in: whole words.

    A word is what white space delimits, and takes the space before it along; `share` of the words
    of a window, rounded, but at least one, is drawn without replacement.
    """
    words = [m.span() for m in WORD.finditer(example["text"][example["text_mask"]].tobytes())]
    hidden = np.zeros(example["text"].shape, bool)
    if words:
        count = max(1, round(share * len(words)))
        for number in rng.choice(len(words), count, replace=False):
            hidden[slice(*words[number])] = True
    return {**example, "hidden": hidden}
