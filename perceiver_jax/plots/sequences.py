"""Which past places of a sequence a latent reads."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from perceiver_jax.plots.images import show_image

COLUMNS, SHOWN = 64, 768  # cells in a row of text; places before a latent that are drawn
READ = (0.85, 0.05, 0.1)  # red, which covers what is read most
OWN = "#00a0b0"  # the colour of a latent's own place, or of what it predicts


def symbol(byte: int) -> str:
    """One or two characters for a byte."""
    special = {9: "→", 10: "↵", 32: "␣"}
    return special.get(byte) or (chr(byte) if 32 < byte < 127 else f"{byte:02x}")


def reading_matrix(
    symbols: Sequence[str], weights: np.ndarray, places: np.ndarray, predicted: Sequence[str]
) -> Figure:
    """A row for each latent, a column for each place; for short sequences.

    Args:
      symbols: of the M places.
      weights: `[n, M]`; each row sums to 1.
      places: of the latents, `[n]`.
      predicted: what comes behind each latent's place.
    """
    count, total = weights.shape
    size = 0.17 * total + 1.6, 0.17 * count + 1.1
    figure = Figure(figsize=(max(size[0], 4), max(size[1], 2)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap="Greys", vmin=0)
    for row, place in enumerate(places):
        axes.add_patch(Rectangle((place - 0.5, row - 0.5), 1, 1, fill=False, ec=OWN, lw=1))
    font = {"fontsize": 6, "family": "monospace"}
    axes.set_xticks(range(total), symbols, **font)
    axes.set_yticks(range(count), predicted, **font)
    axes.tick_params(length=0)
    axes.set_xlabel("read at place", fontsize=8)
    axes.set_ylabel("to predict", fontsize=8)
    bar = figure.colorbar(image, label="attention, mean of the heads", shrink=0.8)
    bar.ax.tick_params(labelsize=6)
    bar.ax.yaxis.label.set_size(7)
    return figure


def reading_text(
    symbols: Sequence[str], weights: np.ndarray, places: np.ndarray, predicted: Sequence[str]
) -> Figure:
    """A panel for each latent: the text before it, darker where it is read more.

    The colours of a panel go up to its largest weight. Of a long text the last `SHOWN` places
    before a latent are drawn, and the title says how much of the attention is before them.

    Args:
      symbols, weights, places, predicted: as in `reading_matrix`.
    """
    starts = np.maximum(places + 1 - SHOWN, 0) // COLUMNS * COLUMNS
    rows = (places - starts) // COLUMNS + 1
    columns = min(COLUMNS, int((places - starts).max()) + 1)
    figure = Figure(figsize=(0.13 * columns + 0.4, 0.2 * (rows + 2).sum()), layout="constrained")
    panels = figure.subplots(len(places), height_ratios=rows + 1, squeeze=False)[:, 0]
    for axes, weight, place, start, height, new in zip(
        panels, weights, places, starts, rows, predicted, strict=True
    ):
        cells = np.full(height * columns, np.nan)  # white behind the latent's place
        cells[: place + 1 - start] = weight[start : place + 1]
        top = max(np.nanmax(cells), 1e-9)
        axes.imshow(cells.reshape(height, columns), cmap="Reds", vmin=0, vmax=top, aspect=1.5)
        for cell, value in enumerate(symbols[start : place + 1]):
            row, column = divmod(cell, columns)
            style = {"color": "white" if cells[cell] > 0.6 * top else "black", "fontsize": 6}
            style |= {"ha": "center", "va": "center", "family": "monospace"}
            axes.text(column, row, value, **style)
        row, column = divmod(int(place - start), columns)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=OWN, lw=1.2))
        title = f"to predict {new} at place {place + 1}; darkest: {top:.0%}"
        title += f"; {weight[:start].sum():.0%} before the first row" if start else ""
        axes.set_title(title, fontsize=7, loc="left")
        axes.set_axis_off()
    return figure


def reading_pixels(image: np.ndarray, weights: np.ndarray, values: np.ndarray) -> Figure:
    """A panel for each latent: the image, red where its values are read.

    What a latent reads most covers the image.

    Args:
      image: uint8 `[H, W, 1 or 3]`.
      weights: `[n, H W C]`, of the values row by row.
      values: which value each latent predicts, `[n]`; its pixel has a frame.
    """
    height, width, channels = image.shape
    columns = min(len(values), 4)
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(1.9 * columns, rows * (1.9 * height / width + 0.3)))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, weight, value in zip(panels, weights, values, strict=False):
        show_image(axes, image, alpha=0.6)
        seen = weight.reshape(height, width, channels).sum(axis=-1)
        share = np.clip(seen / max(seen.max(), 1e-9), 0, 1)
        axes.imshow(np.dstack([np.broadcast_to(READ, (height, width, 3)), share]))
        row, column = divmod(int(value) // channels, width)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=OWN, lw=1.5))
        axes.set_title(f"row {row}, column {column}", fontsize=7)
    for axes in panels[len(values) :]:
        axes.set_axis_off()
    return figure


def completions(
    images: Sequence[np.ndarray], kept: Sequence[int], written: Sequence[np.ndarray]
) -> Figure:
    """A row for each image: what the model was given, what it made of it, and the original.

    Args:
      images: uint8 `[H, W, 1 or 3]`.
      kept: how many of their values were given, row by row.
      written: of each, the completed images `[samples, H, W, C]`.
    """
    columns = len(written[0]) + 2
    shape = images[0].shape
    size = 1.2 * columns, len(images) * 1.2 * shape[0] / shape[1] + 0.3
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for number, (row, image, count, made) in enumerate(
        zip(grid, images, kept, written, strict=True)
    ):
        given = np.full(image.size, 128, np.uint8)
        given[:count] = image.ravel()[:count]
        titles = ["given", *(f"completed {i + 1}" for i in range(len(made))), "original"]
        for axes, title, picture in zip(
            row, titles, (given.reshape(image.shape), *made, image), strict=True
        ):
            show_image(axes, picture)
            if number == 0:
                axes.set_title(title, fontsize=8)
    return figure
