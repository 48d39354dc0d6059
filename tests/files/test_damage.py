"""Damaged files of every format: each is read, or refused in one line with its name."""

import io

import numpy as np
import pytest
from clip_files import write_clip
from PIL import Image

from perceiver_jax import files

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 4), np.uint8)
IMAGES = {
    "a.jpg": {"quality": 90},
    "a.png": {},
    "a.webp": {},
    "a.tiff": {"compression": "tiff_lzw"},
    "a.bmp": {},
    "a.ppm": {},
}
SEEN_FROM = {"num_frames": 3, "frames_per_second": 25, "samples_per_second": 8000, "short_side": 16}
READERS = dict.fromkeys(IMAGES, files.read_image) | {
    "a.wav": files.read_wav,
    "a.flo": files.read_flo,
    "a.pfm": files.read_pfm,
    "kitti.png": files.read_kitti_flow,
    "a.mp4": lambda path: (files.read_clip(path, 0.1, **SEEN_FROM), files.video_seconds(path)),
}


def intact(path):
    """Writes a good file."""
    if path.name in IMAGES:
        opaque = path.suffix in (".jpg", ".bmp", ".ppm")
        buffer = io.BytesIO()
        image = Image.fromarray(PIXELS[..., :3] if opaque else PIXELS)
        kind = Image.registered_extensions()[path.suffix]
        image.save(buffer, kind, **IMAGES[path.name])
        path.write_bytes(buffer.getvalue())
    elif path.suffix == ".wav":
        files.write_wav(path, np.sin(np.arange(50) / 5), 8000)
    elif path.suffix == ".flo":
        files.write_flo(path, np.ones((3, 4, 2), np.float32))
    elif path.suffix == ".pfm":
        files.write_pfm(path, np.ones((3, 4, 1), np.float32))
    elif path.name == "kitti.png":
        files.write_kitti_flow(path, np.ones((3, 4, 2), np.float32), np.ones((3, 4), bool))
    else:
        write_clip(path, 40)


def damage(data, rng):
    """Cuts the file, changes up to three bytes of its head or anywhere, or drops some bytes."""
    wrong, kind = bytearray(data), rng.integers(4)
    if kind == 0:
        return bytes(wrong[: rng.integers(len(wrong))])
    if kind == 1:
        start = rng.integers(len(wrong))
        return bytes(wrong[:start] + wrong[start + rng.integers(1, 9) :])
    for _ in range(rng.integers(1, 4)):
        wrong[rng.integers(min(len(wrong), 200) if kind == 2 else len(wrong))] = rng.integers(256)
    return bytes(wrong)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(tmp_path, name):
    path, rng, refused = tmp_path / name, np.random.default_rng(0), 0
    intact(path)
    READERS[name](path)
    data = path.read_bytes()
    for _ in range(50):
        path.write_bytes(damage(data, rng))
        try:
            READERS[name](path)
        except ValueError as error:
            refused += 1
            assert type(error) is ValueError and name in str(error) and "\n" not in str(error)
    assert refused
