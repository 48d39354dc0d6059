"""Sound in: patches of raw samples or a spectrogram, mel or not. Sound out: patches of samples.

A batch holds `audio`: float `[B, S]` in [-1, 1], one channel.

References: Perceiver IO (Jaegle et al. 2022) section 4.3 and app. I; the released autoencoder.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from perceiver_jax.attention.factored import Head
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.image import plain_init
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens


class Patches(nn.Module):
    """Every `samples_per_patch` samples are a token, with its place in time.

    Attributes:
      num_bands, max_resolution: see `Fourier`, of the patches; () is their own number. The released
        model gives the number of *samples*.
    """

    samples_per_patch: int = 16
    num_bands: int = 192
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> S / `samples_per_patch` tokens of that many channels + positions."""
        audio = batch["audio"].astype(self.dtype)
        batch_size, samples = audio.shape
        if samples % self.samples_per_patch:
            raise ValueError(
                f"audio of {samples} samples must divide by "
                f"samples_per_patch={self.samples_per_patch}"
            )
        content = audio.reshape(batch_size, -1, self.samples_per_patch)
        position = Fourier((content.shape[1],), self.num_bands, self.max_resolution)
        return Tokens(content=content, position=position)


class Spectrogram(nn.Module):
    """Every window of sound is a token: log(1 + |STFT| / floor), with its place in time.

    The short-time Fourier transform is `jax.scipy.signal.stft`'s: Hann windows, a sine of amplitude
    A has |STFT| = A / 2.

    Attributes:
      window: samples; the channels are the window / 2 + 1 frequencies.
      hop: samples from one window to the next.
      floor: the magnitude that counts as silence.
      num_bands, max_resolution: see `Fourier`, of the windows; () is their own number.
    """

    window: int = 256
    hop: int = 128
    floor: float = 1e-3
    num_bands: int = 16
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> 1 + (S - window) // hop tokens of window / 2 + 1 channels."""
        content = jnp.log1p(magnitudes(batch["audio"], self.window, self.hop) / self.floor)
        position = Fourier((content.shape[1],), self.num_bands, self.max_resolution)
        return Tokens(content=content.astype(self.dtype), position=position)


class MelSpectrogram(nn.Module):
    """Every band of every window of sound is a token: log(1 + magnitude / floor), on a 2-D grid.

    A band's magnitude is the mean of the |STFT| of `Spectrogram` under a triangle; the triangles'
    peaks are evenly spaced in mel, 2595 log10(1 + hertz / 700), from zero to Nyquist, and each
    falls to zero at its neighbours' peaks.

    Attributes:
      samples_per_second: of the sound.
      num_mels: bands.
      window, hop, floor: see `Spectrogram`.
      num_bands, max_resolution: see `Fourier`, of (windows, bands); () is their own number.
    """

    samples_per_second: int = 48000
    num_mels: int = 80
    window: int = 1920
    hop: int = 1008
    floor: float = 1e-3
    num_bands: int = 64
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> (1 + (S - window) // hop) num_mels tokens of one channel."""
        hertz = np.linspace(0, self.samples_per_second / 2, self.window // 2 + 1)
        mels = 2595 * np.log10(1 + hertz / 700)
        peaks = np.linspace(0, mels[-1], self.num_mels + 2)
        triangles = np.stack([np.interp(mels, peaks, row) for row in np.eye(len(peaks))[1:-1]])
        weight = triangles.sum(axis=1, keepdims=True)  # [num_mels, 1]
        if not weight.all():
            raise ValueError(
                f"{np.sum(weight == 0)} of num_mels={self.num_mels} bands hold none of the "
                f"{len(hertz)} frequencies: fewer bands, or more than window={self.window} samples"
            )
        spectrum = magnitudes(batch["audio"], self.window, self.hop)  # [B, M, F]
        bands = jnp.log1p(spectrum @ jnp.asarray((triangles / weight).T, jnp.float32) / self.floor)
        position = Fourier(bands.shape[1:], self.num_bands, self.max_resolution)
        content = bands.reshape(bands.shape[0], -1, 1)
        return Tokens(content=content.astype(self.dtype), position=position)


def magnitudes(audio: jax.Array, window: int, hop: int) -> jax.Array:
    """|STFT| of `[B, S]`, float32 `[B, 1 + (S - window) // hop, window / 2 + 1]`."""
    if audio.shape[1] < window:
        raise ValueError(f"audio of {audio.shape[1]} samples is shorter than one window={window}")
    _, _, transform = jax.scipy.signal.stft(
        audio.astype(jnp.float32),
        nperseg=window,
        noverlap=window - hop,
        boundary=None,
        padded=False,
    )  # [B, F, M]
    return jnp.abs(transform).swapaxes(1, 2)


class Samples(nn.Module):
    """Every patch of samples from a query that is its place; places as in `video.Pixels`.

    Attributes:
      num_patches, samples_per_patch: of the clip.
      num_bands, max_resolution: see `Fourier`.
    """

    num_patches: int
    samples_per_patch: int = 16
    num_bands: int = 192
    max_resolution: tuple[int, ...] = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens | None, indices: jax.Array | None = None) -> Tokens:
        """One query per patch, or per index in `indices`, `[n]` or `[B, n]`."""
        grid = Fourier((self.num_patches,), self.num_bands, self.max_resolution)
        if indices is None:
            return Tokens(position=grid)
        return Tokens(position=grid.replace(endpoint=False)).take(indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the answers' width to the samples of a patch."""
        return (LinearWeights(self.samples_per_patch, plain_init, name="samples")(width),)

    def __call__(self, answers: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, n, samples_per_patch]` -> float32 `[B, n samples_per_patch]`, patch after patch."""
        return answers.astype(jnp.float32).reshape(answers.shape[0], -1)
