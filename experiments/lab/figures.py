"""The lab's plots. A panel is drawn alone on the page, and beside the others in a paper's figure.

In all of them a line or a large mark is a mean over seeds, its bar the Student-t 95 % interval
where there are three seeds or more, and a dot is one seed.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab.rows import Series
from perceiver_jax.plots import show_image

STYLES = {"pixels": ("#1f77b4", "o"), "stem": ("#d2691e", "s"), "resnet": ("#2e8b57", "^"),
          "vit": ("#8a4fbf", "D"), "learned": ("#17a2b8", "v")}  # fmt: skip


class Panel(NamedTuple):
    """One plot.

    Attributes:
      name: of its part of a file.
      title: what it shows.
      text: how to read it.
      claims: beginnings of the names of the claims whose controls belong beside it.
      draw: onto axes.
    """

    name: str
    title: str
    text: str
    claims: tuple[str, ...]
    draw: Callable[[Axes], None]


def single(panel: Panel) -> Figure:
    """A panel for a page, large enough to read on a telephone."""
    figure = Figure(figsize=(4.0, 3.2), layout="constrained")
    panel.draw(figure.add_subplot())
    return figure


def beside(drawn: Sequence[Panel], below: str) -> Figure:
    """All panels of a study, for a paper: two or three in a row, with a text below."""
    columns = 2 if len(drawn) % 2 == 0 else min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows), layout="constrained")
    for i, panel in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, i + 1)
        panel.draw(axes)
        axes.set_title(panel.title, fontsize=9, pad=18)  # above the legend
    figure.supxlabel(textwrap.fill(below, 75 * columns), fontsize=8)
    return figure


def strip(images: Sequence[tuple[np.ndarray, str]]) -> Figure:
    """Stimuli with their captions, five in a row."""
    columns = min(5, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), layout="constrained")
    for i, (image, caption) in enumerate(images):
        axes = figure.add_subplot(rows, columns, i + 1)
        show_image(axes, image)
        axes.set_title(caption.replace(", ", "\n"), fontsize=7)
    return figure


def mark(axes: Axes, place: float, values: Series, *, model: str, style: Mapping) -> None:
    """One number: its seeds as dots, its mean and interval."""
    found = values.interval
    if found is None:
        return
    colour, shape = STYLES.get(model, ("#444444", "o"))
    numbers = 100 * np.array(found.values)
    axes.plot([place] * len(numbers), numbers, ".", ms=6, alpha=0.4, mew=0, color=colour)
    error = None if found.half is None else 100 * found.half
    axes.errorbar(place, 100 * found.mean, error, fmt=shape, ms=5, color=colour, capsize=2, lw=1,
                  **style)  # fmt: skip


def line(axes: Axes, points: Mapping[float, Series], *, model: str, shift=0.0, dashed=False,
         label: str | None = None) -> None:  # fmt: skip
    """Numbers over places, joined at their means."""
    style = {"mfc": "none"} if dashed else {}
    found = {x: s for x, s in points.items() if s.interval}
    for place, values in found.items():
        mark(axes, place + shift, values, model=model, style=style)
    colour, shape = STYLES.get(model, ("#444444", "o"))
    axes.plot([x + shift for x in found], [100 * s.interval.mean for s in found.values()],
              "--" if dashed else "-", marker=shape, ms=0, color=colour, lw=1.4,
              label=(model if label is None else label) if found else None)  # fmt: skip


def finish(axes: Axes, *, x: str, y: str, chance: float | None = None) -> None:
    if chance is not None:
        axes.axhline(100 * chance, color="black", ls=":", lw=0.9)
        axes.annotate("chance", (1, 100 * chance), (-2, 2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=7)  # fmt: skip
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        legend(axes)


def legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(fontsize=7, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False,
                columnspacing=1, handlelength=1.5)  # fmt: skip
