"""Random-dot stereograms of other kinds than those of training: what a run sees in them.

The curve is the error against interocular correlation (Read et al. 2011); beside it are the
controls of vision science. For scale each has the best constant and block matching.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

CORRELATIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
CONTROLS = {
    "anticorrelated": {"reversed": 1.0},
    "half-matched": {"reversed": 0.5},
    "left eye alone": {"eyes": "left"},
    "left eye twice": {"eyes": "left_twice"},
    "eyes swapped": {"eyes": "swapped"},
    "1 row lower": {"vertical": 1},
    "2 rows lower": {"vertical": 2},
}


def measure(
    load: Callable[[Mapping[str, Any]], Any],
    predict: Callable[[dict[str, np.ndarray]], np.ndarray],
    *,
    count: int,
    disparity: tuple[float, float],
) -> list[dict[str, Any]]:
    """One row for each correlation and control.

    Args:
      load: options of the source, beside those of training, to a source of stereograms.
      predict: a batch of examples to disparities `[B, H, W, 1]`.
      count: how many stereograms of each kind.
      disparity: (lowest, highest) in pixels, that block matching searches.

    Returns:
      Rows of `condition`, `correlation` and mean absolute errors in pixels over valid pixels:
      `model`, `block_matching`, `constant` (the median of the truth); and `slope`, of the model's
      answer over the truth: 1 is right, 0 knows nothing, below 0 is depth reversed.
    """
    conditions = {f"correlation {c:g}": {"correlation": c} for c in CORRELATIONS} | CONTROLS
    rows = []
    for name, options in conditions.items():
        source = load(options)
        examples = [source[i] for i in range(min(count, len(source)))]
        batch = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
        valid = batch["valid"]
        truth, answer = batch["field"][..., 0][valid], predict(batch)[..., 0][valid]
        matched = np.stack([block_matching(frames, *disparity) for frames in batch["frames"]])
        rows.append(
            {
                "condition": name,
                "correlation": options.get("correlation", ""),
                "model": float(np.abs(answer - truth).mean()),
                "block_matching": float(np.abs(matched[valid] - truth).mean()),
                "constant": float(np.abs(np.median(truth) - truth).mean()),
                "slope": float(np.cov(truth, answer)[0, 1] / truth.var()),
            }
        )
    return rows


def block_matching(
    frames: np.ndarray, lowest: float, highest: float, *, window: int = 7
) -> np.ndarray:
    """The whole disparity of least absolute difference in a square around each left pixel.

    Args:
      frames: uint8 `[2, H, W, C]`, left and right; beyond its border a view goes on as it ends.
      lowest, highest: pixels, searched in steps of one.

    Returns:
      float32 `[H, W]`.
    """
    left, right = frames[..., 0].astype(np.float32)
    width, searched = left.shape[1], np.arange(round(lowest), round(highest) + 1)
    costs = []
    for disparity in searched:
        columns = np.clip(np.arange(width) - disparity, 0, width - 1)
        costs.append(cv2.boxFilter(np.abs(left - right[:, columns]), -1, (window, window)))
    return searched[np.argmin(costs, axis=0)].astype(np.float32)
