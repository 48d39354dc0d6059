"""Bouncing shapes: what is heard can be read off what is seen, and the reverse."""

import numpy as np
import pytest

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.bounce import INTERVAL, LOWEST_NOTE, SHAPES, Bounce

MAKE = Bounce()
RATE = MAKE.frames_per_second * MAKE.samples_per_frame


def clips(count=12):
    source = registry.load("bounce", "test")
    return [source[i] for i in range(count)]


def seen_path(video):
    """The middle of the shape in every frame: x to the right and y up, 0..1 of their room [T]."""
    grey = video[..., 0].astype(float)
    height, width = grey.shape[1:]
    radius = MAKE.radius * height
    x = (grey.sum(1) @ (np.arange(width) + 0.5)) / grey.sum((1, 2))
    y = height - (grey.sum(2) @ (np.arange(height) + 0.5)) / grey.sum((1, 2))
    return (x - radius) / (width - 2 * radius), (y - radius) / (height - 2 * radius)


def heard(audio, hertz):
    """Loudness of a tone about the moment of each frame but the first and last."""
    length = MAKE.samples_per_frame
    wave = audio * np.exp(-2j * np.pi * hertz / RATE * np.arange(len(audio)))
    middles = np.arange(1, MAKE.num_frames - 1) * length
    return np.array([2 * abs(wave[m - length // 2 : m + length // 2].mean()) for m in middles])


def test_contents():
    for clip in clips(4):
        assert (clip["video"].shape, clip["video"].dtype) == ((16, 24, 24, 3), np.uint8)
        assert (clip["audio"].shape, clip["audio"].dtype) == ((16 * 160,), np.float32)
        assert clip["label"].dtype == np.int32
        assert np.abs(clip["audio"]).max() <= 1 and clip["video"].max() == 255
    assert {int(clip["label"]) for clip in clips(40)} == set(range(len(SHAPES)))


def test_the_strongest_note_names_the_shape():
    for clip in clips():
        notes = LOWEST_NOTE * INTERVAL ** np.arange(len(SHAPES))
        # Of each shape its note and the octave; no octave is another shape's note.
        loud = [heard(clip["audio"], f).sum() + heard(clip["audio"], 2 * f).sum() for f in notes]
        assert np.argmax(loud) == clip["label"]


def test_shapes_look_different():
    still = [MAKE.picture(k, np.array([0.5, 0.5]), np.zeros(2))[0] for k in range(len(SHAPES))]
    for i, a in enumerate(still):
        for b in still[:i]:
            assert np.abs(a.astype(int) - b).mean() > 4


def test_loudness_follows_the_place():
    """Height is the note's loudness, left to right that of the octave."""
    seen, sound = [], []
    for clip in clips():
        note = LOWEST_NOTE * INTERVAL ** float(clip["label"])
        x, y = seen_path(clip["video"])
        seen.append([y[1:-1], x[1:-1]])
        sound.append([heard(clip["audio"], note) / 0.4, heard(clip["audio"], 2 * note) / 0.3])
    seen, sound = np.concatenate(seen, 1), np.concatenate(sound, 1)
    for axis in (0, 1):
        assert np.corrcoef(seen[axis], sound[axis])[0, 1] > 0.95
        np.testing.assert_allclose(sound[axis].mean(), 0.1 + 0.9 * seen[axis].mean(), atol=0.05)


def test_a_click_at_every_bounce_and_nowhere_else():
    start, velocity = np.array([0.5, 0.3]), np.array([1.0, -0.5])  # walls at 0.5 s and 0.6 s
    audio = MAKE.sound(0, start, velocity)
    calm = MAKE.sound(0, start, velocity * 1e-9)
    for when in (0.5, 0.6):
        at = round(when * RATE)
        assert np.abs(np.diff(audio, 2)[at - 3 : at + 3]).max() > 0.3
    quiet = np.abs(np.diff(audio, 2))
    quiet[round(0.499 * RATE) :] = 0
    assert quiet.max() < 0.15 and np.abs(np.diff(calm, 2)).max() < 0.15
    x, y = seen_path(MAKE.picture(0, start, velocity))
    assert np.argmax(x) == 10 and np.argmin(y) == 12  # of 20 frames per second


def test_the_same_path_sounds_and_looks_the_same():
    source = registry.load("bounce", "train", options={"size": (16, 16), "num_frames": 4})
    again = registry.load("bounce", "train", options={"size": (16, 16), "num_frames": 4})
    other = registry.load("bounce", "train", options={"size": (16, 16), "num_frames": 4, "seed": 1})
    for field in ("video", "audio", "label"):
        np.testing.assert_array_equal(source[7][field], again[7][field])
    assert np.any(source[7]["audio"] != other[7]["audio"])
    assert source[7]["video"].shape == (4, 16, 16, 3) and source[7]["audio"].shape == (640,)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"samples_per_frame": 16}, "samples_per_frame=16 times frames_per_second=20 must be 1688"),
        ({"speed": (2, 1)}, "speed ascends"),
        ({"gravity": 9.8}, r"unknown source_options \['gravity'\]; .*speed="),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        registry.load("bounce", "train", options=options)
