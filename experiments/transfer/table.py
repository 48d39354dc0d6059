"""What the studies of transfer share: a run, its kept results, and the figure of the rows."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import make_task
from experiments.lab.rows import interval
from perceiver_jax.train import loop
from perceiver_jax.train.workdir import RESULT, check_config, write_atomically

Row = Mapping[str, Any]


class Curve(NamedTuple):
    """What the figure of a study shows.

    Attributes:
      column: of the rows, along the horizontal axis.
      title: of that axis.
      ticks: the column's values, with their names.
      styles: of the methods, as of `errorbar`.
    """

    column: str
    title: str
    ticks: Mapping[float, str]
    styles: Mapping[str, str]


def run(config: ConfigDict, workdir: pathlib.Path) -> Mapping[str, Any]:
    """Trains as `experiments.run` does, or returns the result of the finished run."""
    print(f"\n{workdir}", flush=True)
    if (workdir / RESULT).exists():
        check_config(epath.Path(workdir), config, write=False)
        return json.loads((workdir / RESULT).read_text())
    return loop.train(make_task(config), config.lock(), workdir)


def keep(path: pathlib.Path, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a file holds, or what `compute` returns, written there."""
    if not path.exists():
        found = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(epath.Path(path), json.dumps(found))
    return json.loads(path.read_text())


def draw(rows: Sequence[Row], curve: Curve) -> Figure:
    """Accuracy of each method, with 95 % intervals over seeds (Student's t)."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for number, (method, style) in enumerate(curve.styles.items()):
        found = {
            x: interval([float(row["accuracy"]) for row in rows
                         if (row["method"], float(row[curve.column])) == (method, x)])
            for x in curve.ticks
        }  # fmt: skip
        found = {x: value for x, value in found.items() if value}
        places = np.array(list(found)) * (1 + 0.02 * number)
        half = [np.nan if v.half is None else v.half for v in found.values()]
        axes.errorbar(
            places, [v.mean for v in found.values()], half,
            fmt=style, ms=4, capsize=3, label=method,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(list(curve.ticks), list(curve.ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel(curve.title)
    axes.set_ylabel("test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
