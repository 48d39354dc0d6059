"""Optical flow and disparity in colours, also beside their truth."""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure

from perceiver_jax.plots.images import show_image


def field_grid(
    frames: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    prediction: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    occluded: Sequence[np.ndarray] | None = None,
) -> Figure:
    """Flow or disparity, one row per pair: images, truth, prediction, error, occlusion, the key.

    Truth and prediction of a row have the same scale, which the key shows: the colour wheel of
    `flow_colours` with its radius in pixels, or a bar of disparities. Unknown truth and error are
    grey.

    Args:
      frames: uint8 `[2, H, W, 3]` of each pair; sizes may differ between pairs.
      truth, prediction: `[H, W, 2]` or `[H, W, 1]`.
      valid: bool `[H, W]`, where the truth is known.
      occluded: bool `[H, W]`, or None where nothing is known of it.
    """
    flow = truth[0].shape[-1] == 2
    names = ("first", "second") if flow else ("left", "right")
    names = [*names, "truth", "prediction", "error", *["occluded"] * (occluded is not None), "key"]
    aspect = np.mean([x.shape[1] / x.shape[2] for x in frames])
    figure = Figure(
        figsize=(2.4 * len(names), (2.4 * aspect + 0.3) * len(frames) + 0.2), layout="constrained"
    )
    grid = figure.subplots(len(frames), len(names), squeeze=False)
    for row, axes in enumerate(grid):
        known = valid[row]
        lengths = np.linalg.norm(truth[row], axis=-1)[known]
        largest = max(float(np.percentile(lengths, 99)) if lengths.size else 0.0, 1.0)
        lowest = 0.0 if flow or not known.any() else min(float(truth[row][known].min()), 0.0)
        if flow:
            paint = functools.partial(flow_colours, full_colour=largest)
        else:
            paint = functools.partial(disparity_colours, low=lowest, high=largest)
        error = np.linalg.norm(prediction[row] - truth[row], axis=-1)
        panels = dict(zip(names, frames[row], strict=False))
        panels["truth"] = _grey_out(paint(truth[row]), known)
        panels["prediction"] = paint(prediction[row])
        panels["error"] = _grey_out(
            disparity_colours(error[..., None], low=0.0, high=largest), known
        )
        if occluded is not None:
            panels["occluded"] = _grey_out(np.uint8(255 * occluded[row])[..., None], known)
        for axis, (name, panel) in zip(axes, panels.items(), strict=False):
            show_image(axis, panel)
            mean = f" {error[known].mean():.2f} px" if name == "error" and known.any() else ""
            axis.set_title(name + mean, fontsize=9)
        if flow:
            _draw_wheel(axes[-1], largest)
        else:
            _draw_bar(axes[-1], lowest, largest)
    return figure


def flow_colours(flow: np.ndarray, *, full_colour: float = 24.0) -> np.ndarray:
    """A picture of a flow: hue is its direction (red: right), saturation its length.

    Args:
      flow: `[H, W, 2]`, right and down.
      full_colour: pixels of displacement at and above which the colour is full; 0 is white.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    angle = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi)
    hue = np.minimum(angle / (2 * np.pi) * 180, 179)  # OpenCV's half degrees
    saturation = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / full_colour * 255, 0, 255)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def disparity_colours(disparity: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """`[H, W, 1]` from `low` (dark) to `high` (bright) -> uint8 `[H, W, 3]`."""
    grey = np.clip((disparity[..., 0] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def _grey_out(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known[..., None], picture, 128).astype(np.uint8)


def _draw_wheel(axes, radius: float) -> None:
    """The colours of all flows up to `radius` pixels, each at its own place around the centre."""
    side = np.linspace(-radius, radius, 101)
    flow = np.stack(np.meshgrid(side, side), axis=-1)  # x to the right, y down, like an image
    inside = np.linalg.norm(flow, axis=-1) <= radius
    wheel = np.where(inside[..., None], flow_colours(flow, full_colour=radius), 255)
    show_image(axes, wheel.astype(np.uint8))
    axes.set_title(f"radius {radius:.3g} px", fontsize=9)


def _draw_bar(axes, low: float, high: float) -> None:
    """The colours of all disparities, from the bottom up."""
    column = np.linspace(high, low, 101)[:, None, None] * np.ones((1, 12, 1))
    show_image(axes, disparity_colours(column, low=low, high=high))
    axes.set_title(f"{low:.3g} to {high:.3g} px", fontsize=9)
