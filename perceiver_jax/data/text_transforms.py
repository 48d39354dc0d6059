"""Transforms of text: a window of bytes, and the words to predict; or texts to answer about.

    "random_window(2048) | hide_words(0.15) | keep('text', 'text_mask', 'hidden')"
    "join_texts(512, 'premise', 'hypothesis') | keep('text', 'text_mask', 'marks', 'label')"

They make `text` uint8 [M], `text_mask` bool [M], False on padding, and `hidden` bool [M], the bytes
that the loss is on; `indices` are those asked for, where not all are; `marks` uint8 [M] is CLS or
SEP where no byte is. `modalities.text` maps bytes to the model's ids.

Reference: Perceiver IO (Jaegle et al. 2022), section 4.1 and app. F.
"""

import re

import numpy as np

from perceiver_jax.config_types import Fraction, Size
from perceiver_jax.data.transforms import Example, transform

WORD = re.compile(rb"\s?\S+")  # with the space before it, as in the released notebook's example
CHARACTER = re.compile(rb"[^\x80-\xbf][\x80-\xbf]*|[\x80-\xbf]+")  # in UTF-8, perhaps cut
CLS, SEP = 1, 2  # in `marks`
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


@transform
def query_hidden(example: Example, rng: np.random.Generator, count: Size) -> Example:
    """Asks for `count` bytes alone, in `indices` int32 [count]: the hidden ones, in training.

    They are filled up with bytes that are not hidden. Of more hidden bytes, `count` are drawn.

    Raises:
      ValueError: the window is shorter than `count`.
    """
    hidden = example["hidden"]
    if count > len(hidden):
        raise ValueError(f"query_hidden({count}) asks for more than the window's {len(hidden)}")
    order = np.argsort(hidden + rng.random(len(hidden)))
    return {**example, "indices": np.sort(order[-count:]).astype(np.int32)}


@transform
def hide_one(example: Example, rng: np.random.Generator) -> Example:
    """Writes `_` over one of the `words` int [n, 3] of `text`, and makes its number the `label`.

    A row of `words` is where the word starts and stops in the text, and its number. A text without
    `words`, which somebody asks about, has its `_` already.

    Raises:
      ValueError: there are neither `words` nor a `_`.
    """
    if "words" not in example:
        if b"_" in _bytes(example, "text"):
            return example
        raise ValueError("hide_one: write `_` in the text in place of the word that is asked for")
    start, stop, label = rng.choice(example["words"])
    text = example["text"][:start] + b"_" + example["text"][stop:]
    return {**example, "text": text, "label": np.int32(label)}


def _words(text: bytes) -> list[tuple[int, int]]:
    """(start, stop) of each word, or of each character of a run that is too long for one."""
    spans = []
    for word in WORD.finditer(text):
        if word.end() - word.start() <= LONGEST:
            spans.append(word.span())
        else:
            spans += [found.span() for found in CHARACTER.finditer(text, *word.span())]
    return spans


@transform
def join_texts(
    example: Example,
    rng: np.random.Generator,
    length: Size,
    *fields: str,
    allow_empty: bool = False,
) -> Example:
    """Lays out one text or two as Hugging Face's tokenizer does: `[CLS] A [SEP] B [SEP]`.

    Texts that do not fit into `length` are cut at their ends, the longer one first, until both are
    equally long; then the second and the first in turn. `cut` is True where that happened. A field
    whose value is None is left out.

    Raises:
      ValueError: a field is not there, a text is empty and not allowed to be, or nothing of a text
        would fit.
    """
    del rng
    texts = {name: _bytes(example, name) for name in fields if example.get(name, b"") is not None}
    if not 1 <= len(texts) <= 2:
        raise ValueError(f"join_texts takes one text or two, got {sorted(texts)} of {fields}")
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty and not allow_empty:
        raise ValueError(
            f"the text {empty[0]!r} is empty: leave the example out of the data, or write "
            "join_texts(..., allow_empty=True)"
        )
    budget = length - 1 - len(texts)  # without the marks
    if budget < len(texts):
        raise ValueError(f"join_texts({length}) leaves no byte of each of {sorted(texts)}")
    lengths = _cut([len(text) for text in texts.values()], budget)
    content, marks = bytearray(1), [CLS]
    for text, count in zip(texts.values(), lengths, strict=True):
        content += text[:count] + b"\0"
        marks += [0] * count + [SEP]
    cut = sum(lengths) < sum(map(len, texts.values()))
    padded = np.zeros(length, np.uint8)
    padded[: len(marks)] = marks
    return {**_window(example, bytes(content), length), "marks": padded, "cut": np.bool_(cut)}


def _bytes(example: Example, name: str) -> bytes:
    value = example.get(name)
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        texts = sorted(key for key, found in example.items() if isinstance(found, bytes | str))
        raise ValueError(f"the example has no text {name!r}; its texts are {texts}")
    return value


def _cut(lengths: list[int], budget: int) -> list[int]:
    """The lengths of one text or two, cut so that their sum is at most `budget`."""
    surplus = sum(lengths) - budget
    if surplus <= 0:
        return lengths
    if len(lengths) == 1:
        return [budget]
    first, second = lengths
    longer = min(surplus, abs(first - second))
    rest = surplus - longer  # of two texts that are equally long by now
    first -= longer * (first > second) + rest // 2
    second -= longer * (lengths[1] > lengths[0]) + rest - rest // 2
    return [first, second]


@transform
def as_float(example: Example, rng: np.random.Generator, *fields: str) -> Example:
    """Makes float32 of fields whose type differs between sources, such as classes and scores."""
    del rng
    return {**example, **{name: np.float32(example[name]) for name in fields}}
