"""Which block is used, and what exceptions to the simpler one do."""

from matplotlib.axes import Axes

from experiments.lab.claims.common import MODELS, series
from experiments.lab.figures import STYLES, Panel, finish, line, mark
from experiments.lab.rows import Study


def panels(study: Study) -> list[Panel]:
    """Of the study: those whose cells are there."""
    names = ("standard", "mnist_random", "cifar_random")
    trainings = (
        ({"rho": 1.0, "setting": "base"}, {}),
        ({"setting": "mnist_random"}, {"mfc": "none"}),
    )

    def blocks(axes: Axes) -> None:
        for i, model in enumerate(MODELS):
            for j, name in enumerate(names):
                for k, (where, style) in enumerate(trainings):
                    values = series(study, f"accuracy_{name}", model=model, **where)
                    mark(axes, j + 0.16 * (i - 1.5) + 0.06 * k, values, model=model, style=style)
            axes.plot([], [], STYLES[model][1], color=STYLES[model][0], label=model)
        axes.set_xticks(range(3), ["standard", "digit random", "photograph random"])
        finish(axes, x="test images", y="accuracy, %", chance=0.5)

    rates = sorted({r["rho"] for r in study.rows if r["setting"] == "base"})

    def exceptions(axes: Axes) -> None:
        for i, model in enumerate(MODELS):
            points = {
                j: series(study, "accuracy_mnist_random", model=model, rho=rho, setting="base")
                for j, rho in enumerate(rates)
            }
            line(axes, points, model=model, shift=0.06 * (i - 1.5))
        axes.set_xticks(range(len(rates)), [f"{rho:g}" for rho in rates])
        finish(axes, x="rho: share of digits of the class, in training",
                y="accuracy with the digit random, %", chance=0.5)  # fmt: skip

    found = [
        Panel("blocks", "A digit above a photograph, both tell the class",
              "Filled: trained where both tell. Open, the control: trained with the digit random, "
              "so only the photograph tells.", ("dominoes.simplicity",), blocks),
    ]  # fmt: skip
    if len(rates) > 1:
        found.append(Panel("rho", "Exceptions to the digit",
                           "With fewer images whose digit tells the class, the photograph counts.",
                           ("dominoes.exceptions",), exceptions))  # fmt: skip
    return found
