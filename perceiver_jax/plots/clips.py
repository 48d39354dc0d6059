"""Video and sound beside their reconstructions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import mlab
from matplotlib.figure import Figure

from perceiver_jax.plots.images import show_image


class Clip(NamedTuple):
    """A video with sound, to be written to a file.

    Attributes:
      video: uint8 `[T, H, W, 3]`.
      audio: `[S]` in [-1, 1].
    """

    video: np.ndarray
    audio: np.ndarray
    frames_per_second: float
    samples_per_second: int


def comparison(
    video: np.ndarray,
    decoded_video: np.ndarray,
    decoded_audio: np.ndarray,
    frames_per_second: float,
) -> Clip:
    """Clip after clip, the true video above the decoded one, with the decoded sound.

    Args:
      video, decoded_video: uint8 `[B, T, H, W, 3]`; shown 160 pixels high or more.
      decoded_audio: `[B, S]` in [-1, 1].
    """
    both = np.concatenate([video, decoded_video], axis=2)  # [B, T, 2 H, W, 3]
    scale = 2 * max(1, 80 // video.shape[2])  # even, as video files want it
    both = both.repeat(scale, axis=2).repeat(scale, axis=3)
    rate = round(decoded_audio.shape[1] * frames_per_second / video.shape[1])
    return Clip(both.reshape(-1, *both.shape[2:]), decoded_audio.ravel(), frames_per_second, rate)


def reconstructions(
    video: np.ndarray,
    decoded_video: np.ndarray,
    audio: np.ndarray,
    decoded_audio: np.ndarray,
    probabilities: np.ndarray,
    titles: Sequence[str],
    *,
    samples_per_second: float,
) -> Figure:
    """Clips above what a model made of them: frames evenly spaced in time, sound, label.

    The sound is drawn as a wave and as a spectrogram; the five most probable labels as bars.

    Args:
      video, decoded_video: uint8 `[B, T, H, W, 1 or 3]`.
      audio, decoded_audio: `[B, S]` in [-1, 1].
      probabilities: of the labels `[B, K]`.
      titles: of the clips.
    """
    frames = np.unique(np.linspace(0, video.shape[1] - 1, 4).round().astype(int))
    columns = len(frames) + 6  # wave, spectrogram and label are as wide as two frames each
    figure = Figure(figsize=(1.6 * columns, 3.4 * len(video)), layout="constrained")
    grid = figure.add_gridspec(2 * len(video), columns)
    for b, title in enumerate(titles):
        rows = (("clip", video, audio), ("decoded", decoded_video, decoded_audio))
        for i, (kind, pictures, sounds) in enumerate(rows):
            for column, t in enumerate(frames):
                axes = figure.add_subplot(grid[2 * b + i, column])
                show_image(axes, pictures[b, t])
                label = f"{title}\n" * (i == 0 and column == 0) + f"{kind}, frame {t}"
                axes.set_title(label, fontsize=8, loc="left")
            axes = figure.add_subplot(grid[2 * b + i, -6:-4])
            axes.plot(sounds[b], lw=0.5, color="#1f77b4" if i == 0 else "#d2691e")
            axes.set_ylim(-1, 1)
            axes.set_title(f"{kind}, sound", fontsize=8, loc="left")
            axes.tick_params(labelsize=7)
            axes = figure.add_subplot(grid[2 * b + i, -4:-2])
            _draw_spectrogram(axes, sounds[b], samples_per_second)
            axes.set_title(f"{kind}, Hz over seconds", fontsize=8, loc="left")
        axes = figure.add_subplot(grid[2 * b : 2 * b + 2, -2:])
        best = np.argsort(-probabilities[b], kind="stable")[:5]
        axes.barh([str(k) for k in best], probabilities[b, best], color="#d2691e")
        axes.invert_yaxis()  # the most probable on top
        axes.set_xlim(0, 1)
        axes.set_title("label", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
    return figure


def _draw_spectrogram(axes, sound: np.ndarray, rate: float) -> None:
    """Power in decibels, from -80 to -20, of windows of 40 ms."""
    window = int(np.clip(rate / 25, 8, len(sound)))
    power, hertz, seconds = mlab.specgram(sound, NFFT=window, Fs=rate, noverlap=window // 2)
    extent = (seconds[0], seconds[-1], hertz[0], hertz[-1])
    decibels = 10 * np.log10(power + 1e-12)
    axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=-20)
    axes.tick_params(labelsize=7)
