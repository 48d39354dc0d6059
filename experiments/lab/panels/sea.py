"""Conflict and aligned accuracy against the strength of the correlation."""

from matplotlib.axes import Axes

from experiments.lab.attention import MODELS as PERCEIVERS
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

    def look(axes: Axes, cue: str) -> None:
        for i, model in enumerate(PERCEIVERS):
            for metric, dashed in (("attention_object", False), ("attention_absent", True)):
                points = {
                    j: series(study, metric, model=model, cue=cue, rho=rho, setting="base")
                    for j, rho in enumerate(rates)
                }
                shuffled = series(study, metric, model=model, cue=cue, setting="labels_shuffled")
                style = {"model": model, "shift": 0.08 * (i - 0.5), "dashed": dashed}
                line(axes, points, label="" if dashed else model, **style)
                line(axes, {-1: shuffled}, label="", **style)
        area = series(study, "attention_area", model=PERCEIVERS[0], cue=cue, rho=rates[0],
                      setting="base")  # fmt: skip
        if area.interval:
            axes.axhline(100 * area.interval.mean, color="black", ls=":", lw=0.9,
                         label="everywhere alike")  # fmt: skip
        axes.set_xticks(range(-1, len(rates)), ["labels\nshuffled", *(f"{r:g}" for r in rates)])
        finish(axes, x="rho: share of grounds of the class, in training",
                y="attention on the digit, %")  # fmt: skip

    looks = [
        Panel(
            f"attention_{cue}",
            f"Where the latents look, {cue} tells the class",
            "Full lines: attention on the digit's pixels, where the ground is another class's; the "
            "rest is on the ground. Controls: the same pixels where there is no digit (dashed), "
            "the share of the picture that they are (dotted), and models whose labels were "
            "shuffled. Attention says where information comes from, not what is made of it.",
            (f"sea.{cue}.pixels", f"sea.{cue}.stem"),
            lambda axes, cue=cue: look(axes, cue),
        )
        for cue in CUES
        if any(row["cue"] == cue and row.get("attention_object") for row in study.rows)
    ]
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
    ] + looks
