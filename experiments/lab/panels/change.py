"""Accuracy before and after a change of the input."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from experiments.lab.claims import change
from experiments.lab.claims.common import CHANCE, series
from experiments.lab.figures import Panel, finish, line
from experiments.lab.rows import Study

CHANGES = (
    ("pixels", "Pixels permuted", "permuted: with their positions. wrong places: before them, the "
     "control of neighbourhoods.", ("change.permuted", "change.wrong", "change.niche"),
     (change.RAW, change.PERMUTED, change.WRONG_PLACES)),
    ("eyes", "A second eye", "one eye and left twice are the controls: neither can tell the class.",
     ("change.eyes", "change.separate", "change.surgery"),
     (change.ONE_EYE, change.LEFT_TWICE,
      *(setting + disparity for disparity in ("", "_6")
        for setting in (change.BESIDE, change.EYES, change.SEPARATE)))),
    ("sound", "Sound", "image and sound alone are the controls.",
     ("change.sound", "change.surgery"),
     (change.IMAGE, change.SOUND, change.BELOW, change.BOTH)),
)  # fmt: skip


def panels(study: Study) -> list[Panel]:
    """Of the study: those whose cells are there."""
    there = {row["setting"] for row in study.rows}
    models = list(dict.fromkeys(row["model"] for row in study.rows))

    def slopes(axes: Axes, settings: Sequence[str]) -> None:
        for i, model in enumerate(models):
            points = {
                place: series(study, "accuracy", model=model, setting=setting)
                for place, setting in enumerate(settings)
            }
            line(axes, points, model=model, shift=0.06 * (i - (len(models) - 1) / 2))
        axes.set_xticks(range(len(settings)), [s.replace("_", "\n") for s in settings])
        finish(axes, x="", y="accuracy, %", chance=CHANCE["change"])

    return [
        Panel(name, title, text, names, lambda axes, s=settings: slopes(axes, s))
        for name, title, text, names, settings in CHANGES
        if len(there & set(settings)) > 1
    ]
