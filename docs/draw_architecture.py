"""Draws docs/architecture.png, the picture of the README: `python docs/draw_architecture.py`.

The clip and its sound are an example of the generated set `bounce`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from perceiver_jax.datasets.generated import bounce

INK, CONTENT, POSITION, LATENT, QUERY = "#222222", "#4c78a8", "#f2a541", "#54a24b", "#b279a2"


def draw(path: Path) -> None:
    """Writes the picture, 1,500 pixels wide."""
    figure, axes = plt.subplots(figsize=(10, 3.3), layout="constrained")
    axes.set(xlim=(0, 100), ylim=(0, 33), aspect="equal")
    axes.set_axis_off()
    example = bounce.load("train", num_frames=8, size=(32, 32))[3]
    _modalities(axes, example)
    _tokens(axes, x=19, rows=14)
    _grid(axes, x=44, rows=5, colours=[LATENT] * 4)
    _grid(axes, x=64, rows=5, colours=[LATENT] * 4)
    _queries(axes, x=78.5, rows=3)
    _predictions(axes)
    _text(axes, 23, 30.4, "tokens [M, C]\ncontent + position")
    _text(axes, 48, 25, "latents [N, D]\nN << M")
    _text(axes, 68, 25, "latents [N, D]")
    _text(axes, 81.5, 4, "queries: what to predict", colour=QUERY)
    _arrow(axes, (28, 16), (43.2, 16), "encode\ncross-attention")
    _arrow(axes, (52.8, 16), (63.2, 16), "process\nself-attention")
    _arrow(axes, (72.8, 16), (90.5, 16), "decode\ncross-attention")
    _arrow(axes, (81.5, 9.6), (81.5, 15.6), "")
    _arrow(axes, (14.4, 16), (18.4, 16), "")
    figure.savefig(path, dpi=150)


def _modalities(axes, example) -> None:
    """Frames, sound and text, one above the other."""
    for i in range(3):
        left, low = 3 + 1.2 * i, 22.5 - 1.2 * i
        axes.imshow(example["video"][2 * i], extent=(left, left + 7, low, low + 7), zorder=i + 2)
        axes.add_patch(Rectangle((left, low), 7, 7, fill=False, ec="white", lw=1, zorder=i + 2))
    wave = example["audio"].reshape(-1)[::4]
    places = np.linspace(2, 14, len(wave))
    axes.plot(places, 15.5 + 2.2 * wave / np.abs(wave).max(), color=INK, lw=0.6)
    _text(axes, 8, 9.6, "'A shape bounces.'", family="monospace", size=8)
    _text(axes, 8, 5.6, "or any other array", size=8)


def _tokens(axes, x, rows) -> None:
    """Rows of a content part and a position part."""
    shades = np.random.default_rng(0).uniform(0.35, 1, rows)
    for row, shade in enumerate(shades):
        y = 28 - 1.75 * (row + 1)
        style = {"height": 1.4, "ec": "white", "lw": 0.5}
        axes.add_patch(Rectangle((x, y), 4.5, fc=CONTENT, alpha=shade, **style))
        axes.add_patch(Rectangle((x + 4.6, y), 3.4, fc=POSITION, **style))


def _grid(axes, x, rows, colours) -> None:
    """A box for each latent."""
    for row in range(rows):
        for column, colour in enumerate(colours):
            y = 16 + 2.2 * (rows / 2 - row - 1)
            axes.add_patch(Rectangle((x + 2 * column, y), 1.9, 2, fc=colour, ec="white", lw=0.5))


def _queries(axes, x, rows) -> None:
    for row in range(rows):
        axes.add_patch(
            FancyBboxPatch((x, 6 + 1.1 * row), 6, 0.6, "round,pad=0.1", fc=QUERY, ec="none")
        )


def _predictions(axes) -> None:
    for y, words in ((20, "class"), (17.3, "pixels"), (14.6, "bytes"), (11.9, "flow")):
        _text(axes, 95, y, words, size=9)


def _arrow(axes, start, end, words) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, **style))
    first, *rest = words.split("\n")
    middle = (start[0] + end[0]) / 2
    _text(axes, middle, start[1] + 2 + 2.1 * len(rest), first, size=10, weight="bold")
    for line, text in enumerate(reversed(rest)):
        _text(axes, middle, start[1] + 1.8 + 2.1 * line, text, size=8)


def _text(axes, x, y, words, *, colour=INK, size=9, **style) -> None:
    axes.text(x, y, words, ha="center", va="center", color=colour, fontsize=size, **style)


if __name__ == "__main__":
    draw(Path(__file__).with_name("architecture.png"))
