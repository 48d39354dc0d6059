"""Transforms of sequences of ids: of bytes or of an image's values, and the window to learn from.

    "byte_ids(ends=True) | crop_ids(8193, 1025) | keep('ids', 'num_ids', 'num_scored')"
    "raster_ids | last_ids(12289) | keep('ids', 'num_ids', 'num_scored')"

They make `ids` uint16 [length], 0 behind the end; `num_ids` int32, how many there are; `num_scored`
int32, how many of the last are to be predicted. Id 3 + b is byte b; the first three are reserved.

Reference: Perceiver AR's released code (vocabulary, crops).
"""

import numpy as np

from perceiver_jax.config_types import Size
from perceiver_jax.data.transforms import Example, transform

PAD, EOS, SOS = range(3)
NUM_RESERVED = 3
NUM_IDS = NUM_RESERVED + 256


def encode(data: bytes) -> np.ndarray:
    """The ids of bytes, uint16 `[number of bytes]`."""
    return np.frombuffer(data, np.uint8).astype(np.uint16) + np.uint16(NUM_RESERVED)


def decode(ids: np.ndarray) -> bytes:
    """The bytes of ids; reserved ones are dropped."""
    ids = np.asarray(ids)
    return (ids[ids >= NUM_RESERVED] - NUM_RESERVED).astype(np.uint8).tobytes()


@transform
def byte_ids(example: Example, rng: np.random.Generator, ends: bool = False) -> Example:
    """Makes `ids` of the bytes `text`; with `ends`, SOS before the first and EOS behind the last.

    All are to be predicted, or the last `num_new` where the source says so.
    """
    del rng
    ids = encode(example["text"])
    if ends:
        ids = np.concatenate([[SOS], ids, [EOS]]).astype(np.uint16)
    return {**example, "ids": ids, "num_scored": np.int32(example.get("num_new", len(ids)))}


@transform
def raster_ids(example: Example, rng: np.random.Generator) -> Example:
    """Makes `ids` of `image` uint8 [H, W, C]: SOS, then row by row the channels of each pixel."""
    del rng
    ids = np.concatenate([[SOS], encode(np.ascontiguousarray(example["image"]).tobytes())])
    return {**example, "ids": ids.astype(np.uint16), "num_scored": np.int32(len(ids))}


@transform
def crop_ids(example: Example, rng: np.random.Generator, length: Size, least: Size) -> Example:
    """A random window of `length` ids, of which a random number from `least` on is kept.

    The latents are at the end of what is kept, so in time they are at every place of a window. A
    sequence of fewer than `least` ids is kept whole.
    """
    ids = example["ids"]
    start = int(rng.integers(max(len(ids) - length, 0) + 1))
    ids = ids[start : start + length]
    if len(ids) > least:
        ids = ids[: int(rng.integers(least, len(ids) + 1))]
    return _window(example, ids, length)


@transform
def last_ids(example: Example, rng: np.random.Generator, length: Size) -> Example:
    """The last `length` ids; a shorter sequence is padded at its end."""
    del rng
    return _window(example, example["ids"][-length:], length)


def _window(example: Example, ids: np.ndarray, length: int) -> Example:
    count = len(ids)
    return {
        **example,
        "ids": np.pad(ids, (0, length - count), constant_values=PAD),
        "num_ids": np.int32(count),
        "num_scored": np.int32(min(example["num_scored"], count)),
    }
