"""What a setting does to conflict accuracy."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.lab.claims.common import CHANCE, CUES, MODELS, gate, series
from experiments.lab.claims.regularisation import RHO, bias
from experiments.lab.figures import STYLES, Panel, finish
from experiments.lab.rows import Study


def panels(study: Study) -> list[Panel]:
    """Of the study: those whose cells are there."""
    found = []
    for cue in CUES:
        for model in MODELS:
            settings = list(dict.fromkeys(
                r["setting"] for r in study.rows
                if (r["model"], r["cue"], r["rho"]) == (model, cue, RHO)
            ))  # fmt: skip
            if "base" not in settings or len(settings) < 2:
                continue
            kinds = ("harmless", "uninformed", "late", "early", "repair")
            claims = tuple(f"regularisation.{kind}.{cue}.{model}" for kind in kinds)
            found.append(Panel(
                f"arrows_{cue}_{model}", f"{model}, {cue}: from the base to each setting",
                "Arrows go from the base to a setting, means over seeds. On the dotted line "
                "aligned and conflict accuracy change alike. Up is less use of the ground at equal "
                "aligned accuracy, down is more. Open: the setting fails the gate.",
                claims,
                lambda axes, m=model, c=cue, s=settings: _arrows(axes, study, m, c, s),
            ))  # fmt: skip
            found.append(Panel(
                f"bias_{cue}_{model}", f"{model}, {cue}: what each setting does to bias",
                "Conflict accuracy as a share of the accuracy that the same setting gives without "
                "a correlation, less that share of the base, paired over seeds. A setting that "
                "merely hurts learning is at 0. Open: the setting fails the gate.",
                claims,
                lambda axes, m=model, c=cue, s=settings: _biases(axes, study, m, c, s),
            ))  # fmt: skip
    return found


def _passes(study: Study, model: str, cue: str, setting: str) -> bool:
    where = {"model": model, "cue": cue, "rho": CHANCE[study.name], "setting": setting}
    return gate(study, "accuracy_uncorrelated", **where).passes is True


def _arrows(axes: Axes, study: Study, model: str, cue: str, settings: Sequence[str]) -> None:
    where = {"model": model, "cue": cue, "rho": RHO}
    points = {}
    for setting in settings:
        pair = [series(study, f"accuracy_{name}", setting=setting, **where).interval
                for name in ("aligned", "conflict")]  # fmt: skip
        if all(pair):
            points[setting] = tuple(100 * one.mean for one in pair)
    if "base" not in points:
        return
    base = points.pop("base")
    axes.axline(base, slope=1, color="black", ls=":", lw=0.9)
    axes.axvline(base[0], color="black", lw=0.5, alpha=0.4)
    for number, (setting, point) in enumerate(points.items()):
        colour, shape = f"C{number % 10}", "osD^"[number % 4]
        axes.annotate("", point, base, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.3})
        style = {} if _passes(study, model, cue, setting) else {"mfc": "none"}
        axes.plot(*point, shape, ms=5, color=colour, label=setting.replace("_", " "), **style)
    axes.plot(*base, "k*", ms=9, label="base")
    axes.margins(0.1)
    finish(axes, x="aligned accuracy, %", y="conflict accuracy, %")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _biases(axes: Axes, study: Study, model: str, cue: str, settings: Sequence[str]) -> None:
    changed = [s for s in settings if s != "base"]
    colour, shape = STYLES[model]
    for place, setting in enumerate(changed):
        values = bias(study, model=model, cue=cue, setting=setting)
        if (found := values.interval) is None:
            axes.text(0, place, " no control", va="center", fontsize=7)
            continue
        axes.plot(100 * np.array(found.values), [place] * len(found.values), ".", ms=6, alpha=0.4,
                  mew=0, color=colour)  # fmt: skip
        half = None if found.half is None else 100 * found.half
        style = {} if _passes(study, model, cue, setting) else {"mfc": "none"}
        axes.errorbar(100 * found.mean, place, xerr=half, fmt=shape, color=colour, ms=5, **style,
                      capsize=2, lw=1)  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(changed)), [s.replace("_", " ") for s in changed])
    axes.invert_yaxis()
    finish(axes, x="points of accuracy kept in conflict", y="")
