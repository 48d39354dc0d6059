"""Images with a model's predictions and attention."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

RIGHT, WRONG = "#1a7f37", "#c62828"  # colours of right and wrong answers


def prediction_grid(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
) -> Figure:
    """Images with their predicted class and its probability; red, with the truth, where wrong.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      logits: `[B, K]`.
      labels: `[B]`.
      names: of the first classes; the others, all if None, are named by their numbers.
    """
    names = list(names or ())
    names += map(str, range(len(names), logits.shape[1]))
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    width = 1.4
    height = width * images.shape[1] / images.shape[2] + 0.25  # with the title
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for i, (image, chance, label) in enumerate(zip(images, chances, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        show_image(axes, image)
        best = int(chance.argmax())
        text = f"{names[best]} {chance[best]:.0%}"
        text += "" if best == label else f"\nis {names[label]}"
        axes.set_title(text, fontsize=8, color=RIGHT if best == label else WRONG)
    return figure


def label_probabilities(
    images: np.ndarray, probabilities: Mapping[str, np.ndarray], labels: np.ndarray
) -> Figure:
    """A row per image: the image, and bars of the labels' probabilities by each model.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      probabilities: title to `[B, K]`.
      labels: `[B]`; the bar of the true one is green, the others are red.
    """
    columns = 1 + len(probabilities)
    figure = Figure(figsize=(2 * columns, 1.3 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image, label, b in zip(grid, images, labels, range(len(images)), strict=True):
        show_image(row[0], image)
        for axes, (title, chances) in zip(row[1:], probabilities.items(), strict=True):
            places = np.arange(chances.shape[1])
            axes.bar(places, chances[b], color=np.where(places == label, RIGHT, WRONG))
            axes.set_ylim(0, 1)
            axes.tick_params(labelsize=6)
            if b == 0:
                axes.set_title(title, fontsize=8)
    return figure


def attention_maps(images: np.ndarray, maps: np.ndarray, max_latents: int = 8) -> Figure:
    """Where latents look: one row per image, the image first, then single latents, then their mean.

    Each map is scaled by its largest weight. The latents shown have the most focused maps (the
    largest mean maximum), and are the same for every image.

    Args:
      images: uint8 `[B, H, W, 1 or 3]`.
      maps: attention weights of N latents `[B, N, h, w]`; each map sums to 1.
      max_latents: how many to show.
    """
    focus = maps.max(axis=(2, 3)).mean(axis=0)  # [N]
    chosen = np.sort(np.argsort(-focus, kind="stable")[:max_latents])
    columns = len(chosen) + 2
    height = 1.25 * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(1.3 * columns, height * len(images) + 0.3), layout="constrained")
    for row, (image, weights) in enumerate(zip(images, maps, strict=True)):
        panels = [("image", None), *((f"latent {n}", weights[n]) for n in chosen)]
        panels.append(("mean of all", weights.mean(axis=0)))
        for column, (title, weight) in enumerate(panels):
            axes = figure.add_subplot(len(images), columns, row * columns + column + 1)
            if weight is None:
                show_image(axes, image)
            else:
                show_image(axes, image, alpha=0.25)
                extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
                axes.imshow(weight, cmap="magma", alpha=0.8, vmin=0, extent=extent)
            if row == 0:
                axes.set_title(title, fontsize=8)
    return figure


def attention_mass(
    mass: Mapping[str, Mapping[str, np.ndarray]], shares: Mapping[str, float]
) -> Figure:
    """Each latent's attention by modality: a panel for each cross-attend, a bar per latent.

    Latents are sorted by their attention to the last modality. Dashed lines: uniform attention to
    all tokens.

    Args:
      mass: cross-attend to modality to `[N]`; the modalities of a latent sum to 1.
      shares: modality to its share of all tokens.
    """
    figure = Figure(figsize=(8, 2.6 * len(mass)), layout="constrained")
    for panel, (cross_attend, parts) in zip(
        np.ravel(figure.subplots(len(mass), squeeze=False)), mass.items(), strict=True
    ):
        order = np.argsort(parts[list(parts)[-1]], kind="stable")
        bottom, line = np.zeros(len(order)), 0.0
        for number, (name, values) in enumerate(parts.items()):
            label = f"{name}: {values.mean():.1%}, of the tokens {shares[name]:.1%}"
            panel.bar(range(len(order)), values[order], 1, bottom, color=f"C{number}", label=label)
            bottom, line = bottom + values[order], line + shares[name]
            panel.axhline(line, color="black", ls="--", lw=0.8)
        panel.set_xlim(-0.5, len(order) - 0.5)
        panel.set_ylim(0, 1)
        panel.set_title(f"{cross_attend}: attention by modality, latents in order", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_image(axes, image: np.ndarray, **style) -> None:
    """Draws one uint8 image `[H, W, 1 or 3]` without axes."""
    grey = image.shape[-1] == 1
    style |= {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
    axes.imshow(image[..., 0] if grey else image, **style)
    axes.set_axis_off()
