"""Video and sound files to arrays and back."""

import wave

import cv2
import numpy as np
from PIL import Image

from perceiver_jax.files.image import IMAGES, Path, existing, read_image


def read_video(path: Path, size: int, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """A video file, or a folder of images in the order of their names.

    Each frame is cut to its central square and resized.

    Returns:
      (uint8 `[T, size, size, 3]`, frames per second or 0 where the source does not say).
    """
    path = existing(path)
    frames, rate = [], 0.0
    if path.is_dir():
        names = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
        frames = [_square(read_image(name), size) for name in names[:max_frames]]
    else:
        source = cv2.VideoCapture(str(path))
        rate = source.get(cv2.CAP_PROP_FPS)
        while max_frames is None or len(frames) < max_frames:
            more, frame = source.read()
            if not more:
                break
            frames.append(_square(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size))
        source.release()
    if not frames:
        raise ValueError(f"{path} is no readable video and no folder of images")
    return np.stack(frames), rate


def write_gif(path: Path, video: np.ndarray, frames_per_second: float) -> None:
    """Writes uint8 `[T, H, W, 3]` as an endless GIF."""
    first, *rest = map(Image.fromarray, video)
    duration = 1000 / frames_per_second
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """(the first channel of a 16-bit WAV file, float32 `[S]` in [-1, 1], samples per second)."""
    try:
        with wave.open(str(existing(path)), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no readable WAV file: {error}") from error
    if width != 2:
        raise ValueError(f"{path} has {8 * width} bits per sample; convert it to 16")
    return np.frombuffer(data, "<i2").reshape(-1, channels)[:, 0] / np.float32(32768), rate


def write_wav(path: Path, audio: np.ndarray, samples_per_second: int) -> None:
    """Writes float `[S]` in [-1, 1] as 16-bit WAV, one channel."""
    data = (np.clip(audio, -1, 1) * 32767).round().astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(samples_per_second)
        file.writeframes(data.tobytes())


def _square(frame: np.ndarray, size: int) -> np.ndarray:
    """The central square of a frame, resized."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(frame[top : top + side, left : left + side], (size, size))
