"""Image files to arrays and back. RGB everywhere."""

import pathlib

import cv2
import numpy as np
from PIL import Image

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
Path = str | pathlib.Path


def read_image(path: Path) -> np.ndarray:
    """Any common image -> uint8 `[H, W, 3]`.

    Raises:
      ValueError: there is no readable image.
    """
    data = np.frombuffer(existing(path).read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    if image is None:
        raise ValueError(f"{path} is no readable image")
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 `[H, W, 3]`; the ending says the format."""
    Image.fromarray(image).save(path)


def existing(path: Path) -> pathlib.Path:
    """The path, once it is sure that something is there."""
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path
