"""Curves of training runs, benchmarks and psychometric tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def training_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel per metric over steps: every logged training value, its running mean, evaluations.

    Args:
      records: lines of `metrics.jsonl`: `step`, `kind` ("train" or "eval") and numbers (None where
        a value was not finite).
    """
    skip = {"step", "kind", "seconds"}
    names = list(dict.fromkeys(n for record in records for n in record if n not in skip))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        for kind in ("train", "eval"):
            points = [(r["step"], r[name]) for r in records if r["kind"] == kind and name in r]
            points = [p for p in points if p[1] is not None]
            if not points:
                continue
            steps, values = np.array(points).T
            if kind == "eval":
                axes.plot(steps, values, "o-", color="#d2691e", ms=4, label="evaluation")
                axes.annotate(
                    f"{values[-1]:.4g}", (steps[-1], values[-1]), (-4, 6), ha="right",
                    textcoords="offset points", fontsize=8, color="#d2691e",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
                )  # fmt: skip
            else:
                axes.plot(steps, values, color="#1f77b4", alpha=0.3, lw=1)
                axes.plot(steps, running_mean(values), color="#1f77b4", lw=1.5, label="training")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.margins(y=0.15)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=7)
    return figure


def running_mean(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Mean over a centred window of `share` of the series, shorter at both ends."""
    half = int(len(values) * share / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def cost_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Time and memory against the number of inputs, both axes logarithmic.

    A panel for each phase's time and one for its temporaries; a curve for each contender. A cross
    at the top marks a contender that was skipped or failed.

    Args:
      rows: of a benchmark: `inputs`, `phase`, `contender`, and where it ran `median_seconds` and
        `temporaries_bytes`.
    """
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    inputs = {row["case"]: row["inputs"] for row in rows if row.get("inputs")}
    kinds = {"median_seconds": "seconds", "temporaries_bytes": "temporaries, bytes"}
    figure = Figure(figsize=(4.2 * len(phases), 6.4), layout="constrained")
    for i, (field, label) in enumerate(kinds.items()):
        for j, phase in enumerate(phases):
            axes = figure.add_subplot(len(kinds), len(phases), i * len(phases) + j + 1)
            for number, contender in enumerate(contenders):
                mine = [r for r in rows if (r["phase"], r["contender"]) == (phase, contender)]
                points = sorted((r["inputs"], r[field]) for r in mine if r.get(field))
                colour = f"C{number}"
                if points:
                    axes.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=contender)
                absent = [inputs[r["case"]] for r in mine
                          if "median_seconds" not in r and r["case"] in inputs]  # fmt: skip
                if absent and points:
                    heights = [0.97 - 0.05 * number] * len(absent)
                    axes.plot(absent, heights, "x", color=colour, label=f"{contender}: no figure",
                              transform=axes.get_xaxis_transform())  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_title(phase, fontsize=10)
            axes.set_xlabel("inputs", fontsize=8)
            axes.set_ylabel(label, fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=7)
    return figure


def psychometric_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Error against interocular correlation, and bars of the controls beside it.

    Args:
      rows: `condition`, `correlation` (a control's is ''), and errors in pixels: `model`,
        `block_matching`, `sgbm`, `constant`; `slope` of the answers over the truth, written on the
        bars.
    """
    curve = [row for row in rows if row["correlation"] != ""]
    controls = [row for row in rows if row["correlation"] == ""]
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    styles = {"model": "C0o-", "block_matching": "C1s--", "sgbm": "C2^--", "constant": "k:"}
    for kind, style in styles.items():
        points = [(row["correlation"], row[kind]) for row in curve]
        left.plot(*zip(*points, strict=True), style, ms=4, label=kind.replace("_", " "))
    left.set_xlabel("interocular correlation", fontsize=9)
    left.set_ylabel("mean absolute error, px", fontsize=9)
    left.legend(fontsize=8)
    places = np.arange(len(controls))
    for shift, kind, colour in ((-0.2, "model", "C0"), (0.2, "block_matching", "C1")):
        heights = [row[kind] for row in controls]
        right.bar(places + shift, heights, 0.4, color=colour)
    for place, row in zip(places, controls, strict=True):
        right.plot([place - 0.45, place + 0.45], [row["constant"]] * 2, "k:")
        right.text(place - 0.2, row["model"], f"{row['slope']:.2f}", ha="center", va="bottom",
                   fontsize=7)  # fmt: skip
    right.set_xticks(places, [row["condition"] for row in controls], rotation=30, ha="right")
    right.set_title("controls; above the model's bar: its slope over the truth", fontsize=9)
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure
