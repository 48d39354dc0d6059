"""Psychometric test: a run's errors on kinds of random-dot stereograms it was not trained on.

The curve is the error against interocular correlation (Read et al. 2011); beside it are the
controls of vision science. Each is compared with the best constant and three matchers: textbook
block matching, and OpenCV's semi-global and block matching.
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
      load: makes a source of stereograms of options, which it adds to those of training.
      predict: a batch of examples -> disparities `[B, H, W, 1]`.
      count: how many stereograms of each kind.
      disparity: (lowest, highest) in pixels, the range that the matchers search.

    Returns:
      Rows of `condition`, `correlation` and mean absolute errors in pixels over valid pixels:
      `model`, each of `MATCHERS`, `constant` (the median of the truth); and `slope`, of the model's
      prediction over the truth: 1 is right, 0 is no depth, below 0 is reversed depth.
    """
    conditions = {f"correlation {c:g}": {"correlation": c} for c in CORRELATIONS} | CONTROLS
    rows = []
    for name, options in conditions.items():
        source = load(options)
        examples = [source[i] for i in range(min(count, len(source)))]
        batch = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
        valid = batch["valid"]
        truth, answer = batch["field"][..., 0][valid], predict(batch)[..., 0][valid]
        errors = {"model": float(np.abs(answer - truth).mean())}
        for matcher, match in MATCHERS.items():
            matched = np.stack([match(frames, *disparity) for frames in batch["frames"]])
            errors[matcher] = float(np.abs(matched[valid] - truth).mean())
        rows.append(
            {
                "condition": name,
                "correlation": options.get("correlation", ""),
                **errors,
                "constant": float(np.abs(np.median(truth) - truth).mean()),
                "slope": float(np.cov(truth, answer)[0, 1] / truth.var()),
            }
        )
    return rows


def block_matching(
    frames: np.ndarray, lowest: float, highest: float, *, window: int = 7
) -> np.ndarray:
    """The integer disparity of least absolute difference in a square around each left pixel.

    Args:
      frames: uint8 `[2, H, W, 3]`, left and right; border pixels are repeated outside.
      lowest, highest: pixels; the search goes in steps of one.

    Returns:
      float32 `[H, W]`.
    """
    left, right = (grey.astype(np.float32) for grey in _grey(frames))
    width, searched = left.shape[1], np.arange(round(lowest), round(highest) + 1)
    costs = []
    for disparity in searched:
        columns = np.clip(np.arange(width) - disparity, 0, width - 1)
        costs.append(cv2.boxFilter(np.abs(left - right[:, columns]), -1, (window, window)))
    return searched[np.argmin(costs, axis=0)].astype(np.float32)


def semi_global_matching(frames: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """OpenCV's StereoSGBM (Hirschmueller 2008) in all 8 directions, blocks of 3, in steps of 1/16.

    Its consistency checks are off, so that most pixels get a value. Blocks of 3 are its best in
    stereograms of 24 x 24. Arguments and result as of `block_matching`.
    """
    first, count = _searched(lowest, highest)
    matcher = cv2.StereoSGBM_create(
        minDisparity=first,
        numDisparities=count,
        blockSize=3,
        P1=8 * 3**2,  # OpenCV's own proposal for one channel
        P2=32 * 3**2,
        disp12MaxDiff=-1,
        preFilterCap=63,
        uniquenessRatio=0,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    return _opencv(matcher, frames, lowest, highest)


def opencv_block_matching(frames: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """OpenCV's StereoBM, blocks of 7, without consistency checks.

    It searches at least 16 disparities; results above the highest count as the highest.
    Arguments and result as of `block_matching`.
    """
    first, count = _searched(lowest, highest)
    matcher = cv2.StereoBM_create(numDisparities=-(-count // 16) * 16, blockSize=7)
    matcher.setMinDisparity(first)
    matcher.setTextureThreshold(0)
    matcher.setUniquenessRatio(0)
    return _opencv(matcher, frames, lowest, highest)


def _searched(lowest: float, highest: float) -> tuple[int, int]:
    """The first integer disparity in the range, and how many there are."""
    return round(lowest), round(highest) - round(lowest) + 1


def _opencv(matcher, frames: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Repeats the border pixels of both views, so that the matcher reaches their borders."""
    border = 32
    views = [cv2.copyMakeBorder(x, *[border] * 4, cv2.BORDER_REPLICATE) for x in _grey(frames)]
    found = matcher.compute(*views)[border:-border, border:-border] / np.float32(16)
    return np.clip(found, lowest, highest)


def _grey(frames: np.ndarray) -> list[np.ndarray]:
    """The two views as uint8 `[H, W]`."""
    return [cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in frames]


MATCHERS = {
    "block_matching": block_matching,
    "sgbm": semi_global_matching,
    "bm": opencv_block_matching,
}
