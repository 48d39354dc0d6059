"""Files that hold a value for each pixel: optical flow, disparity, masks.

A field is float32 `[H, W, C]`: a flow (right, down), a disparity, or any content of a `.pfm`.
Formats that mark known pixels also give `valid`, bool `[H, W]`, and unknown pixels are 0.

OpenCV decodes PNG, PGM and PPM, also with 16 bits. This file reads the other two formats itself.
OpenCV divides the values of a `.pfm` by the header's scale, which is wrong for Middlebury's files.
It reads a `.flo` only from local folders, ignores extra bytes, allocates any size that a damaged
header names, and returns None without a reason for other errors.
"""

import re

import chex
import cv2
import numpy as np

from perceiver_jax.files.image import Path, existing, imdecode
from perceiver_jax.files.paths import user_path

FLO_MAGIC = 202021.25  # "PIEH" read as a float
_GAP = rb"(?:\s|#[^\n]*\n)+"  # white space and comments
_SCALE = rb"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=\s)"
PFM_HEADER = re.compile(_GAP.join([rb"(PF|Pf)", rb"(\d+)", rb"(\d+)", _SCALE]))
PFM_LINE_END = re.compile(rb"[ \t]*(?:#[^\n]*|\r)?\n|\s")  # between the header and the values


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury `.flo` file -> float32 `[H, W, 2]`, as stored: beyond 1e9 a value is unknown."""
    data = existing(path).read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != FLO_MAGIC:
        raise ValueError(f"{path} is no .flo file: it does not begin with 'PIEH' and two sizes")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if min(width, height) < 1 or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{path} holds {len(data)} bytes, not those of {width} x {height} vectors")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Writes a flow `[H, W, 2]` as Middlebury `.flo`."""
    chex.assert_shape(flow, (None, None, 2))
    height, width, _ = flow.shape
    header = np.float32(FLO_MAGIC).astype("<f4").tobytes()
    header += np.array([width, height], "<i4").tobytes()
    user_path(path).write_bytes(header + np.ascontiguousarray(flow, "<f4").tobytes())


def read_pfm(path: Path) -> np.ndarray:
    """A `.pfm` file, grey or colour, of either byte order -> float32 `[H, W, 1 or 3]`.

    Values are as stored: the magnitude of the header's scale is ignored; its sign is the byte
    order. The header may have comments and Windows line ends.
    """
    data = existing(path).read_bytes()
    header = PFM_HEADER.match(data)
    scale = float(header[4]) if header else 0.0
    if not scale:
        raise ValueError(
            f"{path} is no .pfm file: it does not begin with 'Pf' or 'PF', two sizes and a scale "
            f"that is not 0, but with {data[:24]!r}"
        )
    channels = 3 if header[1] == b"PF" else 1
    width, height = int(header[2]), int(header[3])
    begin = len(data) - 4 * width * height * channels
    if not width * height or not PFM_LINE_END.fullmatch(data[header.end() : max(begin, 0)]):
        raise ValueError(
            f"{path} holds {len(data) - header.end() - 1} bytes after its header, not those of "
            f"{width} x {height} x {channels} floats"
        )
    order = "<f4" if scale < 0 else ">f4"
    rows = np.frombuffer(data, order, offset=begin).reshape(height, width, channels)
    return rows[::-1].astype(np.float32)  # the bottom row is first


def write_pfm(path: Path, field: np.ndarray) -> None:
    """Writes `[H, W, 1]` (grey) or `[H, W, 3]` (colour) as little-endian `.pfm`."""
    chex.assert_rank(field, 3)
    height, width, channels = field.shape
    if channels not in (1, 3):
        raise ValueError(f"a .pfm file has 1 or 3 channels, not the {channels} of {field.shape}")
    header = f"{'PF' if channels == 3 else 'Pf'}\n{width} {height}\n-1.0\n".encode()
    user_path(path).write_bytes(header + np.ascontiguousarray(field[::-1], "<f4").tobytes())


def read_kitti_flow(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """KITTI's 16-bit PNG -> (flow `[H, W, 2]`, valid). Steps of 1/64 pixel.

    Reference: the development kit of KITTI 2015 (Menze and Geiger 2015): (red - 2^15) / 64 is the
    displacement to the right, green the one down, blue whether the pixel is valid.
    """
    stored = _read_png(path, np.uint16, 3)
    valid = stored[..., 2] > 0
    flow = (stored[..., :2].astype(np.float32) - 2**15) / 64
    return np.where(valid[..., None], flow, 0), valid


def write_kitti_flow(path: Path, flow: np.ndarray, valid: np.ndarray) -> None:
    """Writes (`[H, W, 2]`, valid) as KITTI's PNG.

    Raises:
      ValueError: a valid flow is not a number or beyond 512 pixels.
    """
    chex.assert_shape(flow, (*valid.shape, 2))
    stored = np.round(np.where(valid[..., None], flow, 0) * 64 + 2**15)
    stored = np.where(valid[..., None], stored, 0)
    _write_png(path, np.concatenate([stored, valid[..., None]], axis=-1), "a flow within +-512")


def read_kitti_disparity(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """KITTI's 16-bit PNG -> (disparity `[H, W, 1]` in steps of 1/256 pixel, valid)."""
    stored = _read_png(path, np.uint16, 1)
    return stored.astype(np.float32) / 256, stored[..., 0] > 0


def write_kitti_disparity(path: Path, disparity: np.ndarray, valid: np.ndarray) -> None:
    """Writes (`[H, W, 1]`, valid) as KITTI's PNG.

    0 means unknown there, so a known disparity below 1/256 is written as 1/256.

    Raises:
      ValueError: a valid disparity is not a number, negative or beyond 255.99 pixels.
    """
    chex.assert_shape(disparity, (*valid.shape, 1))
    known = valid[..., None]
    stored = np.maximum(
        np.round(np.where(known, disparity, 1) * 256), np.where(disparity < 0, -1, 1)
    )
    _write_png(path, np.where(known, stored, 0), "a disparity from 0 to 255.99")


def read_sintel_disparity(path: Path) -> np.ndarray:
    """MPI-Sintel's 8-bit RGB PNG -> disparity `[H, W, 1]`: 4 red + green / 2^6 + blue / 2^14."""
    red, green, blue = np.moveaxis(_read_png(path, np.uint8, 3).astype(np.float32), -1, 0)
    return (red * 4 + green / 2**6 + blue / 2**14)[..., None]


def read_scaled_disparity(path: Path, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Middlebury's PGM, PPM or PNG -> (disparity `[H, W, 1]`, valid: not 0).

    Args:
      scale: grey levels per pixel of disparity: 8 in the set of 2001, 4 in the quarter-size images
        of 2003, 1, 2 and 3 in the full, half and third sizes of 2005 and 2006.
    """
    stored = _read_grey(path)
    return stored[..., None].astype(np.float32) / scale, stored > 0


def read_mask(path: Path) -> np.ndarray:
    """A black-and-white image -> uint8 `[H, W]`, 255 where it is white."""
    mask = _read_grey(path)
    if mask.dtype != np.uint8:
        raise ValueError(f"{path} is {mask.dtype}; a mask has uint8")
    return mask


def _decode(path: Path) -> np.ndarray:
    """Values as stored, `[H, W]` or `[H, W, C]`, blue first."""
    return imdecode(existing(path).read_bytes(), str(path), cv2.IMREAD_UNCHANGED)


def _read_png(path: Path, dtype: type, channels: int) -> np.ndarray:
    """Values as stored, `[H, W, channels]`, red first."""
    image = _decode(path)
    image = image[..., None] if image.ndim == 2 else image[..., ::-1]
    if image.dtype != dtype or image.shape[-1] != channels:
        raise ValueError(
            f"{path} is {image.dtype} with {image.shape[-1]} channels; this format has "
            f"{np.dtype(dtype)} with {channels}"
        )
    return image


def _read_grey(path: Path) -> np.ndarray:
    """`[H, W]`; an image with three equal colours counts as grey, with or without alpha."""
    image = _decode(path)
    if image.ndim == 3:
        if np.any(image[..., :3] != image[..., :1]):
            raise ValueError(f"{path} is a colour image where a grey one is needed")
        image = image[..., 0]
    return image


def _write_png(path: Path, stored: np.ndarray, meaning: str) -> None:
    if not (stored.min() >= 0 and stored.max() <= 2**16 - 1):  # NaN fails both
        raise ValueError(
            f"{path}: 16 bits hold {meaning} pixels, not {stored.min():g} to {stored.max():g} of "
            "their steps; mark other pixels as not valid"
        )
    image = np.ascontiguousarray(stored.astype(np.uint16)[..., ::-1])  # OpenCV has blue first
    user_path(path).write_bytes(cv2.imencode(".png", image)[1].tobytes())
