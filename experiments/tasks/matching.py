"""Errors of a model's disparities beside those of matchers, on pairs of any kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.tasks.psychometric import MATCHERS

THRESHOLDS = (0.5, 1, 2, 3)  # pixels
LEAST = 5  # disparities that a matcher searches


def errors(
    frames: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    prediction: Sequence[np.ndarray],
) -> list[dict[str, Any]]:
    """One row for the model, each of `MATCHERS` and the best constant of each pair.

    Matchers get the range of the true disparities of a pair, as benchmarks tell it.

    Args:
      frames: uint8 `[2, H, W, 3]` of each pair.
      truth, prediction: `[H, W, 1]`.
      valid: bool `[H, W]`, where the truth is known; the others do not count.

    Returns:
      Rows of `method`, `epe` in pixels and `bad_T`, the share of pixels whose error is above T.
    """
    found = {name: [] for name in ("model", *MATCHERS, "constant")}
    for pair, field, known, guess in zip(frames, truth, valid, prediction, strict=True):
        if not known.any():
            continue
        wanted = field[known][:, 0]
        low, high = float(np.floor(wanted.min())), float(np.ceil(wanted.max()))
        high = max(high, low + LEAST - 1)
        answers = {name: match(pair, low, high)[known] for name, match in MATCHERS.items()}
        answers |= {"model": guess[known][:, 0], "constant": np.median(wanted)}
        for name, answer in answers.items():
            found[name].append(np.abs(answer - wanted))
    rows = []
    for method, parts in found.items():
        values = np.concatenate(parts or [np.full(1, np.nan)])
        bad = {f"bad_{t:g}": float(np.mean(~(values <= t))) for t in THRESHOLDS}
        rows.append({"method": method, "epe": float(values.mean()), **bad})
    return rows
