"""Video files: what was written comes back, at any rate, from any time."""

import sys

import numpy as np
import pytest
from clip_files import write_clip

from perceiver_jax import files

CLIP = {"num_frames": 4, "frames_per_second": 25, "samples_per_second": 48000, "short_side": 48}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    write_clip(path, 40, frames=10)
    return path


def frame_numbers(video):
    """Which frames of `write_clip` these are; H.264 may be off by a grey value."""
    return np.round((video.mean(axis=(1, 2, 3)) - 40) / 4).astype(int).tolist()


def tone(audio, rate):
    """(begin, end) of what can be heard, in seconds."""
    heard = np.flatnonzero(np.abs(audio) > 0.1)
    return heard[0] / rate, (heard[-1] + 1) / rate


@pytest.mark.parametrize("start", [0.0, 0.04, 0.08])
def test_a_clip_from_any_time(clip, start):
    video, audio = files.read_clip(clip, start, **CLIP)
    first = round(start * 25)
    assert (video.shape, video.dtype, audio.shape) == ((4, 48, 64, 3), np.uint8, (7680,))
    assert frame_numbers(video) == list(range(first, first + 4))
    np.testing.assert_allclose(tone(audio, 48000), (0.08 - start, 0.12 - start), atol=1e-3)
    assert 0.4 < np.abs(audio).max() <= 1


@pytest.mark.parametrize(
    ("frames_per_second", "expected"),
    [(50, [0, 0, 1, 1, 2, 2]), (12.5, [0, 2, 4, 6]), (10, [0, 2, 5, 7]), (30, [0, 0, 1, 2])],
)
def test_frames_are_those_on_screen_and_sound_is_resampled(clip, frames_per_second, expected):
    rates = {"frames_per_second": frames_per_second, "samples_per_second": 8000}
    video, audio = files.read_clip(clip, **CLIP | rates | {"num_frames": len(expected)})
    assert frame_numbers(video) == expected
    assert len(audio) == round(len(expected) / frames_per_second * 8000)
    begin, end = 0.08, min(0.12, len(expected) / frames_per_second)
    np.testing.assert_allclose(tone(audio, 8000), (begin, end), atol=2e-3)
    # 500 Hz cross zero a thousand times a second, at any sampling rate.
    heard = audio[round((begin + 0.005) * 8000) : round((end - 0.005) * 8000)]
    crossings = np.count_nonzero(np.diff(np.sign(heard)))
    np.testing.assert_allclose(crossings, len(heard) / 8, atol=2)


def test_a_clip_needs_as_much_video(clip, tmp_path):
    with pytest.raises(ValueError, match=r"from 0\.32 s on it has 2 frames at 25 a second, not 4"):
        files.read_clip(clip, 0.32, **CLIP)
    with pytest.raises(ValueError, match="no readable frame from there on: 9 s"):
        files.read_clip(clip, 9, **CLIP)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.mp4 is damaged, or no video file: Invalid data"):
        files.read_clip(tmp_path / "cut.mp4", **CLIP)
    with pytest.raises(ValueError, match="does not exist"):
        files.read_clip(tmp_path / "missing.mp4", **CLIP)
    files.write_wav(tmp_path / "a.wav", np.zeros(800), 8000)
    with pytest.raises(ValueError, match=r"a\.wav has no video in it"):
        files.read_clip(tmp_path / "a.wav", **CLIP)


def test_a_silent_film_has_no_sound(tmp_path):
    write_clip(tmp_path / "a.mp4", 40, sound=False)
    assert files.read_clip(tmp_path / "a.mp4", **CLIP)[1] is None


def test_the_short_side(clip):
    assert files.read_clip(clip, **CLIP | {"short_side": 24})[0].shape == (4, 24, 32, 3)


def test_a_video_file_as_the_models_see_it(clip):
    video, audio = files.read_video(clip, 32, frames_per_second=25, samples_per_second=16000)
    assert (video.shape, audio.shape) == ((10, 32, 32, 3), (6400,))
    assert frame_numbers(video) == list(range(10))
    np.testing.assert_allclose(tone(audio, 16000), (0.08, 0.12), atol=1e-3)
    rates = {"frames_per_second": 50, "samples_per_second": 16000}
    assert len(files.read_video(clip, 32, max_frames=3, **rates)[0]) == 3


def test_a_file_that_says_it_lies_on_its_side(clip, tmp_path):
    """The second identity matrix in an mp4 is that of its first track."""
    one, minus = (1 << 16).to_bytes(4), (-1 << 16).to_bytes(4, signed=True)
    none, w = bytes(4), (1 << 30).to_bytes(4)
    upright = one + 3 * none + one + 3 * none + w
    turned = none + one + none + minus + 4 * none + w  # clockwise by 90 degrees
    video = np.zeros((4, 32, 64, 3), np.uint8)
    video[:, :, :32] = 200  # the left half is bright
    files.write_mp4(tmp_path / "a.mp4", video, frames_per_second=25)
    parts = (tmp_path / "a.mp4").read_bytes().split(upright)
    assert len(parts) == 3
    (tmp_path / "b.mp4").write_bytes(parts[0] + upright + parts[1] + turned + parts[2])
    video, _ = files.read_clip(tmp_path / "b.mp4", **CLIP | {"short_side": 32})
    assert video.shape == (4, 64, 32, 3)
    assert video[:, 4:28].mean() > 190 and video[:, 36:].mean() < 10  # left has become top


def test_without_pyav_the_remedy_is_named(clip, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    for use in (
        lambda: files.read_clip(clip, **CLIP),
        lambda: files.write_mp4(
            tmp_path / "a.mp4", np.zeros((1, 8, 8, 3), np.uint8), frames_per_second=25
        ),
    ):
        with pytest.raises(ImportError, match=r"pip install -e '\.\[video\]'"):
            use()


def test_an_mp4_is_even(tmp_path):
    with pytest.raises(ValueError, match="even height and width, got 7 x 8"):
        files.write_mp4(tmp_path / "a.mp4", np.zeros((1, 7, 8, 3), np.uint8), frames_per_second=25)


def test_a_folder_of_images(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    for i, frame in enumerate(frames):
        files.write_image(tmp_path / f"{i}.png", frame)
    rates = {"frames_per_second": 25, "samples_per_second": 48000}
    video, audio = files.read_video(tmp_path, 8, **rates)
    np.testing.assert_array_equal(video, frames[:, :, 2:10])  # central squares, RGB
    assert audio is None
    assert len(files.read_video(tmp_path, 8, max_frames=2, **rates)[0]) == 2
    files.write_image(tmp_path / "10.png", frames[0])
    (tmp_path / "._0.png").write_bytes(b"of another system")
    video, _ = files.read_video(tmp_path, 8, **rates)
    np.testing.assert_array_equal(video[:3], frames[:, :, 2:10])  # 10 comes last
    np.testing.assert_array_equal(video[3], frames[0, :, 2:10])
    (tmp_path / "no").mkdir()
    with pytest.raises(ValueError, match="a folder without images"):
        files.read_video(tmp_path / "no", 8, **rates)
