"""Transforms of sound that imitate another speaker, microphone or room.

    "vary_speed(0.3) | vary_tone(20) | add_noise(10, 40) | keep('audio', 'label')"

An example has `audio` float32 [S]. The length of a speaker's vocal tract scales all
resonances alike, and so does a change of speed (Ko et al. 2015, "Audio Augmentation for Speech
Recognition").
"""

import cv2
import numpy as np
from scipy import fft, signal

from perceiver_jax.config_types import NonNegative, Number, Pixels, Rate
from perceiver_jax.data.transforms import Example, transform


@transform
def vary_speed(example: Example, rng: np.random.Generator, spread: Rate) -> Example:
    """Plays the sound faster by a factor uniform in 1 +- `spread`, which also raises the pitch.

    The middle of the window stays in place; a slower sound is cut, a faster one padded by silence.
    """
    audio = example["audio"]
    length = round(len(audio) / (1 + rng.uniform(-spread, spread)))
    played = signal.resample(audio, length)
    start = (length - len(audio)) // 2
    if start < 0:
        played = np.pad(played, (-start, len(audio) - length + start))
        start = 0
    return {**example, "audio": played[start : start + len(audio)].astype(np.float32)}


@transform
def vary_tone(example: Example, rng: np.random.Generator, decibels: NonNegative) -> Example:
    """Applies an equalizer of eight bands, gains uniform in +-`decibels`, linear in between."""
    audio = example["audio"]
    spectrum = fft.rfft(audio)
    gains = rng.uniform(-decibels, decibels, 8)
    places = np.linspace(0, len(gains) - 1, len(spectrum))
    curve = 10 ** (np.interp(places, np.arange(len(gains)), gains) / 20)
    changed = fft.irfft(spectrum * curve.astype(np.float32), len(audio))
    return {**example, "audio": changed.astype(np.float32)}


@transform
def add_noise(example: Example, rng: np.random.Generator, low: Number, high: Number) -> Example:
    """Adds white noise, `low` to `high` decibels (uniform) below the sound's mean power."""
    audio = example["audio"]
    below = 10 ** (-rng.uniform(low, high) / 20)
    level = below * np.sqrt(np.mean(np.square(audio)))
    noise = rng.standard_normal(audio.shape, np.float32)
    return {**example, "audio": audio + np.float32(level) * noise}


@transform
def spectrogram_image(
    example: Example, rng: np.random.Generator, height: Pixels, width: Pixels
) -> Example:
    """Makes `image` uint8 [height, width, 1] of the sound: high frequencies below, late right.

    The levels are those of `audio.Spectrogram` with its defaults, log(1 + 1000 |STFT|), averaged
    over what a pixel covers; a sine of amplitude 1 has 255 where it is.
    """
    _, _, spectrum = signal.stft(
        example["audio"], nperseg=256, noverlap=128, boundary=None, padded=False
    )  # [129, windows]
    levels = np.log1p(np.abs(spectrum) * 1000).astype(np.float32) * (255 / np.log1p(500))
    image = cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA)
    return {**example, "image": np.rint(image).clip(0, 255).astype(np.uint8)[..., None]}


@transform
def spectrogram_below(example: Example, rng: np.random.Generator, height: Pixels) -> Example:
    """Pastes the sound's `spectrogram_image`, so many rows, below a grey `image`."""
    image = example["image"]
    if image.shape[-1] != 1:
        raise ValueError(f"spectrogram_below: the image has {image.shape[-1]} channels, not 1")
    below = spectrogram_image(example, rng, height, image.shape[1])["image"]
    return {**example, "image": np.concatenate([image, below])}
