"""Fills in masked bytes of a text."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver_jax.inference.programs import predict, require
from perceiver_jax.modalities import text as text_modality
from perceiver_jax.perceiver import Perceiver

MARKER = re.compile(r"\[MASK(?:\*(\d+))?\]")


class Filled(NamedTuple):
    """The filled `text`, and the `fills` of its spans in their order."""

    text: str
    fills: list[str]


def fill_masks(
    model: Perceiver,
    variables: Any,
    text: str,
    spans: Sequence[tuple[int, int]] | None = None,
) -> Filled:
    """Fills hidden bytes of a text, each with its likeliest value.

    The model does better when a hidden word's leading space is hidden too.

    Args:
      text: where `spans` is None, `[MASK]` stands for one hidden byte and `[MASK*9]` for nine.
      spans: (start, stop) in bytes of the text's UTF-8, whose content is hidden.

    Raises:
      ValueError: nothing is hidden; a span outside the text; a text longer than the model's.
    """
    require(model.output, text_modality.TiedLogits, "fill_masks")
    ids, spans = hide(text, spans, max_length=model.output.max_length)
    padded, mask = text_modality.pad(ids, model.output.max_length)
    batch = {"text": padded[None], "text_mask": mask[None]}
    return fill(ids, spans, likeliest(np.asarray(predict(model, variables, batch))[0]))


def hide(
    text: str, spans: Sequence[tuple[int, int]] | None = None, *, max_length: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The ids of a text, MASK where it is hidden, and the spans that are; see `fill_masks`."""
    if spans is None:
        ids, spans = read_markers(text, max_length=max_length)
    else:
        ids = text_modality.encode(text)
    spans = sorted((int(start), int(stop)) for start, stop in spans)
    if not spans:
        raise ValueError("nothing to fill in: write [MASK] or [MASK*9] in the text, or give spans")
    for start, stop in spans:
        if not 0 <= start < stop <= len(ids):
            raise ValueError(f"span ({start}, {stop}) is not within the text's {len(ids)} bytes")
        ids[start:stop] = text_modality.MASK
    return ids, spans


def fill(ids: np.ndarray, spans: Sequence[tuple[int, int]], guess: np.ndarray) -> Filled:
    """The text of ids with MASK at the spans, filled in by a guess of each, as long or longer."""
    filled = np.where(ids == text_modality.MASK, guess[: len(ids)], ids)
    fills = [text_modality.decode(filled[start:stop]) for start, stop in spans]
    return Filled(text_modality.decode(filled), fills)


def likeliest(logits: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Logits `[..., K]` -> the likeliest ids `[...]`, bytes only, never a reserved id."""
    return logits[..., text_modality.NUM_RESERVED :].argmax(-1) + text_modality.NUM_RESERVED


def read_markers(text: str, *, max_length: int = 2**20) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Text with markers -> its ids, MASK at the markers, and the markers' (start, stop).

    Raises:
      ValueError: a marker hides no byte, or more than `max_length`.
    """
    parts, spans, end, length = [], [], 0, 0
    for found in MARKER.finditer(text):
        before = text_modality.encode(text[end : found.start()])
        digits = (found[1] or "1").lstrip("0") or "0"
        count = int(digits) if len(digits) < 10 else max_length + 1  # Python refuses long numbers
        if not 0 < count <= max_length:
            raise ValueError(
                f"{_shortened(found[0])} must hide at least 1 byte and at most the model's "
                f"{max_length}"
            )
        spans.append((length + len(before), length + len(before) + count))
        parts += [before, np.full(count, text_modality.MASK, np.int32)]
        length, end = spans[-1][1], found.end()
    return np.concatenate([*parts, text_modality.encode(text[end:])]), spans


def _shortened(text: str) -> str:
    return text if len(text) < 40 else f"{text[:30]}...{text[-5:]}"
