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

from experiments.lab.claims import change
from experiments.lab.claims.common import CHANCE, CUES, MODELS, gate, series
from experiments.lab.claims.conv import WRONG_PLACES, curve, samples
from experiments.lab.claims.regularisation import RHO, bias
from experiments.lab.rows import Row, Series, Study
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


def panels(study: Study) -> list[Panel]:
    """The panels of a study that have a point to draw."""
    make = {"sea": _sea, "dominoes": _dominoes, "conv": _conv, "change": _change,
            "regularisation": _regularisation, "released": _released}.get(study.name)  # fmt: skip
    return make(study) if make and study.rows else []


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


def _finish(axes: Axes, *, x: str, y: str, chance: float | None = None, legend=True) -> None:
    if chance is not None:
        axes.axhline(100 * chance, color="black", ls=":", lw=0.9)
        axes.annotate("chance", (1, 100 * chance), (-2, 2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=7)  # fmt: skip
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if legend and axes.get_legend_handles_labels()[0]:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(fontsize=7, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False,
                columnspacing=1, handlelength=1.5)  # fmt: skip


# sea


def _sea(study: Study) -> list[Panel]:
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
        _finish(axes, x="rho: share of grounds of the class, in training",
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


# dominoes


def _dominoes(study: Study) -> list[Panel]:
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
        _finish(axes, x="test images", y="accuracy, %", chance=0.5)

    rates = sorted({r["rho"] for r in study.rows if r["setting"] == "base"})

    def exceptions(axes: Axes) -> None:
        for i, model in enumerate(MODELS):
            points = {
                j: series(study, "accuracy_mnist_random", model=model, rho=rho, setting="base")
                for j, rho in enumerate(rates)
            }
            line(axes, points, model=model, shift=0.06 * (i - 1.5))
        axes.set_xticks(range(len(rates)), [f"{rho:g}" for rho in rates])
        _finish(axes, x="rho: share of digits of the class, in training",
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


# conv


def _conv(study: Study) -> list[Panel]:
    def curves(axes: Axes, setting, metric: str = "accuracy") -> None:
        for model in MODELS:
            line(axes, curve(study, metric, model=model, setting=setting), model=model)
        axes.set_xscale("log")
        counts = sorted({int(row["n"]) for row in study.rows})
        axes.set_xticks(counts, [f"{n:,}" for n in counts])
        axes.set_xticks([], minor=True)
        _finish(axes, x="training examples", y=f"{metric.replace('_', ' ')}, %",
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
        _legend(axes)

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
        _finish(axes, x="", y="accuracy, %", chance=CHANCE["conv"])

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
    if any(row.get("training_accuracy") is not None for row in study.rows):
        found.append(
            Panel(
                "training",
                "Control: accuracy on the training images",
                "A model that does not fit its training images lacks budget, not bias.",
                claims,
                lambda axes: curves(axes, "base", "training_accuracy"),
            )
        )
    if any(row.get("ship_by_sea") is not None for row in study.rows):
        found.append(Panel("centre", "Photographs with other surroundings",
                           "The middle disc stands for the object. It is a proxy: parts of the "
                           "object lie outside. Models of the largest number of examples.",
                           ("conv.ship",), centre))  # fmt: skip
    return found


# change

CHANGES = (
    ("pixels", "Pixels permuted", "permuted: with their positions. wrong places: before them, the "
     "control of neighbourhoods.", ("change.permuted", "change.wrong", "change.niche"),
     (change.RAW, change.PERMUTED, change.WRONG_PLACES)),
    ("eyes", "A second eye", "one eye and left twice are the controls: neither can tell the class.",
     ("change.eyes", "change.surgery"),
     (change.ONE_EYE, change.LEFT_TWICE, change.BESIDE, change.EYES)),
    ("sound", "Sound", "image and sound alone are the controls.",
     ("change.sound", "change.surgery"),
     (change.IMAGE, change.SOUND, change.BELOW, change.BOTH)),
)  # fmt: skip


def _change(study: Study) -> list[Panel]:
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
        _finish(axes, x="", y="accuracy, %", chance=CHANCE["change"])

    return [
        Panel(name, title, text, names, lambda axes, s=settings: slopes(axes, s))
        for name, title, text, names, settings in CHANGES
        if len(there & set(settings)) > 1
    ]


# released

RATES = {"shape": "called by their shape", "texture": "called by their texture"}


def _released(study: Study) -> list[Panel]:
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
    _finish(axes, x="images, %", y="")


# regularisation


def _regularisation(study: Study) -> list[Panel]:
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
    _finish(axes, x="aligned accuracy, %", y="conflict accuracy, %")
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
    _finish(axes, x="points of accuracy kept in conflict", y="", legend=False)
