"""Files in which seeking fails or misses: the frames are those of the time asked for."""

import av
import numpy as np
import pytest

from perceiver_jax import files

CLIP = {"num_frames": 4, "frames_per_second": 25, "samples_per_second": 8000, "short_side": 64}
# Container, codec, frames between two that can be decoded alone.
KINDS = {
    "a.ts": ("mpegts", "libx264", 12),
    "long.ts": ("mpegts", "libx264", 250),
    "a.h264": ("h264", "libx264", 12),
    "a.mjpeg": ("mjpeg", "mjpeg", 1),
    "a.flv": ("flv", "libx264", 12),
    "a.mkv": ("matroska", "libx264", 12),
    "a.avi": ("avi", "mpeg4", 12),
    "a.mp4": ("mp4", "libx264", 12),
}


def write(path, container, codec, distance, frames=100):
    """Frame t has the grey level 2 t + 20."""
    with av.open(str(path), "w", format=container) as file:
        options = {"g": str(distance)} | ({"crf": "10"} if codec == "libx264" else {})
        stream = file.add_stream(codec, rate=25, options=options, bit_rate=8_000_000)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for t in range(frames):
            image = np.full((64, 64, 3), 2 * t + 20, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    for name, how in KINDS.items():
        write(folder / name, *how)
    return folder


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("start", [0.0, 0.32, 1.52, 3.0])
def test_frames_are_those_of_their_time(folder, name, start):
    video, audio = files.read_clip(folder / name, start, **CLIP)
    assert audio is None
    seen = (video.mean(axis=(1, 2, 3)) - 20) / 2
    np.testing.assert_allclose(seen, round(start * 25) + np.arange(4), atol=0.8)


@pytest.mark.parametrize("name", KINDS)
def test_how_long_a_stream_is(folder, name):
    assert files.video_seconds(folder / name) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("name", ["a.ts", "a.h264"])
def test_a_clip_beyond_the_end_is_refused(folder, name):
    with pytest.raises(ValueError, match=r"from 3\.92 s on it has 2 frames at 25 a second, not 4"):
        files.read_clip(folder / name, 3.92, **CLIP)


def test_a_damaged_stream_is_named(folder, tmp_path):
    (tmp_path / "b.ts").write_bytes((folder / "a.ts").read_bytes()[:188])
    with pytest.raises(ValueError, match=r"b\.ts (is damaged|has no)"):
        files.read_clip(tmp_path / "b.ts", **CLIP)


@pytest.mark.parametrize("start", [-1.0, float("nan"), float("inf")])
def test_a_start_is_a_number_of_seconds(folder, start):
    with pytest.raises(ValueError, match=rf"a\.mp4: start={start} must be a number of seconds"):
        files.read_clip(folder / "a.mp4", start, **CLIP)


def test_a_cover_is_not_the_video(tmp_path):
    """A file may begin with a stream of one small picture."""
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        cover, video = file.add_stream("mjpeg", rate=1), file.add_stream("libx264", rate=25)
        cover.width = cover.height = 32
        video.width = video.height = 64
        cover.pix_fmt, video.pix_fmt = "yuvj420p", "yuv420p"
        for stream, count in ((cover, 1), (video, 10)):
            for t in range(count):
                image = np.full((stream.height, stream.width, 3), 2 * t + 20, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
    video, _ = files.read_clip(tmp_path / "a.mkv", 0.0, **CLIP)
    np.testing.assert_allclose(video.mean(axis=(1, 2, 3)), 2 * np.arange(4) + 20, atol=1.6)


def test_a_title_in_another_encoding(folder, tmp_path):
    """Old programs write Latin-1; the title is of no interest, the video is."""
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        file.metadata["title"] = "M-nchen"
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            image = np.full((64, 64, 3), 100, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"M-nchen") == 1
    (tmp_path / "a.mkv").write_bytes(data.replace(b"M-nchen", "München".encode("latin-1")))
    assert files.read_clip(tmp_path / "a.mkv", 0.0, **CLIP)[0].shape == (4, 64, 64, 3)
    assert files.video_seconds(tmp_path / "a.mkv") == pytest.approx(0.4, abs=0.1)


def test_frames_that_change_their_shape(tmp_path):
    """Broadcasts do; parts of another shape follow each other in a bare stream."""
    parts = []
    for width in (64, 96):
        with av.open(str(tmp_path / "part.h264"), "w", format="h264") as file:
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
            for _ in range(3):
                image = np.zeros((64, width, 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
        parts.append((tmp_path / "part.h264").read_bytes())
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    message = r"a\.h264 changes the shape of its frames: \[\(64, 64\), \(64, 96\)\]"
    with pytest.raises(ValueError, match=message):
        files.read_clip(tmp_path / "a.h264", 0.0, **CLIP)


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_sound_is_the_mean_of_its_channels(tmp_path, layout, container):
    """As in WAV files. A tone is in the last channel alone; a codec without loss keeps it."""
    channels = {"stereo": 2, "5.1": 6}[layout]
    path = tmp_path / f"a.{container}"
    codec = "pcm_s16le" if container == "mp4" else "aac"
    with av.open(str(path), "w", format="mov" if container == "mp4" else container) as file:
        pictures = file.add_stream("mpeg4", rate=25)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        sound = file.add_stream(codec, rate=48000, layout=layout)
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode())
        tone = 0.6 * np.sin(2 * np.pi * 500 * np.arange(19200) / 48000).astype(np.float32)
        samples = np.zeros((channels, 19200), np.float32)
        samples[-1] = tone
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = 48000, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    _, audio = files.read_clip(path, 0.04, **CLIP | {"samples_per_second": 48000})
    heard = audio[1000:-1000]
    np.testing.assert_allclose(np.abs(heard).max(), 0.6 / channels, rtol=0.05)
