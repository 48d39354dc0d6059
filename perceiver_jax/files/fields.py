"""Files that hold a value for each pixel: optical flow."""

import pathlib

import numpy as np

from perceiver_jax.files.image import Path, existing

FLO_MAGIC = 202021.25  # "PIEH" read as a float


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury `.flo` file -> float32 `[H, W, 2]`."""
    data = existing(path).read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != FLO_MAGIC:
        raise ValueError(f"{path} is no .flo file: it does not begin with 'PIEH'")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if len(data) != 12 + 8 * width * height:
        raise ValueError(f"{path} holds {len(data)} bytes, not those of {width} x {height} vectors")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Writes a flow `[H, W, 2]` as Middlebury `.flo`."""
    height, width, _ = flow.shape
    header = np.float32(FLO_MAGIC).astype("<f4").tobytes()
    header += np.array([width, height], "<i4").tobytes()
    pathlib.Path(path).write_bytes(header + np.ascontiguousarray(flow, "<f4").tobytes())
