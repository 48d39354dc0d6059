"""Transforms of sound: another speaker, another microphone, another room, of the same words.

    "vary_speed(0.3) | vary_tone(20) | add_noise(10, 40) | keep('audio', 'label')"

An example has `audio` float32 [S]. A speaker's vocal tract scales all resonances alike, which a
change of speed does as well (Ko et al. 2015, "Audio Augmentation for Speech Recognition").
"""

import numpy as np
from scipy import fft, signal

from perceiver_jax.data.transforms import Example, transform


@transform
def vary_speed(example: Example, rng: np.random.Generator, spread: float) -> Example:
    """Plays it faster by a factor uniform in 1 +- `spread`, pitch and resonances with it.

    The middle stays in the middle; what leaves the window is lost, what comes in is silence.
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
def vary_tone(example: Example, rng: np.random.Generator, decibels: float) -> Example:
    """An equalizer of eight bands, each gain uniform in +-`decibels`, linear between them."""
    audio = example["audio"]
    spectrum = fft.rfft(audio)
    gains = rng.uniform(-decibels, decibels, 8)
    places = np.linspace(0, len(gains) - 1, len(spectrum))
    curve = 10 ** (np.interp(places, np.arange(len(gains)), gains) / 20)
    changed = fft.irfft(spectrum * curve.astype(np.float32), len(audio))
    return {**example, "audio": changed.astype(np.float32)}


@transform
def add_noise(example: Example, rng: np.random.Generator, low: float, high: float) -> Example:
    """White noise, `low` to `high` decibels (uniform) below the sound's own mean power."""
    audio = example["audio"]
    below = 10 ** (-rng.uniform(low, high) / 20)
    level = below * np.sqrt(np.mean(np.square(audio)))
    noise = rng.standard_normal(audio.shape, np.float32)
    return {**example, "audio": audio + np.float32(level) * noise}
