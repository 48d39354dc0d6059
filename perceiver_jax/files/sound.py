"""WAV files to arrays and back."""

import io
import warnings

import chex
import numpy as np
from scipy.io import wavfile

from perceiver_jax.files.image import Path, existing
from perceiver_jax.files.paths import user_path

CONVERT = "Convert it: ffmpeg -i FILE -c:a pcm_s16le NEW.wav"
STREAMED = b"\xff" * 4  # the size in a header that was written before its sound


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """A WAV file -> (the mean of its channels, float32 `[S]` in [-1, 1], samples per second).

    Integers of 8 to 32 bits and floats are read, also where the header is the extensible one.

    Raises:
      ValueError: no WAV file, a damaged or empty one, a compressed one, or samples not a number.
    """
    data = existing(path).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that hold no sound
            if data[4:8] != STREAMED:
                warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, samples = wavfile.read(io.BytesIO(data))
    except Exception as error:  # SciPy raises many types for a damaged header
        raise ValueError(f"{path} is no readable WAV file: {error}. {CONVERT}") from error
    if not samples.size:
        raise ValueError(f"{path} has no sound in it")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(2 ** (8 * samples.itemsize - 1))
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} has samples that are not a number or infinite")
    mono = samples.reshape(len(samples), -1).mean(axis=1, dtype=np.float32)  # [S, C] -> [S]
    return np.clip(mono, -1, 1), rate


def write_wav(path: Path, audio: np.ndarray, samples_per_second: int) -> None:
    """Writes float `[S]` in [-1, 1] as 16-bit WAV, one channel."""
    chex.assert_rank(audio, 1)
    if not np.isfinite(audio).all():
        raise ValueError(f"{path}: the samples to write are not all numbers")
    data = (np.clip(audio, -1, 1) * 32767).round().astype("<i2")
    wavfile.write(user_path(path), samples_per_second, data)
