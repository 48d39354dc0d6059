"""Transforms of sound, against what they say: speed, equalizer, noise."""

import numpy as np
import pytest

from perceiver_jax.data import parse

SECONDS = np.arange(4000) / 8000


def run(line, audio, seed=0):
    example = {"audio": audio.astype(np.float32)}
    result = parse(f"{line} | keep('audio')")(example, np.random.default_rng(seed))["audio"]
    assert (result.shape, result.dtype) == (audio.shape, np.float32)
    return result


def loudest(audio):
    """The frequency of the highest peak of the spectrum, in hertz."""
    return np.argmax(np.abs(np.fft.rfft(audio, 80_000))) / 10


def test_another_speed_is_another_pitch_about_the_middle():
    burst = np.sin(2 * np.pi * 1000 * SECONDS) * np.exp(-(((SECONDS - 0.25) / 0.05) ** 2))
    pitches = [loudest(run("vary_speed(0.2)", burst, seed)) for seed in range(40)]
    assert 800 <= min(pitches) < 830 and 1170 < max(pitches) <= 1200
    for seed in range(4):
        energy = run("vary_speed(0.2)", burst, seed) ** 2
        middle = (energy * SECONDS).sum() / energy.sum()
        width = np.sqrt((energy * (SECONDS - middle) ** 2).sum() / energy.sum())
        np.testing.assert_allclose(middle, 0.25, atol=3e-4)
        np.testing.assert_allclose(width, 0.025 / pitches[seed] * 1000, rtol=2e-3)
    np.testing.assert_allclose(run("vary_speed(0.0)", burst), burst, atol=1e-6)


def test_the_equalizer_scales_frequencies_within_its_range():
    wave = np.random.default_rng(1).standard_normal(4000)
    gains = [
        20 * np.log10(np.abs(np.fft.rfft(run("vary_tone(12)", wave, s)) / np.fft.rfft(wave)))
        for s in range(30)
    ]
    assert -12.01 < np.min(gains) < -11 and 11 < np.max(gains) < 12.01
    assert np.abs(np.diff(gains[0])).max() < 0.1, "smooth"
    assert np.ptp(gains[0]) > 5, "each frequency its own"


@pytest.mark.parametrize("below", [0, 20])
def test_noise_is_as_far_below_as_asked(below):
    wave = np.sin(2 * np.pi * 1000 * SECONDS)
    noise = run(f"add_noise({below}, {below})", wave) - wave
    np.testing.assert_allclose(noise.std(), np.sqrt(0.5) * 10 ** (-below / 20), rtol=0.05)
    assert np.any(noise != run(f"add_noise({below}, {below})", wave, seed=1) - wave)


def test_a_range_of_noise_is_used_whole():
    wave = np.sin(2 * np.pi * 1000 * SECONDS)
    levels = [np.std(run("add_noise(10, 30)", wave, s) - wave) for s in range(60)]
    decibels = -20 * np.log10(np.array(levels) / np.sqrt(0.5))
    assert 9.5 < decibels.min() < 12 and 28 < decibels.max() < 30.5


def test_a_spectrogram_is_an_image_with_time_to_the_right_and_may_lie_below_another():
    """A sine of 2,000 of 4,000 hertz, in the second half: bright in the middle, at the right."""
    audio = (np.sin(2 * np.pi * 2000 * SECONDS) * (SECONDS > 0.25)).astype(np.float32)
    example = {"audio": audio, "image": np.full((8, 16, 1), 9, np.uint8)}
    rng = np.random.default_rng(0)
    image = parse("spectrogram_image(9, 16) | keep('image')")(example, rng)["image"]
    assert image.shape == (9, 16, 1) and image.dtype == np.uint8
    assert np.argmax(image[:, 12, 0]) == 4 and image[4, 12, 0] > 40 and not image[:, :7].any()
    below = parse("spectrogram_below(9) | keep('image')")(example, rng)["image"]
    np.testing.assert_array_equal(below, np.concatenate([example["image"], image]))
    with pytest.raises(ValueError, match="spectrogram_below: the image has 3 channels, not 1"):
        parse("spectrogram_below(9) | keep('image')")(
            example | {"image": np.zeros((8, 16, 3), np.uint8)}, rng
        )
