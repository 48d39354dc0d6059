"""Frames and sound of a video file from any time on, even if seeking fails."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

ROUNDING = 1e-3  # seconds: containers may round the times of frames to a millisecond
SEEK_BACK = (0.0, 1.0, 10.0)  # seconds before a time to seek to, tried in this order


def pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError("video files need PyAV: pip install -e '.[video]'", name="av") from error
    return av


def open_container(path: pathlib.Path) -> Any:
    """PyAV's container of a file on disk or in a bucket; titles may be in any encoding."""
    file = path.open("rb") if "://" in str(path) else str(path)
    av = pyav()
    if int(av.__version__.partition(".")[0]) >= 19:
        return av.open(file)  # PyAV 19 reads titles in any encoding by itself
    return av.open(file, metadata_errors="replace")


def frames_from(
    path: pathlib.Path, container: Any, kind: str, start: float
) -> Iterator[tuple[float, float, Any]]:
    """(begin, end, frame) of the main stream of a kind, from `start` or shortly before.

    Seeking is not exact: a stream may have no index, and in MPEG-TS positions are estimated. If the
    first decoded frame is too late, this seeks further back, and at last decodes from the start.
    """
    stream = container.streams.best(kind)
    first = float((stream.start_time or 0) * stream.time_base)
    # Sound that is overlapped with what was before it needs that, so it begins a little earlier.
    lead = 0.1 if kind == "audio" else 0.0
    for back in SEEK_BACK:
        target = max(start - lead - back, 0.0)
        try:
            container.seek(int(target / stream.time_base), stream=stream)
            frames = container.decode(stream)
            frame = next(frames, None)
        except pyav().FFmpegError:
            break  # not to be sought in
        if frame is not None and frame.time is not None and frame.time <= start + ROUNDING:
            yield from _timed(itertools.chain([frame], frames))
            return
        if target <= first:
            break
    with open_container(path) as again:
        yield from _timed(again.decode(again.streams[stream.index]))


def _timed(frames: Iterable[Any]) -> Iterator[tuple[float, float, Any]]:
    """(begin, end, frame), in seconds; a frame without a time follows the one before it."""
    end = 0.0
    for frame in frames:
        begin = end if frame.time is None else frame.time
        end = begin + float((frame.duration or 0) * frame.time_base)
        yield begin, end, frame


def on_screen(
    frames: Iterator[tuple[float, float, Any]], times: Iterator[float]
) -> Iterator[np.ndarray]:
    """RGB `[H, W, 3]` at each of the ascending times, until the last frame has been shown."""
    time, shown, last = next(times), None, 0.0
    for begin, end, frame in itertools.chain(frames, [(None, None, None)]):
        if shown is not None:
            image = None
            while time < (last if begin is None else begin) - ROUNDING:
                image = _upright(shown) if image is None else image
                yield image
                time = next(times)
        shown, last = frame, end


def _upright(frame: Any) -> np.ndarray:
    """RGB `[H, W, 3]`, rotated by the file's own angle (of telephones held upright)."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def mono(
    frames: Iterator[tuple[float, float, Any]], start: float, count: int, rate: int
) -> np.ndarray:
    """`count` samples from `start` seconds on, float32 in [-1, 1]: the mean of the channels."""
    resampler = pyav().AudioResampler(format="fltp", rate=rate)
    result, position = np.zeros(count, np.float32), None
    for begin, _, frame in itertools.chain(frames, [(0.0, 0.0, None)]):
        if position is None and frame is not None:
            position = round((begin - start) * rate)
        for piece in resampler.resample(frame) if position is not None else ():
            samples = piece.to_ndarray().mean(axis=0)  # [C, n] -> [n]
            samples = samples[max(-position, 0) :][: count - max(position, 0)]
            if position < count:
                result[max(position, 0) :][: len(samples)] = samples
            position += piece.samples
        if position is not None and position >= count:
            break
    return np.clip(result, -1, 1)
