"""Paints flat layers, each moved by an affine map, with their exact optical flow."""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from perceiver_jax.data.transforms import Example

_SHIFT = 8  # bits of a polygon's sub-pixel vertices


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a scene; maps are 3x3, of homogeneous (x, y) in pixels.

    Attributes:
      outline: [n, 2] corners (x, y) in the first frame; None covers everything.
      texture: uint8 [h, w, 3], mirrored beyond its edges.
      placing: from the first frame to the texture.
      motion: from the first frame to the second.
    """

    outline: np.ndarray | None
    texture: np.ndarray
    placing: np.ndarray
    motion: np.ndarray


def render(layers: Sequence[Layer], size: tuple[int, int], *, backward: bool = False) -> Example:
    """Paints both frames; `field` is the flow, `backward` that of the second to the first."""
    motions = np.stack([layer.motion for layer in layers])  # [layers, 3, 3]
    poses = np.stack([np.broadcast_to(np.eye(3), motions.shape), motions])
    if backward:
        poses = poses[::-1]
    inverses = np.linalg.inv(poses)
    labels = [_labels(layers, maps, size) for maps in poses]
    frames = [_paint(layers, maps, at) for maps, at in zip(inverses, labels, strict=True)]
    change = poses[1] @ inverses[0] - np.eye(3)
    y, x = np.ogrid[: size[0], : size[1]]
    field = _field(change[:, :2].astype(np.float32), labels[0], y, x)
    return {
        "frames": np.stack(frames),
        "field": field,
        "valid": np.ones(size, bool),
        "occluded": _occluded(*labels, x + field[..., 0], y + field[..., 1]),
    }


def _field(change: np.ndarray, labels: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The displacement of each pixel by its layer's map: maps [layers, 2, 3] -> [H, W, 2]."""
    tables = np.zeros((2, 3, 256), np.float32)
    tables[..., : len(change)] = change.transpose(1, 2, 0)
    x, y = x.astype(np.float32), y.astype(np.float32)
    right, down = (
        cv2.LUT(labels, by_x) * x + cv2.LUT(labels, by_y) * y + cv2.LUT(labels, constant)
        for by_x, by_y, constant in tables
    )
    return np.stack([right, down], axis=-1)


def _occluded(labels: np.ndarray, other: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the other frame shows a nearer layer than `labels` at (x, y), or ends short of it."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    there = cv2.remap(other, x, y, cv2.INTER_NEAREST, borderValue=255)
    return there > labels


def _labels(layers: Sequence[Layer], poses: Sequence[np.ndarray], size) -> np.ndarray:
    """Which layer each pixel shows, uint8 [H, W]."""
    labels = np.zeros(size, np.uint8)
    for number, (layer, pose) in enumerate(zip(layers, poses, strict=True)):
        if layer.outline is not None:
            corners = np.rint(apply(pose, layer.outline) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(labels, [corners], number, shift=_SHIFT)
    return labels


def _paint(layers: Sequence[Layer], inverses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Paints a frame, uint8 [H, W, 3]; `inverses` map its pixels to the first frame."""
    frame = np.empty((*labels.shape, 3), np.uint8)
    for number, (layer, inverse) in enumerate(zip(layers, inverses, strict=True)):
        shown = (labels == number).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(shown)
        if not width:
            continue
        box = np.s_[top : top + height, left : left + width]
        from_box = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        to_texture = layer.placing @ inverse @ from_box
        patch = cv2.warpAffine(
            layer.texture,
            to_texture[:2],
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        cv2.copyTo(patch, shown[box], frame[box])
    return frame


def affine(centre: np.ndarray, angle: float, scale: float, shift: np.ndarray) -> np.ndarray:
    """The 3x3 matrix that rotates by `angle` and scales about `centre`, then shifts."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    (x, y), (right, down) = centre, shift
    return np.array(
        [
            [cos, -sin, x + right - cos * x + sin * y],
            [sin, cos, y + down - sin * x - cos * y],
            [0, 0, 1],
        ]
    )


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]
