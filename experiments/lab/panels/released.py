"""Cue conflict of the published weights, by class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.lab.figures import Panel, finish
from experiments.lab.rows import Row, Study

RATES = {"shape": "called by their shape", "texture": "called by their texture"}


def panels(study: Study) -> list[Panel]:
    """Shape bias by class, over the absolute rates that make it: the ratio alone misleads."""
    found = []
    for row in study.rows:
        model = row["model"]
        names = [k for k, v in row.items() if k.startswith("shape_") and v is not None]
        classes = [k.removeprefix("shape_") for k in names if k != "shape_bias"]
        if classes:
            found.append(Panel(
                model, f"{model}: cue conflict by class", "Share of the images of a class that are "
                "called by their shape, and by their texture. The numbers are the shape bias: "
                "shape over both.", ("released.shape",),
                lambda axes, row=row, classes=classes: _rates(axes, row, classes),
            ))  # fmt: skip
    return found


def _rates(axes: Axes, row: Row, classes: Sequence[str]) -> None:
    places = np.arange(len(classes))
    values = {name: [100 * (row.get(f"{name}_{c}") or 0.0) for c in classes] for name in RATES}
    for shift, (name, label) in zip((-0.2, 0.2), RATES.items(), strict=True):
        axes.barh(places + shift, values[name], 0.4, label=label)
    for place, shape, texture in zip(places, *values.values(), strict=True):
        if shape + texture:
            axes.text(max(shape, texture), place, f" {shape / (shape + texture):.2f}", va="center",
                      fontsize=7)  # fmt: skip
    axes.set_yticks(places, classes)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    finish(axes, x="images, %", y="")
