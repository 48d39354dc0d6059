"""Accuracy against the number of examples; photographs with other surroundings."""

import numpy as np
from matplotlib.axes import Axes

from experiments.lab.claims.common import CHANCE, MODELS
from experiments.lab.claims.conv import WRONG_PLACES, curve, samples
from experiments.lab.figures import STYLES, Panel, finish, legend, line, mark
from experiments.lab.rows import Study


def panels(study: Study) -> list[Panel]:
    """Of the study: those whose cells are there."""

    def curves(axes: Axes, setting, metric: str = "accuracy") -> None:
        for model in MODELS:
            line(axes, curve(study, metric, model=model, setting=setting), model=model)
        axes.set_xscale("log")
        counts = sorted({int(row["n"]) for row in study.rows})
        axes.set_xticks(counts, [f"{n:,}" for n in counts])
        axes.set_xticks([], minor=True)
        finish(axes, x="training examples", y=f"{metric.replace('_', ' ')}, %",
                chance=CHANCE["conv"])  # fmt: skip

    def raw(axes: Axes) -> None:
        curves(axes, "base")
        found = samples(study, "pixels", "stem")
        if found.doublings.interval:
            ends = [np.exp(np.mean(np.log(list(s.values.values())))) for s in
                    (found.second, found.first)]  # fmt: skip
            axes.annotate("", (ends[0], 100 * found.level), (ends[1], 100 * found.level),
                          arrowprops={"arrowstyle": "<->", "color": "black"})  # fmt: skip
            axes.annotate(f"x {2**found.doublings.interval.mean:.1f}",
                          (np.sqrt(ends[0] * ends[1]), 100 * found.level), (0, 4), ha="center",
                          va="bottom", textcoords="offset points", fontsize=9)  # fmt: skip

    def controls(axes: Axes) -> None:
        curves(axes, WRONG_PLACES)
        line(axes, curve(study, "accuracy", model="stem", setting="shuffled_stem"), model="stem",
             dashed=True, label="stem, shuffled")  # fmt: skip
        legend(axes)

    def centre(axes: Axes) -> None:
        names = {
            "accuracy": "whole",
            "accuracy_mixed_same": "own class's\nsurroundings",
            "accuracy_mixed_rand": "another's",
            "ship_by_sea": "ships, middle\npainted over",
        }
        for i, model in enumerate(MODELS):
            for j, name in enumerate(names):
                points = curve(study, name, model=model, setting="base")
                if points:
                    mark(axes, j + 0.15 * (i - 1.5), points[max(points)], model=model, style={})
            axes.plot([], [], STYLES[model][1], color=STYLES[model][0], label=model)
        axes.set_xticks(range(len(names)), names.values())
        finish(axes, x="", y="accuracy, %", chance=CHANCE["conv"])

    claims = ("conv.samples", "conv.locality")
    found = [
        Panel("accuracy", "Accuracy against the number of examples",
              "The same number of steps at every size. The arrow says how many times as many "
              "examples pixels needs as stem, at the accuracy half way between the lowest and the "
              "highest that both reach.", claims, raw),
        Panel("controls", "Control: every pixel in a wrong place",
              "One fixed permutation of all images. Dashed: the stem alone sees shuffled pixels, "
              "at equal cost and with equal parameters.", claims, controls),
    ]  # fmt: skip
    if any(row.get("accuracy_training") is not None for row in study.rows):
        found.append(
            Panel(
                "training",
                "Control: accuracy on the training images",
                "A model that does not fit its training images lacks budget, not bias.",
                claims,
                lambda axes: curves(axes, "base", "accuracy_training"),
            )
        )
    if any(row.get("ship_by_sea") is not None for row in study.rows):
        found.append(Panel("centre", "Photographs with other surroundings",
                           "The middle disc stands for the object. It is a proxy: parts of the "
                           "object lie outside. Models of the largest number of examples.",
                           ("conv.ship",), centre))  # fmt: skip
    return found
