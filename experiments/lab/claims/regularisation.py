"""Bias comes in from the regularisation: one setting is changed at a time.

A setting that merely helps or hurts learning moves conflict accuracy as much as it moves accuracy
where nothing is correlated. What is left when that is taken off is bias. Class dependence follows
Balestriero et al. 2022: what a setting costs on average may come from one class.
"""

import functools
from collections.abc import Sequence

from experiments.lab.claims.common import CHANCE, CLEAR, CUES, SMALL, gate, series
from experiments.lab.rows import Row, Series, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy_conflict", {"setting": "base"})
RHO = 0.95
CLASSES = 10
HARMLESS = ("shift", "cutout")
REPAIRS = ("grey", "channels")  # random colours
UNINFORMED = ("weight_decay_0", "weight_decay_1", "dropout", "smoothing")
LONG = "long"
BASE = "base"


def change(study: Study, metric: str, *, rho: float, setting: str, **where) -> Series:
    """Of a metric, from the base to a setting, seed by seed."""
    after, before = (
        series(study, metric, rho=rho, setting=name, **where) for name in (setting, BASE)
    )
    return after - before


def bias(study: Study, *, model: str, cue: str, setting: str) -> Series:
    """The change of conflict accuracy, less that of accuracy where nothing is correlated."""
    where = {"model": model, "cue": cue, "setting": setting}
    conflict = change(study, "accuracy_conflict", rho=RHO, **where)
    return conflict - change(study, "accuracy_uncorrelated", rho=CHANCE[study.name], **where)


def class_dependence(study: Study, *, model: str, setting: str) -> tuple[Series, Series]:
    """The largest fall of a class's accuracy from the base, without a correlation; and its null.

    The null is the largest fall from a seed of the base to another seed of the base, mean over the
    other seeds. Two seeds differ in their data too, so it errs on the side of no effect.
    """
    where = {"model": model, "cue": CUES[0], "rho": CHANCE[study.name]}
    names = [f"accuracy_conflict_{k}" for k in range(CLASSES)]
    base, after = ([series(study, name, setting=s, **where) for name in names]
                   for s in (BASE, setting))  # fmt: skip
    falls = [b - a for b, a in zip(base, after, strict=True)]
    largest = falls[0].join(lambda *values: max(values), *falls[1:])
    null = {}
    for seed in largest.values:
        others = [s for s in base[0].values if s != seed]
        drops = [max(b.values[seed] - b.values[other] for b in base) for other in others]
        if drops:
            null[seed] = sum(drops) / len(drops)
    return largest, Series(null, largest.missing)


def _moves(study: Study, *, model: str, cue: str, settings, side: str, bound) -> Sequence[Test]:
    return [
        Test(f"{model}, {cue}, {setting}: change of conflict accuracy less that without a "
             "correlation", bias(study, model=model, cue=cue, setting=setting), side, bound)
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
        label = f"{model}, {setting}: largest fall of a class, less that of re-seeded pairs"
        tests.append(Test(label, largest - null, "above", 0.0))
    return tests


KINDS = (
    ("harmless", "What looks harmless makes it worse: shift and cutout each lower {model}'s "
     "conflict accuracy by more than 2 points beyond what they cost without a correlation ({cue}).",
     HARMLESS, "below", -SMALL),
    ("uninformed", "Weight decay, dropout and label smoothing do not matter: each moves {model}'s "
     "conflict accuracy by less than 5 points beyond what it does without a correlation ({cue}).",
     UNINFORMED, "within", 0.05),
    ("late", "The conflicting examples are learned last: with three times the steps {model}'s "
     "conflict accuracy gains more than 10 points beyond what they give without a correlation "
     "({cue}).", (LONG,), "above", CLEAR),
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
            ("colour", "above", "What makes the cue random repairs it: grey images and shuffled "
             "channels each give {model} more than 10 points of conflict accuracy (colour)."),
            ("texture", "within", "A repair is of one cue: grey images and shuffled channels leave "
             "{model}'s conflict accuracy with the texture within 10 points."),
        )
        for model in ("stem", "pixels")
    ),
    *(
        Claim(
            f"regularisation.classes.{model}",
            f"Regularisation depends on the class: under shift and under cutout the class that "
            f"loses most loses more than re-seeding takes from one ({model}, no correlation).",
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
