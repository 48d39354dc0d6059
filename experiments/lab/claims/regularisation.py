"""Bias comes in from the regularisation: one setting is changed at a time.

What a model keeps in conflict is its conflict accuracy over the accuracy that the same setting
gives where nothing is correlated. A setting that merely helps or hurts learning leaves this share
as it is; one that changes it brings in bias, or takes it out. Class dependence follows Balestriero
et al. 2022: what a setting costs on average may come from one class.
"""

import functools
from collections.abc import Sequence

import numpy as np

from experiments.lab.claims.common import CHANCE, CLEAR, CUES, SMALL, gate, series
from experiments.lab.rows import Row, Series, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy_conflict", {"setting": "base"})
RHO = 0.95
CLASSES = 10
HARMLESS = ("shift", "cutout")
REPAIRS = ("grey", "channels")  # random colours
UNINFORMED = ("weight_decay_0", "weight_decay_1", "dropout", "smoothing")
LONG, EARLY = "long", "early"
BASE = "base"


def kept(study: Study, **where) -> Series:
    """Conflict accuracy over the accuracy of the same setting without a correlation."""
    learned = series(study, "accuracy_uncorrelated", rho=CHANCE[study.name], **where)
    return series(study, "accuracy_conflict", rho=RHO, **where) / learned


def bias(study: Study, *, model: str, cue: str, setting: str) -> Series:
    """The change of what is kept in conflict, from the base to a setting."""
    after, before = (kept(study, model=model, cue=cue, setting=s) for s in (setting, BASE))
    return after - before


def class_dependence(study: Study, *, model: str, setting: str) -> tuple[Series, Series]:
    """How much more than the mean the class falls that falls most, from the base to a setting.

    Without a correlation. The second series is its null: the same from a seed of the base to the
    other seeds of the base, on average. Two seeds differ in their data too, so the null is large.
    """
    where = {"model": model, "cue": CUES[0], "rho": CHANCE[study.name]}
    names = [f"accuracy_conflict_{k}" for k in range(CLASSES)]
    base, after = ([series(study, name, setting=s, **where) for name in names]
                   for s in (BASE, setting))  # fmt: skip
    falls = [b - a for b, a in zip(base, after, strict=True)]
    largest = falls[0].join(lambda *values: _excess(values), *falls[1:])
    null = {}
    for seed in largest.values:
        others = [s for s in base[0].values if s != seed]
        drops = [_excess([b.values[seed] - b.values[other] for b in base]) for other in others]
        if drops:
            null[seed] = float(np.mean(drops))
    return largest, Series(null, largest.missing)


def _excess(falls: Sequence[float]) -> float:
    return float(max(falls) - np.mean(falls))


def _moves(study: Study, *, model: str, cue: str, settings, side: str, bound) -> Sequence[Test]:
    return [
        Test(f"{setting}: accuracy kept in conflict, less that of the base",
             bias(study, model=model, cue=cue, setting=setting), side, bound)
        for setting in settings
    ]  # fmt: skip


def _gates(study: Study, *, model: str, cue: str, settings) -> Sequence[Test]:
    where = {"model": model, "cue": cue, "rho": CHANCE[study.name]}
    tests = [gate(study, "accuracy_uncorrelated", setting=s, **where) for s in (BASE, *settings)]
    learns = series(study, "accuracy_aligned", model=model, cue=cue, rho=RHO, setting=BASE)
    label = f"base learned: aligned accuracy of {model}, {cue}"
    return [*tests, Test(label, learns, "above", 0.7)]


def _classes(study: Study, *, model: str, settings) -> Sequence[Test]:
    tests = []
    for setting in settings:
        largest, null = class_dependence(study, model=model, setting=setting)
        label = (
            f"{setting}: the largest fall of a class beyond the mean, less that of re-seeded pairs"
        )
        tests.append(Test(label, largest - null, "above", 0.0))
    return tests


KINDS = (
    ("harmless", "What looks harmless makes it worse: under shift, and under cutout, {model} keeps "
     "over 2 points less of its accuracy in conflict ({cue}).", HARMLESS, "below", -SMALL),
    ("uninformed", "Weight decay, dropout and label smoothing do not matter: under each {model} "
     "keeps as much of its accuracy in conflict, within 5 points ({cue}).",
     UNINFORMED, "within", 0.05),
    ("late", "The conflicting examples are learned last: with three times the steps {model} keeps "
     "over 10 points more of its accuracy in conflict ({cue}).", (LONG,), "above", CLEAR),
    ("early", "Stopping early makes it worse: with a quarter of the steps {model} keeps over 2 "
     "points less of its accuracy in conflict ({cue}).", (EARLY,), "below", -SMALL),
)  # fmt: skip

CLAIMS = [
    *(
        Claim(
            f"regularisation.{name}.{cue}.{model}",
            statement.format(model=model, cue=cue),
            functools.partial(_moves, model=model, cue=cue, settings=settings, side=side,
                              bound=bound),
            functools.partial(_gates, model=model, cue=cue, settings=settings),
        )
        for name, statement, settings, side, bound in KINDS
        for cue in CUES
        for model in ("stem", "pixels")
    ),
    *(
        Claim(
            f"regularisation.repair.{cue}.{model}",
            statement.format(model=model),
            functools.partial(_moves, model=model, cue=cue, settings=REPAIRS, side=side,
                              bound=CLEAR),
            functools.partial(_gates, model=model, cue=cue, settings=REPAIRS),
        )
        for cue, side, statement in (
            ("colour", "above", "What makes the cue random repairs it: with grey images, and with "
             "shuffled channels, {model} keeps over 10 points more in conflict (colour)."),
            ("texture", "within", "A repair is of one cue: with grey images, and with shuffled "
             "channels, {model} keeps as much in conflict, within 10 points (texture)."),
        )
        for model in ("stem", "pixels")
    ),
    *(
        Claim(
            f"regularisation.classes.{model}",
            f"Regularisation depends on the class: under shift, and under cutout, the class that "
            f"loses most loses more beyond the mean than by re-seeding ({model}, no correlation).",
            functools.partial(_classes, model=model, settings=HARMLESS),
            functools.partial(_gates, model=model, cue=CUES[0], settings=HARMLESS),
        )
        for model in ("stem", "pixels")
    ),
]  # fmt: skip


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """The gate of its setting."""
    where = {"model": row["model"], "cue": row["cue"] or CUES[0], "rho": CHANCE[study.name]}
    return [gate(study, "accuracy_uncorrelated", setting=row["setting"], **where)]
