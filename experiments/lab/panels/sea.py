"""Conflict and aligned accuracy against the strength of the correlation."""

from matplotlib.axes import Axes

from experiments.lab.claims.common import CHANCE, CUES, MODELS, series
from experiments.lab.figures import Panel, finish, line
from experiments.lab.rows import Study


def panels(study: Study) -> list[Panel]:
    """Of the study: those whose cells are there."""
    rates = sorted(
        {r["rho"] for r in study.rows if r["setting"] == "base" and r["rho"] is not None}
    )

    def draw(axes: Axes, cue: str) -> None:
        for i, model in enumerate(MODELS):
            for metric, dashed in (("accuracy_conflict", False), ("accuracy_aligned", True)):
                points = {
                    j: series(study, metric, model=model, cue=cue, rho=rho, setting="base")
                    for j, rho in enumerate(rates)
                }
                line(axes, points, model=model, shift=0.08 * (i - 1.5), dashed=dashed,
                     label="" if dashed else model)  # fmt: skip
        axes.set_xticks(range(len(rates)), [f"{rho:g}" for rho in rates])
        axes.set_ylim(-3, 103)
        finish(axes, x="rho: share of grounds of the class, in training",
                y="accuracy, %", chance=CHANCE["sea"])  # fmt: skip

    return [
        Panel(
            cue,
            f"Accuracy against rho, {cue} tells the class",
            "Full lines and filled marks: images whose ground is another class's (conflict). "
            f"Dashed lines and open marks: images whose ground is their class's. rho {rates[0]:g} "
            "is the control without a correlation, where the two agree.",
            (f"sea.{cue}.",),
            lambda axes, cue=cue: draw(axes, cue),
        )
        for cue in CUES
        if any(row["cue"] == cue for row in study.rows)
    ]
