"""Video files and folders of images to arrays, and arrays to mp4.

PyAV reads and writes the files (`pip install -e '.[video]'`). A WAV file is `sound`'s.
"""

import itertools
import pathlib
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

from perceiver_jax.files.image import IMAGES, Path, existing, natural_order, read_image
from perceiver_jax.files.paths import user_path
from perceiver_jax.files.streams import frames_from, mono, on_screen, open_container, pyav


def read_video(
    path: Path,
    size: int,
    *,
    frames_per_second: float,
    samples_per_second: int,
    max_frames: int | None = None,
    square: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A video file and its sound, or a folder of images in the order of their names.

    Each frame is cut to its central square and resized; unless `square`, it keeps its shape and its
    shorter side becomes `size`, as `read_clip` does it. A file is resampled to the given rates; a
    folder is assumed to have them. Numbers in its names count as numbers, so that `frame2.png`
    comes before `frame10.png`.

    Returns:
      (uint8 `[T, H, W, 3]`, float32 `[S]` in [-1, 1] of as many seconds, or None where there
      is no sound).

    Raises:
      ValueError: there is no readable video.
      ImportError: a file, but PyAV is not installed.
    """
    path, shape = existing(path), _square if square else _shrink
    if not path.is_dir():
        return _read(
            path,
            0.0,
            lambda image: shape(image, size),
            num_frames=max_frames,
            frames_per_second=frames_per_second,
            samples_per_second=samples_per_second,
        )
    names = [p for p in path.iterdir() if p.suffix.lower() in IMAGES and p.name[0] != "."]
    names = natural_order(names)[:max_frames]
    if not names:
        raise ValueError(f"{path} is a folder without images")
    frames = [shape(read_image(name), size) for name in names]
    if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
        raise ValueError(f"{path} has images of several shapes, {sorted(sizes)[:3]}: cut them")
    return np.stack(frames), None


def read_clip(
    path: Path,
    start: float = 0.0,
    *,
    num_frames: int,
    frames_per_second: float,
    samples_per_second: int,
    short_side: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """`num_frames` frames from `start` seconds after the first frame on, and their sound.

    The frame at a time is the one on screen then, so any frame rate is possible. Sound is the mean
    of its channels, resampled, and silent where the file has none.

    Returns:
      (uint8 `[T, H, W, 3]`, the shorter side `short_side` pixels, float32 `[S]` in [-1, 1] with S
      = T `samples_per_second` / `frames_per_second`, or None where the file has no sound).

    Raises:
      ValueError: the file is missing, damaged, or ends before the clip does.
      ImportError: PyAV is not installed.
    """
    path = existing(path)
    if not 0 <= start < float("inf"):
        raise ValueError(f"{path}: start={start} must be a number of seconds from 0 on")
    video, audio = _read(
        path,
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
    """The seconds of a file's video, by its header; of a bare stream, by counting frames.

    Raises:
      ValueError: the file is missing, damaged, or has no duration.
      ImportError: PyAV is not installed.
    """
    av, path = pyav(), existing(path)
    try:
        with open_container(path) as container:
            video = container.streams.best("video")
            if video and video.duration:
                return float(video.duration * video.time_base)
            if video and container.duration:
                return container.duration / av.time_base
            if video and video.average_rate:  # a stream without a container
                packets = sum(1 for packet in container.demux(video) if packet.size)
                return float(packets / video.average_rate)
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
    av = pyav()
    height, width = video.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"an mp4 needs an even height and width, got {height} x {width}")
    with av.open(str(user_path(path)), "w", format="mp4") as container:
        rate = Fraction(frames_per_second).limit_denominator(10000)
        pictures = container.add_stream("libx264", rate=rate, options={"crf": "16"})
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        # AAC supports a few rates, this one among them: the encoder resamples to it.
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


def _read(
    path: pathlib.Path,
    start: float,
    finish: Callable[[np.ndarray], np.ndarray],
    *,
    num_frames: int | None,
    frames_per_second: float,
    samples_per_second: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """At most `num_frames` frames, each passed through `finish`, and as many seconds of sound."""
    av = pyav()
    try:
        with open_container(path) as container:
            video = container.streams.best("video")  # not a cover picture
            if video is None:
                raise ValueError(f"{path} has no video in it")
            begin = start + float((video.start_time or 0) * video.time_base)
            times = (begin + i / frames_per_second for i in itertools.count())
            shown = on_screen(frames_from(path, container, "video", begin), times)
            images = [finish(image) for image in itertools.islice(shown, num_frames)]
            audio = None
            if images and container.streams.best("audio"):
                count = round(len(images) / frames_per_second * samples_per_second)
                frames = frames_from(path, container, "audio", begin)
                audio = mono(frames, begin, count, samples_per_second)
                if not np.isfinite(audio).all():
                    raise ValueError(f"{path} has samples that are not a number or infinite")
    except av.FFmpegError as error:
        raise ValueError(f"{path} is damaged, or no video file: {error.strerror}") from error
    if not images:
        raise ValueError(f"{path} has no readable frame from there on: {start:g} s")
    if len(sizes := {image.shape[:2] for image in images}) > 1:
        raise ValueError(f"{path} changes the shape of its frames: {sorted(sizes)}; cut it there")
    return np.stack(images), audio


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
