"""Sound in: patches of raw samples or a spectrogram, mel or not. Sound out: patches of samples.

A batch holds `audio`: float `[B, S]` in [-1, 1], one channel.

References: Perceiver IO (Jaegle et al. 2022) section 4.3 and app. I; the released autoencoder.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Bands, Count, Positive, Resolution, Size
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import grid_queries, grid_tokens, plain_init
from perceiver_jax.tokens import Tokens


class Patches(nn.Module):
    """Every `samples_per_patch` samples are a token, with its place in time.

    Attributes:
      num_bands, max_resolution: see `Fourier`, of the patches; () is their own number. The released
        model gives the number of *samples*.
    """

    samples_per_patch: Size = 16
    num_bands: Bands = 192
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> S / `samples_per_patch` tokens of that many channels + positions."""
        audio = batch["audio"].astype(self.dtype)
        chex.assert_rank(audio, 2)
        batch_size, samples = audio.shape
        if samples % self.samples_per_patch:
            raise ValueError(
                f"audio of {samples} samples must divide by "
                f"samples_per_patch={self.samples_per_patch}"
            )
        patches = audio.reshape(batch_size, -1, self.samples_per_patch)  # [B, M, samples_per_patch]
        return grid_tokens(patches, self.num_bands, self.max_resolution)


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

    window: Size = 256
    hop: Size = 128
    floor: Positive = 1e-3
    num_bands: Bands = 16
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> 1 + (S - window) // hop tokens of window / 2 + 1 channels."""
        spectrum = magnitudes(batch["audio"], self.window, self.hop)  # [B, M, window / 2 + 1]
        levels = jnp.log1p(spectrum / self.floor).astype(self.dtype)
        return grid_tokens(levels, self.num_bands, self.max_resolution)


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

    samples_per_second: Count = 48000
    num_mels: Size = 80
    window: Size = 1920
    hop: Size = 1008
    floor: Positive = 1e-3
    num_bands: Bands = 64
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`audio [B, S]` -> (1 + (S - window) // hop) num_mels tokens of one channel."""
        spectrum = magnitudes(batch["audio"], self.window, self.hop)  # [B, M, F]
        bands = spectrum @ jnp.asarray(self.triangles().T, jnp.float32)  # [B, M, num_mels]
        levels = jnp.log1p(bands / self.floor).astype(self.dtype)
        return grid_tokens(levels[..., None], self.num_bands, self.max_resolution)

    def triangles(self) -> np.ndarray:
        """The weight of each frequency in each band, `[num_mels, F]`; those of a band sum to 1."""
        hertz = np.linspace(0, self.samples_per_second / 2, self.window // 2 + 1)
        mels = 2595 * np.log10(1 + hertz / 700)
        peaks = np.linspace(0, mels[-1], self.num_mels + 2)
        weights = np.stack([np.interp(mels, peaks, row) for row in np.eye(len(peaks))[1:-1]])
        total = weights.sum(axis=1, keepdims=True)  # [num_mels, 1]
        if not total.all():
            raise ValueError(
                f"{np.sum(total == 0)} of num_mels={self.num_mels} bands hold none of the "
                f"{len(hertz)} frequencies: fewer bands, or more than window={self.window} samples"
            )
        return weights / total


def magnitudes(audio: jax.Array, window: int, hop: int) -> jax.Array:
    """|STFT| of `[B, S]`, float32 `[B, 1 + (S - window) // hop, window / 2 + 1]`."""
    chex.assert_rank(audio, 2)
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
    """Every patch of samples, from a query that is its place; see `grid_queries`.

    Attributes:
      num_patches, samples_per_patch: of the clip.
      num_bands, max_resolution: see `Fourier`.
    """

    num_patches: Size
    samples_per_patch: Size = 16
    num_bands: Bands = 192
    max_resolution: Resolution = ()
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens | None, indices: jax.Array | None = None) -> Tokens:
        """One query per patch, or per index in `indices`, `[n]` or `[B, n]`."""
        return grid_queries((self.num_patches,), self.num_bands, self.max_resolution, indices)

    @nn.compact
    def head(self, width: int) -> Head:
        """From the decoder's width to the samples of a patch."""
        return (LinearWeights(self.samples_per_patch, plain_init, name="samples")(width),)

    def __call__(self, decoded: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, n, samples_per_patch]` -> float32 `[B, n samples_per_patch]`, patch after patch."""
        return decoded.astype(jnp.float32).reshape(decoded.shape[0], -1)
