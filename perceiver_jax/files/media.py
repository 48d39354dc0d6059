"""Video and sound files to arrays and back.

PyAV reads and writes everything but WAV (`pip install 'perceiver_jax[video]'`).
"""

import itertools
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from perceiver_jax.files.image import IMAGES, Path, existing, read_image

# Containers may round the times of frames to a millisecond.
ROUNDING = 1e-3


def read_video(
    path: Path,
    size: int,
    *,
    frames_per_second: float,
    samples_per_second: int,
    max_frames: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A video file and its sound, or a folder of images in the order of their names.

    Each frame is cut to its central square and resized. A file is resampled to the rates asked
    for; a folder is taken to have them.

    Returns:
      (uint8 `[T, size, size, 3]`, float32 `[S]` in [-1, 1] of as many seconds, or None where there
      is no sound).

    Raises:
      ValueError: there is no readable video.
      ImportError: a file, but PyAV is not installed.
    """
    path = existing(path)
    if not path.is_dir():
        return _read(
            path,
            0.0,
            lambda image: _square(image, size),
            num_frames=max_frames,
            frames_per_second=frames_per_second,
            samples_per_second=samples_per_second,
        )
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)[:max_frames]
    if not names:
        raise ValueError(f"{path} is a folder without images")
    return np.stack([_square(read_image(name), size) for name in names]), None


def read_clip(
    path: Path,
    start: float = 0.0,
    *,
    num_frames: int,
    frames_per_second: float,
    samples_per_second: int,
    short_side: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """`num_frames` frames of a video file from `start` seconds on, and the sound of that time.

    The frame of a time is the one on screen then, so that any frame rate can be asked for. Sound is
    mixed to one channel and resampled; it is silent where the file has none at that time.

    Returns:
      (uint8 `[T, H, W, 3]`, the shorter side `short_side` pixels, float32 `[S]` in [-1, 1] with S
      = T `samples_per_second` / `frames_per_second`, or None where the file has no sound).

    Raises:
      ValueError: the file is missing, damaged, or ends before the clip does.
      ImportError: PyAV is not installed.
    """
    video, audio = _read(
        existing(path),
        start,
        lambda image: _shrink(image, short_side),
        num_frames=num_frames,
        frames_per_second=frames_per_second,
        samples_per_second=samples_per_second,
    )
    if len(video) < num_frames:
        raise ValueError(
            f"{path} ends too early: from {start:g} s on it has {len(video)} frames at "
            f"{frames_per_second:g} a second, not {num_frames}"
        )
    return video, audio


def video_seconds(path: Path) -> float:
    """How long the video of a file lasts, as the file says.

    Raises:
      ValueError: the file is missing, damaged, or does not say.
      ImportError: PyAV is not installed.
    """
    av = _pyav()
    try:
        with av.open(str(existing(path))) as container:
            video = container.streams.video
            if video and video[0].duration:
                return float(video[0].duration * video[0].time_base)
            if video and container.duration:
                return container.duration / av.time_base
    except av.FFmpegError as error:
        raise ValueError(f"{path} is damaged, or no video file: {error.strerror}") from error
    raise ValueError(f"{path} has no video in it, or does not say how long it is")


def write_mp4(
    path: Path,
    video: np.ndarray,
    audio: np.ndarray | None = None,
    *,
    frames_per_second: float,
    samples_per_second: int = 48000,
) -> None:
    """Writes a video with sound: H.264 and AAC.

    Args:
      video: uint8 `[T, H, W, 3]`, H and W even.
      audio: float `[S]` in [-1, 1], or None for a video without sound.
    """
    av = _pyav()
    height, width = video.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"an mp4 needs an even height and width, got {height} x {width}")
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(frames_per_second).limit_denominator(10000)
        pictures = container.add_stream("libx264", rate=rate, options={"crf": "16"})
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        # AAC knows some rates only, this one always: the encoder resamples to it.
        sound = None if audio is None else container.add_stream("aac", rate=48000, layout="mono")
        for image in video:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        if sound is not None:
            samples = np.clip(audio, -1, 1).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = samples_per_second, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode())


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


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "video files need PyAV: pip install 'perceiver_jax[video]'", name="av"
        ) from error
    return av


def _read(
    path: Path,
    start: float,
    finish: Callable[[np.ndarray], np.ndarray],
    *,
    num_frames: int | None,
    frames_per_second: float,
    samples_per_second: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """At most `num_frames` frames, each passed through `finish`, and as many seconds of sound."""
    av = _pyav()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video in it")
            start += (container.start_time or 0) / av.time_base
            times = (start + i / frames_per_second for i in itertools.count())
            shown = _on_screen(_decode(container, "video", start), times)
            images = [finish(image) for image in itertools.islice(shown, num_frames)]
            seconds = len(images) / frames_per_second
            audio = None
            if images and container.streams.audio:
                count = round(seconds * samples_per_second)
                audio = _sound(container, start, count, samples_per_second)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is damaged, or no video file: {error.strerror}") from error
    if not images:
        raise ValueError(f"{path} has no readable frame from there on: {start:g} s")
    return np.stack(images), audio


def _decode(container: Any, kind: str, start: float) -> Iterator[Any]:
    """The frames of the first stream of a kind, from `start` or somewhat before."""
    stream = getattr(container.streams, kind)[0]
    # Sound that is overlapped with what was before it needs that, so it begins a little earlier.
    begin = start - 0.1 if kind == "audio" else start
    container.seek(int(max(begin, 0.0) / stream.time_base), stream=stream)
    return container.decode(stream)


def _on_screen(frames: Iterator[Any], times: Iterator[float]) -> Iterator[np.ndarray]:
    """RGB `[H, W, 3]` at each of the ascending times, until the last frame has been shown."""
    time, shown, image = next(times), None, None
    for frame in itertools.chain(frames, [None]):
        if shown is not None:
            end = frame.time if frame else shown.time + float(shown.duration * shown.time_base)
            while time < end - ROUNDING:
                image = _upright(shown) if image is None else image
                yield image
                time = next(times)
        shown, image = frame, None


def _upright(frame: Any) -> np.ndarray:
    """RGB `[H, W, 3]`, turned as the file says (telephones film lying on their side)."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _sound(container: Any, start: float, count: int, rate: int) -> np.ndarray:
    """`count` samples of one channel from `start` seconds on, float32 in [-1, 1]."""
    resampler = _pyav().AudioResampler(format="flt", layout="mono", rate=rate)
    result, position = np.zeros(count, np.float32), None
    for frame in itertools.chain(_decode(container, "audio", start), [None]):
        if position is None and frame is not None:
            position = round((frame.time - start) * rate)
        for piece in resampler.resample(frame) if position is not None else ():
            samples = piece.to_ndarray()[0][max(-position, 0) :][: count - max(position, 0)]
            if position < count:
                result[max(position, 0) :][: len(samples)] = samples
            position += piece.samples
        if position is not None and position >= count:
            break
    return np.clip(result, -1, 1)


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of an image, resized."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(image[top : top + side, left : left + side], (size, size))


def _shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    """The image with its shorter side resized to `short_side`."""
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    size = (round(width * factor), round(height * factor))
    return image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
