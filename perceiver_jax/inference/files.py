"""Images, videos, sounds and flow fields: files to arrays and back. RGB everywhere."""

import pathlib
import wave

import cv2
import numpy as np
from PIL import Image

FLO_MAGIC = 202021.25  # "PIEH" read as a float
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
Path = str | pathlib.Path


def read_image(path: Path) -> np.ndarray:
    """Any common image -> uint8 `[H, W, 3]`.

    Raises:
      ValueError: there is no readable image.
    """
    data = np.frombuffer(_existing(path).read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    if image is None:
        raise ValueError(f"{path} is no readable image")
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 `[H, W, 3]`; the ending says the format."""
    Image.fromarray(image).save(path)


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury `.flo` file -> float32 `[H, W, 2]`."""
    data = _existing(path).read_bytes()
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


def read_video(path: Path, size: int, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """A video file, or a folder of images in the order of their names.

    Each frame is cut to its central square and resized.

    Returns:
      (uint8 `[T, size, size, 3]`, frames per second or 0 where the source does not say).
    """
    path = _existing(path)
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
        with wave.open(str(_existing(path)), "rb") as file:
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


def _existing(path: Path) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


def _square(frame: np.ndarray, size: int) -> np.ndarray:
    """The central square of a frame, resized."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(frame[top : top + side, left : left + side], (size, size))
