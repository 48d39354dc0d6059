"""Convolution is one good building block: its bias is worth samples."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.lab.claims.common import CHANCE, CLEAR, GATE, MODELS, SMALL, series
from experiments.lab.rows import Row, Series, Study, describe, mean
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy", {"model": "pixels"})
WRONG_PLACES = ("wrong_places", "permuted")
FITS = 0.05  # training accuracies this close are the same fit


def curve(study: Study, metric: str, **where) -> Mapping[int, Series]:
    """A metric by the number of training examples."""
    counts = {row["n"] for cell in study.find(**where) for row in study.cells[cell].values()}
    return {int(n): series(study, metric, n=n, **where) for n in sorted(counts)}


class Samples(NamedTuple):
    """How many examples two models need for one accuracy.

    Attributes:
      level: the accuracy, half way between the lowest and the highest that both models reach.
      doublings: logarithm to base 2 of the ratio of the examples that the first and the second
        model need, interpolated in log n.
      first, second: those numbers, by seed.
    """

    level: float
    doublings: Series
    first: Series
    second: Series


def samples(study: Study, first: str, second: str, setting: str = "base") -> Samples:
    """Bias in samples: what the second model's bias saves."""
    curves = [curve(study, "accuracy", model=m, setting=setting) for m in (first, second)]
    reached = [[s.interval.mean for s in c.values() if s.interval] for c in curves]
    if not all(reached):
        absent = tuple(f"{model}, {setting}: not run" for model, c
                       in zip((first, second), curves, strict=True) if not c)  # fmt: skip
        nothing = Series({}, absent)
        return Samples(float("nan"), nothing, nothing, nothing)
    level = (max(map(min, reached)) + min(map(max, reached))) / 2
    first, second = (
        _needed(c, level, model) for c, model in zip(curves, (first, second), strict=True)
    )
    return Samples(level, first.join(lambda a, b: float(np.log2(a / b)), second), first, second)


def _needed(points: Mapping[int, Series], level: float, model: str) -> Series:
    missing = [line for s in points.values() for line in s.missing]
    values = {}
    for seed in sorted(set.intersection(*(set(s.values) for s in points.values()))):
        # What more examples have once reached counts: the curve never falls.
        heights = np.maximum.accumulate([s.values[seed] for s in points.values()])
        if heights[0] <= level <= heights[-1]:
            values[seed] = float(np.exp(np.interp(level, heights, np.log(list(points)))))
        else:
            missing.append(f"{model}, seed {seed}: does not cross {level:.1%}")
    return Series(values, tuple(missing))


def _advantage(study: Study, first: str, second: str, setting, second_setting=None) -> Series:
    """The second model's accuracy less the first's, mean over the numbers of examples."""
    where = [
        {"model": first, "setting": setting},
        {"model": second, "setting": second_setting or setting},
    ]
    curves = [curve(study, "accuracy", **one) for one in where]
    common = sorted(set(curves[0]) & set(curves[1]))
    if not common:
        return Series({}, tuple(f"{describe(w)}: not run" for w in where))
    return mean([curves[1][n] - curves[0][n] for n in common])


def _saves(study: Study, *, model: str) -> Sequence[Test]:
    found = samples(study, "pixels", model)
    label = f"examples of pixels over those of {model}, for an accuracy of {found.level:.1%}"
    return [Test(label, found.doublings, "above", 0.0, "doublings")]


def _saves_controls(study: Study, *, model: str) -> Sequence[Test]:
    fits = [curve(study, "accuracy_training", model=m, setting="base") for m in (model, "pixels")]
    worst = [fits[0][n] - fits[1][n] for n in fits[0] if n in fits[1]]
    fit = worst[0].join(lambda *v: max(v), *worst[1:]) if worst else Series({})
    tests = [
        Test(f"wrong places: advantage of {model} over pixels",
             _advantage(study, "pixels", model, WRONG_PLACES), "below", SMALL),
        Test(f"same fit: training accuracy, {model} less pixels at most", fit, "below", FITS),
    ]  # fmt: skip
    if model == "stem":
        shuffled = _advantage(study, "pixels", "stem", "base", "shuffled_stem")
        label = "shuffled stem: advantage over pixels, at equal cost and parameters"
        tests.append(Test(label, shuffled, "below", SMALL))
    return tests


def _locality(study: Study, *, model: str) -> Sequence[Test]:
    raw = _advantage(study, "pixels", model, "base")
    wrong = _advantage(study, "pixels", model, WRONG_PLACES)
    label = f"advantage of {model} over pixels: right places less wrong places"
    left = f"advantage of {model} over pixels, wrong places"
    return [Test(label, raw - wrong, "above", 0.0), Test(left, wrong, "below", SMALL)]


def _locality_controls(study: Study, *, model: str) -> Sequence[Test]:
    raw = _advantage(study, "pixels", model, "base")
    return [
        Test(
            f"something to lose: advantage of {model} over pixels, right places", raw, "above", 0.0
        )
    ]


def _largest(study: Study, metric: str, model: str) -> Series:
    points = curve(study, metric, model=model, setting="base")
    return points[max(points)] if points else Series({}, (f"{model}: not run",))


def _ship(study: Study, *, model: str) -> Sequence[Test]:
    ship = _largest(study, "ship_by_sea", model) - CHANCE["conv"]
    gap = _largest(study, "bg_gap", model)
    return [Test(f"{model}: ships called ships with their middle painted over, less chance", ship,
                 "above", CLEAR),
            Test(f"{model}: Mixed-Same less Mixed-Rand", gap, "above", 0.05)]  # fmt: skip


def _ship_controls(study: Study, *, model: str) -> Sequence[Test]:
    best = max((found.mean for m in MODELS if (found := _largest(study, "accuracy", m).interval)),
               default=0.0)  # fmt: skip
    mine = _largest(study, "accuracy", model)
    return [Test(f"gate: {model}", mine / best if best else mine, "above", GATE)]


CLAIMS = [
    *(
        Claim(
            f"conv.samples.{model}",
            f"Convolution saves examples: pixels needs more of them than {model} for one accuracy.",
            functools.partial(_saves, model=model),
            functools.partial(_saves_controls, model=model),
        )
        for model in ("stem", "resnet")
    ),
    *(
        Claim(
            f"conv.locality.{model}",
            f"The advantage of {model} is its use of neighbourhoods: with every pixel in a wrong "
            "place less than 2 points of it are left.",
            functools.partial(_locality, model=model),
            functools.partial(_locality_controls, model=model),
        )
        for model in ("stem", "resnet")
    ),
    *(
        Claim(
            f"conv.ship.{model}",
            f"{model} knows the ship by its sea: with the middle disc painted over it names ships "
            "more than 10 points above chance, and another class's surroundings cost more than 5. "
            "(The disc is a proxy of the object: parts of it lie outside.)",
            functools.partial(_ship, model=model),
            functools.partial(_ship_controls, model=model),
        )
        for model in MODELS
    ),
]


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """The gate, and where its claims have any those on what convolution saves."""
    gate = _ship_controls(study, model=row["model"])
    saves = _saves_controls(study, model=row["model"]) if row["model"] in ("stem", "resnet") else []
    return [*gate, *saves] if row["setting"] == "base" else ()
