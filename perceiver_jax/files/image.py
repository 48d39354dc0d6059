"""Image files to arrays and back, always RGB."""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image, ImageOps

from perceiver_jax.files.paths import user_path

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
Path = str | os.PathLike
JPEG = b"\xff\xd8"  # first bytes of a format without transparency
SMALL = 2**15  # bytes of a JPEG that is decoded in a millisecond or so
FAINT = 2**14  # 16-bit images below it hold values of 10, 12 or 14 bits
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_image(path: Path) -> np.ndarray:
    """Any common image -> uint8 `[H, W, 3]`; `decode_image` says how.

    Raises:
      ValueError: there is no readable image, or it is too large.
    """
    return decode_image(existing(path).read_bytes(), str(path))


def decode_image(data: bytes, name: str, channels: int = 3, *, reduce: int = 1) -> np.ndarray:
    """The bytes of an image file -> uint8 `[H, W, channels]`.

    Applies the EXIF orientation, lays transparent pixels on white, and keeps the upper 8 of 16
    bits.

    Args:
      data: of the file: JPEG, PNG, WebP, TIFF, BMP, PPM.
      name: what an error calls the image.
      channels: 3 for RGB, 1 for grey.
      reduce: 2, 4 or 8 makes each side of a JPEG in RGB this many times smaller, in a fraction of
        the time; other images keep their size.

    Raises:
      ValueError: no readable image, too large a one, values that are neither 8 nor 16 bits, or
        16-bit values that would be nearly black.
    """
    reduce = reduce if data.startswith(JPEG) else 1
    colour = {1: cv2.IMREAD_GRAYSCALE, 3: REDUCED[reduce]}[channels]
    image = imdecode(data, name, colour | cv2.IMREAD_ANYDEPTH)
    if channels == 3:  # not IMREAD_COLOR_RGB: with it OpenCV 5 leaves 16-bit TIFFs unset
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.dtype == np.uint16:
        if 0 < image.max() < FAINT:
            raise ValueError(
                f"{name} holds 16-bit values of at most {image.max()}, nearly black: where they "
                "mean 10, 12 or 14 bits, scale them to 16 bits or save the image with 8"
            )
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f"{name} holds {image.dtype} values: save the image with 8 or 16 bits")
    image = image.reshape(*image.shape[:2], channels)
    return image if data.startswith(JPEG) else _on_white(image, data, name)


def imdecode(data: bytes, name: str, flags: int) -> np.ndarray:
    """OpenCV's `imdecode`, whose failures become a ValueError of one line."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" not in str(error):
            raise ValueError(f"{name} is no readable image: {error.err}") from error
        raise ValueError(
            f"{name} is too large an image: OpenCV reads 2^30 pixels, 2^20 a side; shrink it"
        ) from error
    if image is None:
        raise ValueError(
            f"{name} is no readable image: {len(data)} bytes that start with {data[:8]!r}, damaged "
            "or no JPEG, PNG, WebP, TIFF, BMP or PPM"
        )
    return image


def decode_small(data: bytes, name: str, short_side: int) -> np.ndarray:
    """As `decode_image` in RGB, with the shorter side shrunk to `short_side`; smaller ones stay.

    A pixel is the mean of the area that it covers. Large JPEGs are already decoded smaller.
    """
    reduce = 1
    if data.startswith(JPEG) and len(data) > SMALL:
        # Decoding says what is wrong with a damaged file.
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as file:
            reduce = max(k for k in REDUCED if k == 1 or min(file.size) >= k * short_side)
    image = decode_image(data, name, reduce=reduce)
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def check_pixels(data: bytes, name: str, limit: int) -> None:
    """Refuses an image of more than `limit` pixels by its header, before it is decoded.

    Raises:
      ValueError: it is too large. A header without a size passes; decoding reports the error.
    """
    if data.startswith(JPEG) and 8 * 64 * len(data) <= limit:
        return  # a bit at least for each 8x8 block
    try:
        with Image.open(io.BytesIO(data)) as file:
            width, height = file.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large an image; shrink it: {error}") from error
    except Exception:  # Pillow raises many types for damaged files
        return
    if width * height > limit:
        raise ValueError(
            f"{name} is too large an image, {width} x {height} pixels, above {limit:,}: shrink it"
        )


def _on_white(image: np.ndarray, data: bytes, name: str) -> np.ndarray:
    """The image `[H, W, C]`, on white where the file's alpha channel or palette is transparent."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            if not file.has_transparency_data:
                return image
            transparent = ImageOps.exif_transpose(file).convert("RGBA")
    except Image.UnidentifiedImageError:
        return image  # a format that only OpenCV reads
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large an image; shrink it: {error}") from error
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"{name} is no readable image: {error}") from error
    white = Image.new("RGBA", transparent.size, "white")
    opaque = Image.alpha_composite(white, transparent).convert(
        "RGB" if image.shape[2] == 3 else "L"
    )
    return np.asarray(opaque).reshape(image.shape)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 `[H, W, 3]`, or grey `[H, W]`; the file's ending gives the format."""
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: an image is written from uint8, not from {image.dtype}")
    Image.fromarray(image).save(user_path(path))


def existing(path: Path) -> pathlib.Path:
    """The user's path, checked to exist.

    Raises:
      ValueError: nothing is there.
    """
    path = user_path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


def natural_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Paths sorted by name with numbers as numbers: `frame2.png` comes before `frame10.png`."""
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list, str]:
    """The key that sorts names with numbers as numbers."""
    parts = re.split(r"(\d+)", name)  # text and numbers take turns
    return [int(x) if i % 2 else x for i, x in enumerate(parts)], name
