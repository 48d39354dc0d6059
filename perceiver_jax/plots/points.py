"""Point clouds and sets of entities, and where a model looks in them."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from perceiver_jax.plots.images import RIGHT, WRONG, show_image

SIZE, DOT = 144, 3  # pixels of a picture's side, and of a point's
SIDES = {"front (x, y)": (0, 1), "side (z, y)": (2, 1), "top (x, z)": (0, 2)}  # right, up


def cloud_image(points: np.ndarray) -> np.ndarray:
    """A cloud seen from the front, the right and above; near points are darker.

    Args:
      points: `[n, 3]`; y is up.

    Returns:
      uint8 `[SIZE, SIZE, 3]`.
    """
    turn, rise = np.radians(30), np.radians(20)
    x, y, z = points.T
    right, near = x * np.cos(turn) - z * np.sin(turn), x * np.sin(turn) + z * np.cos(turn)
    up, near = y * np.cos(rise) - near * np.sin(rise), y * np.sin(rise) + near * np.cos(rise)
    share = (near - near.min()) / max(np.ptp(near), 1e-12)
    grey = np.uint8(200 - 180 * share)
    return _draw(np.stack([right, up], axis=1), near, np.repeat(grey[:, None], 3, axis=1), 255)


def cloud_attention(
    clouds: Sequence[np.ndarray], maps: Sequence[np.ndarray], max_latents: int = 5
) -> Figure:
    """Where latents look in point clouds: three rows for each, seen from three sides.

    A column is a latent, the last one the mean of all. Colours go from dark to yellow with the
    attention, each scaled by the largest weight of its column in this cloud. The latents shown have
    the most focused maps (the largest mean maximum), and are the same for every cloud.

    Args:
      clouds: `[n, 3]` of each, without padding.
      maps: attention weights of N latents, `[N, n]` of each cloud.
      max_latents: how many to show.
    """
    focus = np.mean([weights.max(axis=1) for weights in maps], axis=0)  # [N]
    chosen = np.sort(np.argsort(-focus, kind="stable")[:max_latents])
    rows, columns = len(SIDES) * len(clouds), len(chosen) + 1
    figure = Figure(figsize=(1.5 * columns + 0.3, 1.5 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    colours = mpl.colormaps["viridis"]
    for number, (points, weights) in enumerate(zip(clouds, maps, strict=True)):
        panels = {f"latent {n}": weights[n] for n in chosen}
        panels["mean of all"] = weights.mean(axis=0)
        for side, (name, plane) in enumerate(SIDES.items()):
            line = grid[number * len(SIDES) + side]
            for axes, (title, weight) in zip(line, panels.items(), strict=True):
                painted = np.uint8(255 * colours(weight / max(weight.max(), 1e-12))[:, :3])
                # What is looked at most lies on top, or it would hide behind other points.
                show_image(axes, _draw(points[:, plane], weight, painted, 24))
                if number == side == 0:
                    axes.set_title(title, fontsize=8)
            line[0].text(
                -0.06, 0.5, name, rotation=90, ha="right", va="center", fontsize=7,
                transform=line[0].transAxes,
            )  # fmt: skip
    return figure


def _draw(places: np.ndarray, depth: np.ndarray, colours: np.ndarray, ground: int) -> np.ndarray:
    """Points as squares, those of greatest `depth` on top: uint8 `[SIZE, SIZE, 3]`."""
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    places = places / max(np.abs(places).max(), 1e-12)
    order = np.argsort(depth, kind="stable")
    corner = np.rint((places[order] * [1, -1] + 1) / 2 * (SIZE - DOT)).astype(int)
    down, right = np.mgrid[:DOT, :DOT].reshape(2, 1, -1)
    image = np.full((SIZE, SIZE, 3), ground, np.uint8)
    # Of equal indices the last one is assigned.
    image[corner[:, 1:] + down[0], corner[:, :1] + right[0]] = colours[order][:, None]
    return image


def confusion(labels: np.ndarray, guesses: np.ndarray, names: Sequence[str]) -> Figure:
    """How often each class is called which: a row for each true class, a column for each guess.

    Colours are shares of the row, numbers are counts. The last column has guesses of no class.

    Args:
      labels: `[N]`.
      guesses: `[N]`, -1 where two classes are as likely.
      names: of all classes.
    """
    count = len(names)
    counts = np.zeros((count, count + 1), int)
    np.add.at(counts, (labels, guesses), 1)
    columns = [*names, "none"] if counts[:, -1].any() else list(names)
    counts = counts[:, : len(columns)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(0.32 * count, 2.4)
    figure = Figure(figsize=(side + 1.6, side + 1.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(counts):
        if number:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(number), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(count), names, fontsize=7)
    axes.set_xlabel("guess", fontsize=8)
    axes.set_ylabel("class", fontsize=8)
    return figure


def named_entities(
    places: np.ndarray, present: np.ndarray, named: np.ndarray, truth: np.ndarray
) -> Figure:
    """A panel for each set: an arrow from each entity to the one that it names.

    Green is right. Red is wrong, and a dotted line leads to the right one.

    Args:
      places: `[B, M, 2]`.
      present: bool `[B, M]`.
      named, truth: slots `[B, M]`.
    """
    columns = min(4, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), layout="constrained")
    for number in range(len(places)):
        axes = figure.add_subplot(rows, columns, number + 1)
        place, there = places[number], np.flatnonzero(present[number])
        right = 0
        for i in there:
            good = named[number, i] == truth[number, i]
            right += int(good)
            style = {"color": RIGHT if good else WRONG, "lw": 1.2, "shrinkA": 4, "shrinkB": 4}
            style |= {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.15"}
            axes.annotate("", place[named[number, i]], place[i], arrowprops=style)
            if not good:
                axes.plot(*place[[i, truth[number, i]]].T, ":", color="grey", lw=1)
        axes.plot(*place[there].T, "o", color="black", ms=5)
        _square(axes, f"{right} of {len(there)} right", places[present])
    return figure


def entity_attention(
    places: np.ndarray,
    present: np.ndarray,
    weights: np.ndarray,
    titles: Sequence[str],
    max_entities: int = 4,
) -> Figure:
    """A row for each set, a panel for each of its first entities: what this one attends to.

    The entity has a ring. The others are the larger and darker, the more attention they get.

    Args:
      places: `[B, M, 2]`.
      present: bool `[B, M]`.
      weights: `[B, M, M]`, of each entity to all.
      titles: of each set.
    """
    figure = Figure(figsize=(2.2 * max_entities, 2.3 * len(places) + 0.2), layout="constrained")
    grid = figure.subplots(len(places), max_entities, squeeze=False)
    for number, line in enumerate(grid):
        there = np.flatnonzero(present[number])
        place = places[number, there]
        for axes, i in zip(line, there, strict=False):
            weight = weights[number, i, there]
            share = weight / max(weight.max(), 1e-12)
            axes.scatter(
                *place.T, s=12 + 90 * share, c=share, cmap="Blues", vmin=-0.2, vmax=1,
                edgecolors="grey", linewidths=0.5,
            )  # fmt: skip
            axes.plot(*places[number, i], "o", mfc="none", mec=WRONG, ms=15, mew=1.5)
            _square(axes, f"entity {i}", places[present])
        for axes in line[len(there) :]:
            axes.set_axis_off()
        line[0].set_ylabel(titles[number], fontsize=8)
    return figure


def _square(axes, title: str, places: np.ndarray) -> None:
    """One square for all panels, with room for all places `[.., 2]`."""
    low, high = places.min(axis=0), places.max(axis=0)
    half = 0.6 * max(*(high - low), 1e-6)
    x, y = (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
    axes.set_title(title, fontsize=8)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
